"""Regions around objects on each level, and the priors inside them as a table whose shape depends on shapes alone."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ladle.boxes import centers, contains
from ladle.device import constants, fused
from ladle.types import Grid, GroundTruth, Priors

__all__ = ["squares", "window_priors"]

SLACK = 1e-3
"""Tolerance, in cells, for rounding when a coordinate becomes a cell index; an exact test follows."""


def squares(priors: Priors, truth: GroundTruth, radius: float) -> Float[Tensor, "B G L 4"]:
    """The square around each object's center that extends ``radius`` strides of each level to every side."""
    starts = [sum(priors.counts[:level]) for level in range(len(priors.counts))]
    reach = (radius * torch.stack([priors.stride[start] for start in starts])).unsqueeze(-1)
    middle = centers(truth.boxes).unsqueeze(2)
    return torch.cat([middle - reach, middle + reach], dim=-1)


def window_priors(
    priors: Priors,
    grids: tuple[Grid, ...],
    regions: Float[Tensor, "B G L 4"],
    included: Bool[Tensor, "B G"],
    margin: float,
    most: int,
) -> tuple[Int[Tensor, "B G W"], Bool[Tensor, "B G W"]]:
    """A table of ``most`` by ``most`` cells of each level for each object, and which of these priors are in its region.

    Args:
        priors: the priors.
        grids: their grids, with equally many priors at a location on all levels.
        regions: one box for each object and level, in pixels.
        included: the objects to consider.
        margin: a center must be more than this many pixels inside the region.
        most: largest width and height of a region in cells.
    """
    flat = [float(value) for grid in grids for value in grid]
    table: tuple[Tensor, Tensor] = _WINDOWS(priors.boxes, priors.valid, regions, included, flat, margin, most)
    return table


def _window_priors(
    boxes: Tensor,
    valid: Tensor,
    regions: Tensor,
    included: Tensor,
    grids: Sequence[float],
    margin: float,
    most: int,
) -> tuple[Tensor, Tensor]:
    """:func:`window_priors` of plain tensors, in plain operations; ``grids`` has five numbers for each level."""
    each, values = int(grids[4]), levels_table(grids, boxes.device)
    size, stride, offset, base = values[:, :2], values[:, 2:3], values[:, 3:4], values[:, 5:6]
    cell = regions / stride - offset  # (B, G, L, 4)
    first = (cell[..., :2] - SLACK).ceil().clamp(min=0).unsqueeze(-1)
    line = first + torch.arange(most, device=regions.device)  # (B, G, L, 2, most), columns and rows
    real = (line <= cell[..., 2:].unsqueeze(-1) + SLACK) & (line < size.unsqueeze(-1))
    column, row = line.minimum((size - 1).unsqueeze(-1)).unbind(3)
    prior = (row.unsqueeze(-1) * size[:, :1, None] + column.unsqueeze(-2)).flatten(3)  # (B, G, L, most * most)
    prior = prior.unsqueeze(-1) * each + torch.arange(each, device=regions.device)
    prior = (prior.flatten(3) + base).long()
    exists = (real[:, :, :, 1].unsqueeze(-1) & real[:, :, :, 0].unsqueeze(-2)).unsqueeze(-1)
    exists = exists.expand(*exists.shape[:-1], each).flatten(3) & included[..., None, None]
    image = torch.arange(len(prior), device=prior.device).view(-1, 1, 1, 1)
    point, usable = (
        each if len(each) > 1 else each.expand(len(prior), *each.shape[1:]) for each in (centers(boxes), valid)
    )
    inside = contains(regions.unsqueeze(3), point[image, prior], margin)
    return prior.flatten(2), (exists & inside & usable[image, prior]).flatten(2)


def levels_table(grids: Sequence[float], device: torch.device) -> Float[Tensor, "L 6"]:
    """Width, height, stride, offset, priors at a location, and number of the first prior of each level."""
    rows, base = [], 0.0
    for height, width, stride, offset, each in zip(*[iter(grids)] * 5, strict=True):
        rows.append((width, height, stride, offset, each, base))
        base += height * width * each
    return constants(tuple(rows), device)


_WINDOWS = fused(
    "window_priors(Tensor boxes, Tensor valid, Tensor regions, Tensor included, float[] grids, float margin, int most) "
    "-> (Tensor, Tensor)",
    _window_priors,
    module="windows",
    launches=1,
)
