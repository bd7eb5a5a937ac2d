"""How far objects lie from the priors of their image, in sums of both sides: what SimD is scaled by."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from ladle.boxes import IOU_FLOOR
from ladle.overlaps import object_slices
from ladle.types import GroundTruth, Priors

__all__ = ["center_distances"]

_Line = tuple[Tensor, Tensor, Tensor]
"""Lower ends, upper ends and numbers of priors of n intervals, (b, n) each."""


def center_distances(priors: Priors, truth: GroundTruth) -> Float[Tensor, "B G 2"]:
    """The distances of each object's center from those of all valid priors of its image, summed over the priors.

    Across, a distance is divided by the sum of both widths, and down by the sum of both heights. Divided by the number
    of pairs, their sums over a data set are m and n of :class:`~ladle.assigners.SimD`. On a grid distances across are
    those of the columns, each counted as often as it has valid priors, and distances down are those of the rows.

    Examples:
        >>> from ladle.statistics import center_distances
        >>> from ladle.testing import example_scene
        >>> _, priors, truth = example_scene()
        >>> pairs = truth.learnable.sum() * priors.valid.sum()  # all images have the same priors
        >>> center_distances(priors, truth).sum((0, 1)) / pairs
        tensor([1.1219, 1.0929], dtype=torch.float64)
    """
    batch, objects = truth.labels.shape
    total = torch.zeros(batch, objects, 2, dtype=torch.float64, device=truth.boxes.device)
    boxes = truth.boxes.double()
    for lines in _lines(priors):
        for side, line in enumerate(lines):
            ends = boxes[..., side], boxes[..., side + 2]
            for part in object_slices(batch, line[0].shape[1], objects, truth.boxes):
                total[:, part, side] += _summed(ends[0][:, part], ends[1][:, part], line)
    return total


def _lines(priors: Priors) -> Iterator[tuple[_Line, _Line]]:
    """What has to be compared across and down: columns and rows of each grid, or all priors without a grid."""
    if priors.grids is None:
        x1, y1, x2, y2 = priors.boxes.double().unbind(-1)
        yield (x1, x2, priors.valid), (y1, y2, priors.valid)
        return
    start = 0
    for grid in priors.grids:
        level, shape = slice(start, start + grid.height * grid.width * grid.each), (grid.height, grid.width, grid.each)
        cells = priors.boxes[:, level].double().unflatten(1, shape)
        valid = priors.valid[:, level].unflatten(1, shape)
        row, column = cells[:, 0].flatten(1, 2), cells[:, :, 0].flatten(1, 2)
        yield (
            (row[..., 0], row[..., 2], valid.sum(1).flatten(1)),
            (column[..., 1], column[..., 3], valid.sum(2).flatten(1)),
        )
        start = level.stop


def _summed(low: Float[Tensor, "B g"], high: Float[Tensor, "B g"], line: _Line) -> Float[Tensor, "B g"]:
    lower, upper, count = (each.unsqueeze(1) for each in line)  # (b, 1, n)
    low, high = low.unsqueeze(-1), high.unsqueeze(-1)
    both = (high - low).clamp(min=0) + (upper - lower).clamp(min=0)
    apart = ((low + high) - (lower + upper)).abs() / 2
    return (apart / both.clamp(min=IOU_FLOOR) * count).sum(-1)
