"""Dense predictions of a teacher at its own places as predictions at the priors of a student."""

from __future__ import annotations

from itertools import accumulate
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from ladle.boxes import iou
from ladle.device import constants
from ladle.teachers.detections import TeacherDetections
from ladle.types import Grid, Predictions, Priors

__all__ = ["one_each", "resample"]

_SNAP = 1e-3
"""A coordinate this near to a place, in cells, is that of the place."""


class _Levels(NamedTuple):
    """The numbers of a pyramid's levels: stride, offset, width, height and first place, and the level of each place."""

    stride: Float[Tensor, " L"]
    offset: Float[Tensor, " L"]
    width: Float[Tensor, " L"]
    height: Float[Tensor, " L"]
    start: Float[Tensor, " L"]
    of_place: Int[Tensor, " N"]
    each: int

    def at(self, level: Int[Tensor, "*n"]) -> tuple[Tensor, ...]:
        """Stride, offset, width, height and first place of levels."""
        return tuple(values[level] for values in (self.stride, self.offset, self.width, self.height, self.start))

    def centers(self, place: Int[Tensor, "*n"]) -> Float[Tensor, "*n 2"]:
        """The centers of places, in pixels."""
        stride, offset, width, _, start = self.at(self.of_place[place])
        cell = (place - start).div(self.each, rounding_mode="floor")
        row = cell.div(width, rounding_mode="floor")
        return (torch.stack([cell - row * width, row], -1) + offset.unsqueeze(-1)) * stride.unsqueeze(-1)


class _Pyramids(NamedTuple):
    """The levels of student and teacher, and the way from the student's pixels to the teacher's.

    ``apart`` is how far the strides of two levels are from each other: the absolute logarithm of their ratio.
    """

    student: _Levels
    teacher: _Levels
    scale: Float[Tensor, "B 1 2"]
    shift: Float[Tensor, "B 1 2"]
    apart: Float[Tensor, "B T S"]


class _Places(NamedTuple):
    """The four places of the teacher around each prior, and their bilinear weights."""

    place: Int[Tensor, "B P 4"]
    weight: Float[Tensor, "B P 4"]


def resample(found: TeacherDetections, priors: Priors) -> Predictions:
    """Predictions of a teacher at its own places, moved to the priors of a student's grids.

    Of the teacher's levels the one whose stride, in the student's pixels, is nearest to the prior's by ratio; there the
    four places k around the prior's center, with bilinear weights b. Logits are ``sum of b_k logit_k``. Boxes are the
    mean with the weights ``b_k score_k IoU(box_k, box_m)``, where m is the place with the largest ``b_k score_k``, so
    that boxes of different objects are not mixed. Distributions of edges are those of the place m, moved by the
    distance to the prior, converted to its stride, and split linearly between the two nearest bins.

    A level of the teacher that is nearest to no level of the student, such as a finer one than all of these, is served
    by the level that is nearest to it: each of its places belongs to the prior with the nearest center. Of a prior's
    places the one with the highest score is taken, if this is higher than the prior's own, with all its predictions.

    At equal places this is the identity: one weight is 1. Of several anchors at a place, each is taken for the
    student's anchor of the same number, or, if the student has not as many, the one with the highest score for all.

    Examples:
        >>> import torch
        >>> from ladle.detectors import Anchors
        >>> from ladle.teachers import TeacherDetections, resample
        >>> priors = Anchors().grid([(2, 3)], [8], None, torch.device("cpu"))
        >>> logits = torch.arange(6.0).view(1, 6, 1)
        >>> frame = torch.tensor([[1.0, 1.0, 0.0, 0.0]])
        >>> same = resample(TeacherDetections(priors.boxes, logits, frame, grids=priors.grids), priors)
        >>> torch.equal(same.logits, logits)
        True
    """
    grids = priors.grids
    if grids is None or found.grids is None:
        raise ValueError("predictions are re-sampled from grids to grids; boxes without a grid are placed")
    each = grids[0].each
    if any(grid.each != each for grid in (*grids, *found.grids)):
        found, each = one_each(found), 1
    pyramids = _pyramids(found, grids, priors.stride.device, each)
    places = _places(pyramids, priors)
    score = found.logits.amax(-1)
    strength = places.weight * _gathered(score.sigmoid(), places.place)
    best = strength.argmax(-1, keepdim=True)
    logits = _weighted(found.logits, places)
    boxes = _mean_box(_gathered(found.boxes, places.place), strength, best)
    quality = found.quality
    if quality is not None:
        quality = _weighted(quality.unsqueeze(-1), places).squeeze(-1)

    other, highest = _best_of_others(pyramids, score)
    taken = highest > logits.amax(-1)
    place = torch.where(taken, other, places.place.gather(2, best).squeeze(2))
    logits = torch.where(taken.unsqueeze(-1), _gathered(found.logits, other), logits)
    boxes = torch.where(taken.unsqueeze(-1), _gathered(found.boxes, other), boxes)
    if quality is not None and found.quality is not None:
        quality = torch.where(taken, found.quality.gather(1, other), quality)
    edges = _moved(found.edges, place, pyramids, priors) if found.edges is not None else None
    return Predictions(logits, boxes, quality, edges)


def one_each(found: TeacherDetections) -> TeacherDetections:
    """Of several anchors at a place the one with the highest score."""
    assert found.grids is not None
    rows, start = [], 0
    for grid in found.grids:
        cells = grid.height * grid.width
        level = found.logits[:, start : start + cells * grid.each].amax(-1).view(-1, cells, grid.each)
        first = torch.arange(cells, device=level.device) * grid.each + start
        rows.append(first + level.argmax(-1))
        start += cells * grid.each
    index = torch.cat(rows, dim=1)
    return found.replaced(
        boxes=_gathered(found.boxes, index),
        logits=_gathered(found.logits, index),
        quality=found.quality.gather(1, index) if found.quality is not None else None,
        edges=_gathered(found.edges, index) if found.edges is not None else None,
        grids=tuple(grid._replace(each=1) for grid in found.grids),
    )


def _pyramids(found: TeacherDetections, grids: tuple[Grid, ...], device: torch.device, each: int) -> _Pyramids:
    """Both pyramids, of which every place has ``each`` anchors."""
    student, teacher = (_levels(some, device, each) for some in (grids, found.grids or ()))
    scale, shift = found.frame[:, None, :2], found.frame[:, None, 2:]
    between = scale.log().mean(-1, keepdim=True)
    apart = (teacher.stride.log().view(-1, 1) - student.stride.log() - between).abs()
    return _Pyramids(student, teacher, scale, shift, apart)


def _levels(grids: tuple[Grid, ...], device: torch.device, each: int) -> _Levels:
    """The numbers of grids, on a device."""
    sizes = [grid.height * grid.width * each for grid in grids]
    rows = tuple(
        (grid.stride, grid.offset, grid.width, grid.height, end - size, size)
        for grid, size, end in zip(grids, sizes, accumulate(sizes), strict=True)
    )
    stride, offset, width, height, start, counts = constants(rows, device).unbind(-1)
    of_place = torch.arange(len(grids), device=device).repeat_interleave(counts.long(), output_size=sum(sizes))
    return _Levels(stride, offset, width, height, start, of_place, each)


def _places(pyramids: _Pyramids, priors: Priors) -> _Places:
    """The places around each prior, for all images and priors at once."""
    student, each = pyramids.student, pyramids.student.each
    level = pyramids.apart.argmin(1)[:, student.of_place]
    stride, offset, width, height, start = pyramids.teacher.at(level)
    cell = (priors.centers * pyramids.scale + pyramids.shift) / stride.unsqueeze(-1) - offset.unsqueeze(-1)
    whole = cell.round()
    cell = torch.where((cell - whole).abs() < _SNAP, whole, cell)
    last = torch.stack([width, height], -1) - 1
    cell = cell.clamp(min=0).minimum(last)
    low = cell.floor()
    high = (low + 1).minimum(last)
    x, y = torch.stack([low, high], -1).unbind(-2)
    part = cell - low
    along, down = torch.stack([1 - part, part], -1).unbind(-2)
    columns, rows = x[..., None, :].expand(*x.shape, 2).flatten(-2), y[..., :, None].expand(*y.shape, 2).flatten(-2)
    anchor = torch.arange(level.shape[1], device=level.device) % each
    index = ((rows * width.unsqueeze(-1) + columns) * each + start.unsqueeze(-1)).long() + anchor[:, None]
    return _Places(index, (down[..., :, None] * along[..., None, :]).flatten(-2))


def _best_of_others(
    pyramids: _Pyramids, score: Float[Tensor, "B N"]
) -> tuple[Int[Tensor, "B P"], Float[Tensor, "B P"]]:
    """For each prior the best place of the levels that are nearest to no level of the student, and its score.

    The score is the highest class logit, -inf for a prior without such a place.
    """
    student, teacher, scale, shift, apart = pyramids
    place, count = torch.arange(score.shape[1], device=score.device), len(student.of_place)
    number = torch.arange(apart.shape[1], device=score.device).view(1, -1, 1)
    lonely = (apart.argmin(1, keepdim=True) != number).all(-1)
    stride, offset, width, height, start = student.at(apart.argmin(2)[:, teacher.of_place])  # (B, N) each
    cell = (teacher.centers(place) - shift) / scale / stride.unsqueeze(-1) - offset.unsqueeze(-1)
    column, row = cell.round().unbind(-1)
    inside = (column >= 0) & (row >= 0) & (column < width) & (row < height)
    prior = ((row * width + column) * student.each + start).long() + place % student.each
    prior = torch.where(lonely[:, teacher.of_place] & inside, prior, count)  # the last one stands for none
    highest = score.new_full((len(score), count + 1), -torch.inf).scatter_reduce(1, prior, score, "amax")
    wins = score == highest.gather(1, prior)
    first = torch.where(wins, place, len(place) - 1)
    other = torch.full_like(highest, len(place) - 1, dtype=torch.long).scatter_reduce(1, prior, first, "amin")
    return other[:, :-1], highest[:, :-1]


def _gathered(values: Tensor, index: Tensor) -> Tensor:
    """Rows of (B,N,...) at an index (B,...)."""
    first = torch.arange(len(values), device=index.device).view(-1, *[1] * (index.dim() - 1)) * values.shape[1]
    return values.flatten(0, 1)[index + first]


def _weighted(values: Float[Tensor, "B N C"], places: _Places) -> Float[Tensor, "B P C"]:
    """The sum of the values at the four places with their bilinear weights, without holding all four."""
    batch, count, _ = values.shape
    first = torch.arange(batch, device=values.device).view(-1, 1, 1) * count
    rows, weight = (places.place + first).flatten(0, 1), places.weight.flatten(0, 1).to(values.dtype)
    table = values.flatten(0, 1)
    summed: Tensor = F.embedding_bag(rows, table, mode="sum", per_sample_weights=weight)
    return summed.view(batch, -1, values.shape[-1])


def _mean_box(
    boxes: Float[Tensor, "B P 4 4"], strength: Float[Tensor, "B P 4"], best: Int[Tensor, "B P 1"]
) -> Float[Tensor, "B P 4"]:
    """The mean of the boxes, weighted by their strength and their IoU with the strongest."""
    strongest = boxes.gather(2, best.unsqueeze(-1).expand(-1, -1, -1, 4))
    weight = strength * torch.where(torch.arange(4, device=best.device) == best, 1.0, iou(boxes, strongest))
    share = weight / weight.sum(-1, keepdim=True)
    return (boxes * share.unsqueeze(-1)).sum(2)


def _moved(
    edges: Float[Tensor, "B N 4 K"], place: Int[Tensor, "B P"], pyramids: _Pyramids, priors: Priors
) -> Float[Tensor, "B P 4 K"]:
    """The distributions at places as distances from the priors, in their strides."""
    teacher = pyramids.teacher
    probs = _gathered(edges, place).float().softmax(-1)
    bins = probs.shape[-1]
    away = priors.centers * pyramids.scale + pyramids.shift - teacher.centers(place)
    unit = (priors.stride[:, None] * pyramids.scale).repeat(1, 1, 2).unsqueeze(-1)
    stride = teacher.stride[teacher.of_place[place]][..., None, None]
    distance = torch.arange(bins, device=probs.device) * stride + torch.cat([away, -away], -1).unsqueeze(-1)
    value = (distance / unit).clamp(0, bins - 1)
    value = torch.where((value - value.round()).abs() < _SNAP, value.round(), value)
    low = value.floor()
    part, low = value - low, low.long()
    split = torch.zeros_like(probs).scatter_add(-1, low, probs * (1 - part))
    split = split.scatter_add(-1, (low + 1).clamp(max=bins - 1), probs * part)
    return split.clamp(min=1e-12).log()
