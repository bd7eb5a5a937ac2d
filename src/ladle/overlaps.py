"""Overlaps between many boxes and objects, in memory that stays bounded however crowded the image is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ladle.boxes import IOU_FLOOR, pairwise_coverage
from ladle.types import Grid, GroundTruth, Priors, Record

__all__ = ["Overlaps", "best_overlaps", "may_look", "object_slices", "outside_crowds", "overlap_slices", "surely_none"]

CHUNK = 1 << 18
"""Largest number of prior-object pairs held at once: 1 MiB a matrix in float32, which stays in a processor's cache."""

_FEWEST = 8
"""Objects taken at once however many priors there are: one by one would be a loop over objects."""


_FAR = 1e30
"""Turns any difference of overlaps into more than any number of an object.

Which object is best, or reaches its peak, is then found by arithmetic, which is many times faster on a processor than
carrying indices along: ``max((overlap - best) * FAR - number)`` is minus the number of the first object that is best.
"""


@dataclass(frozen=True)
class Overlaps(Record):
    """The best IoU of every prior and the object that gives it, and the best IoU of every object.

    Pairs with an invalid prior, a padded object or a crowd count as 0. ``claimant`` is 1 + the last object that the
    prior overlaps as well as any prior does, 0 where there is none or nobody asked.
    """

    iou: Float[Tensor, "B P"]
    index: Int[Tensor, "B P"]
    peak: Float[Tensor, "B G"]
    claimant: Int[Tensor, "B P"]


def object_slices(batch: int, priors: int, objects: int) -> list[slice]:
    """Cut the objects so that the pairs of a slice with all priors fit :data:`CHUNK`; static, hence compilable."""
    width = max(_FEWEST, CHUNK // max(batch * priors, 1))
    return [slice(start, min(start + width, objects)) for start in range(0, objects, width)]


def best_overlaps(
    boxes: Float[Tensor, "#B P 4"],
    valid: Bool[Tensor, "#B P"],
    truth: GroundTruth,
    rescue: float | None = None,
    grids: tuple[Grid, ...] | None = None,
    trust: Float[Tensor, "B P C"] | None = None,
) -> Overlaps:
    """Match every box with the object it overlaps most; on a tie the object listed first wins.

    ``grids`` says how the boxes stand if they are priors that know it, which saves time and changes nothing. ``trust``
    multiplies each overlap by what its box has of the object's class.

    With ``rescue``, objects whose best IoU is at least that, and above 0, claim the boxes that reach it: an object that
    touches no box would otherwise claim every box it does not touch.

    Examples:
        >>> from ladle.overlaps import best_overlaps
        >>> from ladle.testing import example_scene
        >>> _, priors, truth = example_scene()
        >>> found = best_overlaps(priors.boxes, priors.valid, truth)
        >>> found.iou.shape, found.index.shape, found.peak.shape  # of every prior, of every prior, of every object
        (torch.Size([2, 1008]), torch.Size([2, 1008]), torch.Size([2, 6]))
    """
    best = truth.boxes.new_zeros(len(truth.labels), boxes.shape[1])
    index, last = torch.zeros_like(best), torch.zeros_like(best)
    peaks = [best[:, :0]]
    for part, overlap in overlap_slices(boxes, valid, truth, grids):
        if trust is not None:
            overlap = overlap * _of_class(trust, truth.labels[:, part])
        number = torch.arange(part.start, part.stop, dtype=best.dtype, device=best.device).unsqueeze(-1)
        value, peak = overlap.amax(1), overlap.amax(2)
        better = value > best
        best = torch.where(better, value, best)
        peaks.append(peak)
        if rescue is not None:
            entitled = torch.where((peak >= rescue) & (peak > 0), peak, torch.inf).unsqueeze(-1)
            last = last.maximum((overlap - entitled).mul_(_FAR).add_(number + 1).amax(1))
        # The overlap is not needed any more and is written over.
        index = torch.where(better, -overlap.sub_(value.unsqueeze(1)).mul_(_FAR).sub_(number).amax(1), index)
    return Overlaps(best, index.long(), torch.cat(peaks, dim=1), last.long())


def _of_class(values: Float[Tensor, "B P C"], labels: Int[Tensor, "B g"]) -> Float[Tensor, "B g P"]:
    """What every box has of every object's class."""
    return values.transpose(1, 2).gather(1, labels.unsqueeze(-1).expand(-1, -1, values.shape[1]))


def outside_crowds(priors: Priors, truth: GroundTruth, share: float) -> Bool[Tensor, "B P"]:
    """The valid priors of which at most ``share`` lies in any one crowd region: those that may be background.

    Examples:
        >>> from ladle.overlaps import outside_crowds
        >>> from ladle.testing import example_scene
        >>> _, priors, truth = example_scene()
        >>> outside_crowds(priors, truth, share=0.5).all()  # there is no crowd in this scene
        tensor(True)
    """
    batch, objects = truth.labels.shape
    free = priors.valid.expand(batch, -1)
    crowd = truth.crowd & truth.valid
    if surely_none(crowd):
        return free
    for part in object_slices(batch, priors.boxes.shape[1], objects):
        covered = pairwise_coverage(priors.boxes, truth.boxes[:, part]) > share
        free = free & ~(covered & crowd[:, None, part]).any(-1)
    return free


def overlap_slices(
    boxes: Tensor, valid: Tensor, truth: GroundTruth, grids: tuple[Grid, ...] | None = None
) -> Iterator[tuple[slice, Float[Tensor, "B g P"]]]:
    """IoU of every object of a slice with every box; object-major, coordinate by coordinate, so that it streams.

    The same as :func:`ladle.boxes.pairwise_iou`, bit for bit: the floor stands under a box's own area instead of each
    union, which is never less. What does not count gets an empty box.
    """
    batch, objects = truth.labels.shape
    boxes = torch.where(valid.unsqueeze(-1), boxes, 0.0)
    x1, y1, x2, y2 = boxes.permute(2, 0, 1).contiguous().unsqueeze(2)
    own = ((x2 - x1).clamp(min=0) * (y2 - y1).clamp(min=0)).clamp(min=IOU_FLOOR)
    lines = [(x1, y1, x2, y2)] if grids is None else _lines(boxes, grids)
    counted = torch.where(truth.learnable.unsqueeze(-1), truth.boxes, 0.0).permute(2, 0, 1).contiguous().unsqueeze(-1)
    for part in object_slices(batch, boxes.shape[1], objects):
        sides = counted[:, :, part]
        shared = torch.cat([_shared(sides, line) for line in lines], dim=-1)
        left, top, right, bottom = sides
        theirs = (right - left).clamp(min=0) * (bottom - top).clamp(min=0)
        yield part, shared.div_((own + theirs).sub_(shared))


def _lines(boxes: Float[Tensor, "b P 4"], grids: tuple[Grid, ...]) -> list[tuple[Tensor, ...]]:
    """The columns' left and right sides and the rows' tops and bottoms, all that a grid's boxes differ in."""
    lines, start = [], 0
    for grid in grids:
        count = grid.height * grid.width * grid.each
        cells = boxes[:, None, start : start + count].unflatten(2, (grid.height, grid.width, grid.each))
        (x1, _, x2, _), (_, y1, _, y2) = cells[:, :, :1].unbind(-1), cells[:, :, :, :1].unbind(-1)
        lines.append(tuple(side.contiguous() for side in (x1, y1, x2, y2)))
        start += count
    return lines


def _shared(sides: Float[Tensor, "4 B g 1"], line: tuple[Tensor, ...]) -> Float[Tensor, "B g p"]:
    """What objects and boxes have in common: widths times heights, which on a grid belong to columns and to rows."""
    x1, y1, x2, y2 = line
    left, top, right, bottom = sides.view(*sides.shape[:3], *[1] * (x1.ndim - 2))
    width = right.minimum(x2).sub_(left.maximum(x1)).clamp_(min=0)
    height = bottom.minimum(y2).sub_(top.maximum(y1)).clamp_(min=0)
    shared: Tensor = (width * height).flatten(2)
    return shared


def may_look(tensor: Tensor) -> bool:
    """Whether reading what a tensor holds is free: on the CPU, outside a compiled graph; a GPU's queue would stop."""
    return tensor.device.type == "cpu" and not torch.compiler.is_compiling()


def surely_none(mask: Bool[Tensor, "*b"]) -> bool:
    """Whether nothing is marked, asked only where looking is free."""
    return may_look(mask) and not bool(mask.any())
