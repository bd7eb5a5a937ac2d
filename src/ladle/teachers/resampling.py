"""Dense predictions of a teacher at its own places as predictions at the priors of a student."""

from __future__ import annotations

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


class _Places(NamedTuple):
    """The four places of the teacher around each prior, their bilinear weights, and offsets to the prior.

    ``offset`` is the prior's center minus that of each place, in pixels of the teacher's input; ``stride`` that of the
    teacher's level, ``unit`` the student's stride in these pixels along x and y.
    """

    place: Int[Tensor, "B P 4"]
    weight: Float[Tensor, "B P 4"]
    offset: Float[Tensor, "B P 4 2"]
    stride: Float[Tensor, "B P"]
    unit: Float[Tensor, "B P 2"]


def resample(found: TeacherDetections, priors: Priors) -> Predictions:
    """Predictions of a teacher at its own places, moved to the priors of a student's grids.

    Of the teacher's levels the one whose stride, in the student's pixels, is nearest to the prior's by ratio; there the
    four places k around the prior's center, with bilinear weights b. Logits are ``sum of b_k logit_k``. Boxes are the
    mean with the weights ``b_k score_k IoU(box_k, box_m)``, where m is the place with the largest ``b_k score_k``, so
    that boxes of different objects are not mixed. Distributions of edges are those of the place m, moved by the
    distance to the prior, converted to its stride, and split linearly between the two nearest bins.

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
    places = _places(found, found.grids or (), priors, each)
    strength = places.weight * _gathered(found.logits.amax(-1).sigmoid(), places.place)
    logits = _weighted(found.logits, places)
    best = strength.argmax(-1, keepdim=True)
    boxes = _mean_box(_gathered(found.boxes, places.place), strength, best)
    quality = found.quality
    if quality is not None:
        quality = _weighted(quality.unsqueeze(-1), places).squeeze(-1)
    edges = _moved(found.edges, places, best) if found.edges is not None else None
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


def _places(found: TeacherDetections, grids: tuple[Grid, ...], priors: Priors, each: int) -> _Places:
    """The places around each prior, for all images and priors at once."""
    scale, shift = found.frame[:, None, :2], found.frame[:, None, 2:]
    unit = priors.stride[:, None] * scale
    counts = [grid.height * grid.width * grid.each for grid in grids]
    starts = [sum(counts[:number]) for number in range(len(counts))]
    rows_of = zip(grids, starts, strict=True)
    table = constants(
        tuple((grid.stride, grid.offset, grid.width, grid.height, start) for grid, start in rows_of),
        priors.stride.device,
    )
    ratio = (table[:, 0].log() - unit.log().mean(-1, keepdim=True)).abs()
    stride, offset, width, height, start = table[ratio.argmin(-1)].unbind(-1)
    center = priors.centers * scale + shift
    cell = center / stride.unsqueeze(-1) - offset.unsqueeze(-1)
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
    anchor = torch.arange(priors.stride.shape[0], device=start.device) % each
    index = ((rows * width.unsqueeze(-1) + columns) * each + start.unsqueeze(-1)).long() + anchor[:, None]
    middle = (torch.stack([columns, rows], -1) + offset[..., None, None]) * stride[..., None, None]
    return _Places(
        index, (down[..., :, None] * along[..., None, :]).flatten(-2), center.unsqueeze(2) - middle, stride, unit
    )


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


def _moved(edges: Float[Tensor, "B N 4 K"], places: _Places, best: Int[Tensor, "B P 1"]) -> Float[Tensor, "B P 4 K"]:
    """The distributions at the best places as distances from the priors, in their strides."""
    probs = _gathered(edges, places.place.gather(2, best).squeeze(2)).float().softmax(-1)
    bins = probs.shape[-1]
    away = places.offset.gather(2, best.unsqueeze(-1).expand(-1, -1, -1, 2)).squeeze(2)
    moved, unit = torch.cat([away, -away], -1).unsqueeze(-1), places.unit.repeat(1, 1, 2).unsqueeze(-1)
    bin_ = torch.arange(bins, device=probs.device)
    value = ((bin_ * places.stride[..., None, None] + moved) / unit).clamp(0, bins - 1)
    value = torch.where((value - value.round()).abs() < _SNAP, value.round(), value)
    low = value.floor()
    part, low = value - low, low.long()
    split = torch.zeros_like(probs).scatter_add(-1, low, probs * (1 - part))
    split = split.scatter_add(-1, (low + 1).clamp(max=bins - 1), probs * part)
    return split.clamp(min=1e-12).log()
