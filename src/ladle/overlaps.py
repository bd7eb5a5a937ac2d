"""Overlaps between many boxes and objects in bounded memory, however many objects an image has."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ladle.boxes import IOU_FLOOR, pairwise_coverage
from ladle.device import block_size, fused, may_look, surely_none
from ladle.similarity import SimD, measure_of, numbers_of
from ladle.types import Grid, GroundTruth, Priors, Record

__all__ = ["Overlaps", "best_overlaps", "object_slices", "outside_crowds", "overlap_slices"]

_FEWEST = 8
"""Least number of objects in a slice, however many priors there are: slices of one would be a loop over objects."""


_FAR = 1e30
"""A factor that makes any difference of two overlaps larger than any object number.

It allows an argmax by plain arithmetic, which is many times faster on the CPU than ``max`` with indices:
``max((overlap - best) * FAR - number)`` is minus the number of the first object that reaches ``best``.
"""


@dataclass(frozen=True)
class Overlaps(Record):
    """The best IoU of every prior with its object, and the best IoU of every object.

    Pairs with an invalid prior, a padded object or a crowd region count as IoU 0. By another measure all are values of
    that measure.

    Attributes:
        iou: the highest IoU of each prior with any object.
        index: the object that gives it; on a tie the one listed first.
        peak: the highest IoU of each object with any prior.
        claimant: 1 + the last rescued object whose ``peak`` the prior reaches; 0 where there is none.
    """

    iou: Float[Tensor, "B P"]
    index: Int[Tensor, "B P"]
    peak: Float[Tensor, "B G"]
    claimant: Int[Tensor, "B P"]


def object_slices(batch: int, priors: int, objects: int, like: Tensor) -> list[slice]:
    """Slices of the objects such that one slice with all priors is one block on the device of ``like``.

    They depend on shapes alone, so the loop over them can be compiled.
    """
    width = max(_FEWEST, block_size(like) // max(batch * priors, 1))
    return [slice(start, min(start + width, objects)) for start in range(0, objects, width)]


def best_overlaps(
    boxes: Float[Tensor, "#B P 4"],
    valid: Bool[Tensor, "#B P"],
    truth: GroundTruth,
    rescue: float | None = None,
    grids: tuple[Grid, ...] | None = None,
    trust: Float[Tensor, "B P C"] | None = None,
    measure: SimD | None = None,
) -> Overlaps:
    """Match every box with the object it overlaps most; on a tie with the object listed first.

    Args:
        boxes: boxes of priors, or predicted boxes.
        valid: the boxes that count; the others have IoU 0 with every object.
        truth: the objects.
        rescue: an object whose best IoU is at least this, and above 0, is rescued: the boxes that reach its best IoU
            name it in ``claimant``. An object with best IoU 0 is not, or every box that it does not touch would.
        grids: the grids on which the boxes lie, if they are priors on grids. Faster, with the same result.
        trust: factor for every box and class, by which the IoU of that box with an object of that class is multiplied.
        measure: what takes the place of the IoU.

    Examples:
        >>> from ladle.overlaps import best_overlaps
        >>> from ladle.testing import example_scene
        >>> _, priors, truth = example_scene()
        >>> found = best_overlaps(priors.boxes, priors.valid, truth)
        >>> found.iou.shape, found.index.shape, found.peak.shape  # of every prior, of every prior, of every object
        (torch.Size([2, 1008]), torch.Size([2, 1008]), torch.Size([2, 6]))
    """
    if may_look(boxes):
        return _in_blocks(boxes, valid, truth, rescue, grids, trust, measure)
    least = -1.0 if rescue is None else rescue
    numbers = numbers_of(measure)
    return Overlaps(*_OVERLAPS(boxes, valid, truth.boxes, truth.labels, truth.learnable, least, trust, numbers))


def _in_blocks(
    boxes: Tensor,
    valid: Tensor,
    truth: GroundTruth,
    rescue: float | None,
    grids: tuple[Grid, ...] | None,
    trust: Tensor | None,
    measure: SimD | None,
) -> Overlaps:
    """:func:`best_overlaps` from matrices of overlaps, one slice of objects at a time."""
    best = truth.boxes.new_zeros(len(truth.labels), boxes.shape[1])  # (B, P)
    index, last = torch.zeros_like(best), torch.zeros_like(best)  # floats, for the arithmetic with _FAR
    peaks = [best[:, :0]]
    for part, overlap in overlap_slices(boxes, valid, truth, grids, measure):
        if trust is not None:
            overlap = overlap * _of_class(trust, truth.labels[:, part])
        number = torch.arange(part.start, part.stop, dtype=best.dtype, device=best.device).unsqueeze(-1)
        value, peak = overlap.amax(1), overlap.amax(2)  # (B, P) and (B, g)
        better = value > best
        best = torch.where(better, value, best)
        peaks.append(peak)
        if rescue is not None:
            rescued = torch.where((peak >= rescue) & (peak > 0), peak, torch.inf).unsqueeze(-1)
            last = last.maximum(_marked(overlap - rescued, number + 1, measure).amax(1))
        # The overlaps are not needed any more, so their memory is reused.
        index = torch.where(better, -_marked(overlap.sub_(value.unsqueeze(1)), -number, measure).amax(1), index)
    return Overlaps(best, index.long(), torch.cat(peaks, dim=1), last.long())


def _marked(below: Float[Tensor, "B g P"], number: Float[Tensor, "g 1"], measure: SimD | None) -> Tensor:
    """``number`` where a difference of overlaps is 0, far below every number elsewhere; writes to ``below``.

    Differences of similarities can be smaller than 1 / FAR.
    """
    return below.mul_(_FAR).add_(number) if measure is None else torch.where(below == 0, number, -torch.inf)


def _of_class(values: Float[Tensor, "B P C"], labels: Int[Tensor, "B g"]) -> Float[Tensor, "B g P"]:
    """Gather the value of every box for every object's class."""
    return values.transpose(1, 2).gather(1, labels.unsqueeze(-1).expand(-1, -1, values.shape[1]))


def outside_crowds(priors: Priors, truth: GroundTruth, share: float) -> Bool[Tensor, "B P"]:
    """The valid priors that may be background: at most ``share`` of their area lies in any one crowd region.

    Examples:
        >>> from ladle.overlaps import outside_crowds
        >>> from ladle.testing import example_scene
        >>> _, priors, truth = example_scene()
        >>> outside_crowds(priors, truth, share=0.5).all()  # there is no crowd in this scene
        tensor(True)
    """
    crowd = truth.crowd & truth.valid
    if surely_none(crowd):
        return priors.valid.expand(len(crowd), -1)
    free: Tensor = _OUTSIDE(priors.boxes, priors.valid, truth.boxes, crowd, share)
    return free


def overlap_slices(
    boxes: Tensor,
    valid: Tensor,
    truth: GroundTruth,
    grids: tuple[Grid, ...] | None = None,
    measure: SimD | None = None,
) -> Iterator[tuple[slice, Float[Tensor, "B g P"]]]:
    """IoU of every object with every box, or another ``measure``, one slice of objects at a time.

    The IoU is equal to :func:`ladle.boxes.pairwise_iou` bit for bit. The floor of the denominator is applied to the
    area of the box, once per box, instead of to each union, which is never smaller. Invalid boxes and objects that are
    not learnable are replaced by empty boxes. Each coordinate is a separate matrix, so that the CPU reads memory in
    order.
    """
    batch, objects = truth.labels.shape
    boxes = torch.where(valid.unsqueeze(-1), boxes, 0.0)
    x1, y1, x2, y2 = boxes.permute(2, 0, 1).contiguous().unsqueeze(2)
    box_area = ((x2 - x1).clamp(min=0) * (y2 - y1).clamp(min=0)).clamp(min=IOU_FLOOR)  # (B, 1, P)
    lines = [(x1, y1, x2, y2)] if grids is None else _lines(boxes, grids)
    counted = torch.where(truth.learnable.unsqueeze(-1), truth.boxes, 0.0).permute(2, 0, 1).contiguous().unsqueeze(-1)
    for part in object_slices(batch, boxes.shape[1], objects, boxes):
        sides = counted[:, :, part]
        if measure is not None:
            counts = valid.unsqueeze(1) & truth.learnable[:, part].unsqueeze(-1)
            similar = torch.cat(
                [measure.of_sides(line, _spread(sides, line).unbind()).flatten(2) for line in lines], dim=-1
            )
            yield part, torch.where(counts, similar, 0.0)
            continue
        shared = torch.cat([_shared(sides, line) for line in lines], dim=-1)  # (B, g, P)
        left, top, right, bottom = sides
        object_area = (right - left).clamp(min=0) * (bottom - top).clamp(min=0)  # (B, g, 1)
        yield part, shared.div_((box_area + object_area).sub_(shared))


def _lines(boxes: Float[Tensor, "b P 4"], grids: tuple[Grid, ...]) -> list[tuple[Tensor, ...]]:
    """The left and right sides of every column and the tops and bottoms of every row, level by level.

    On a grid nothing else differs between the boxes: shapes (B, 1, 1, width, each) and (B, 1, height, 1, each).
    """
    lines, start = [], 0
    for grid in grids:
        count = grid.height * grid.width * grid.each
        cells = boxes[:, None, start : start + count].unflatten(2, (grid.height, grid.width, grid.each))
        (x1, _, x2, _), (_, y1, _, y2) = cells[:, :, :1].unbind(-1), cells[:, :, :, :1].unbind(-1)
        lines.append(tuple(side.contiguous() for side in (x1, y1, x2, y2)))
        start += count
    return lines


def _shared(sides: Float[Tensor, "4 B g 1"], line: tuple[Tensor, ...]) -> Float[Tensor, "B g p"]:
    """Intersection areas of objects and boxes: shared widths times shared heights.

    On a grid the widths are computed once per column and the heights once per row.
    """
    x1, y1, x2, y2 = line
    left, top, right, bottom = _spread(sides, line)
    width = right.minimum(x2).sub_(left.maximum(x1)).clamp_(min=0)
    height = bottom.minimum(y2).sub_(top.maximum(y1)).clamp_(min=0)
    shared: Tensor = (width * height).flatten(2)
    return shared


def _spread(sides: Float[Tensor, "4 B g 1"], line: tuple[Tensor, ...]) -> Tensor:
    """The sides of objects, to be broadcast over the columns and rows of :func:`_lines`."""
    return sides.view(*sides.shape[:3], *[1] * (line[0].ndim - 2))


def _best_overlaps(
    boxes: Tensor,
    valid: Tensor,
    objects: Tensor,
    labels: Tensor,
    learnable: Tensor,
    rescue: float,
    trust: Tensor | None,
    numbers: Sequence[float],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """:func:`best_overlaps` of plain tensors, in plain operations; no rescue if ``rescue`` is negative.

    ``numbers`` are those of a :class:`SimD`, none for the IoU.
    """
    truth = GroundTruth(objects, labels, learnable, torch.zeros_like(learnable))
    found = _in_blocks(boxes, valid, truth, rescue if rescue >= 0 else None, None, trust, measure_of(numbers))
    return found.iou, found.index, found.peak, found.claimant


def _outside_crowds(boxes: Tensor, valid: Tensor, objects: Tensor, crowd: Tensor, share: float) -> Tensor:
    """:func:`outside_crowds` of plain tensors, in plain operations, one slice of objects at a time."""
    batch, many = crowd.shape
    free = valid.repeat(batch // len(valid), 1)
    for part in object_slices(batch, boxes.shape[1], many, boxes):
        covered = pairwise_coverage(boxes, objects[:, part]) > share
        free &= ~(covered & crowd[:, None, part]).any(-1)
    return free


_OVERLAPS = fused(
    "best_overlaps(Tensor boxes, Tensor valid, Tensor objects, Tensor labels, Tensor learnable, float rescue, "
    "Tensor? trust, float[] numbers) -> (Tensor, Tensor, Tensor, Tensor)",
    _best_overlaps,
    module="overlaps",
    launches=3,
)
_OUTSIDE = fused(
    "outside_crowds(Tensor boxes, Tensor valid, Tensor objects, Tensor crowd, float share) -> Tensor",
    _outside_crowds,
    module="overlaps",
    launches=1,
)
