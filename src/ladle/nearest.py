"""The priors nearest to an object's center on each level, and ATSS's IoU threshold (Zhang et al., CVPR 2020)."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ladle.boxes import centers
from ladle.overlaps import object_slices
from ladle.types import Grid, GroundTruth, Priors

__all__ = ["boxes_at", "mean_plus_spread", "nearest_priors"]

_EXACT = "donot_use_mm_for_euclid_dist"


def nearest_priors(priors: Priors, truth: GroundTruth, topk: int) -> tuple[Int[Tensor, "B G K"], Bool[Tensor, "B G K"]]:
    """The ``topk`` valid priors of every level nearest to each object's center, and which of these entries exist.

    K is at most ``topk`` times the number of levels. On a grid the priors are computed from the coordinates, otherwise
    searched. Among priors at equal distance the choice is unspecified, as in the reference code, except at one
    location of a grid, where the first ones are taken.
    """
    if priors.grids is None:
        near, found = _searched(priors, truth, topk)
    else:
        near, found = _looked_up(priors, priors.grids, truth, topk)
    return near, found & truth.learnable.unsqueeze(-1)


def boxes_at(boxes: Float[Tensor, "#B P 4"], index: Int[Tensor, "B G K"]) -> Float[Tensor, "B G K 4"]:
    """Gather the boxes that ``index`` names for each object."""
    if len(boxes) == 1:
        return boxes[0].index_select(0, index.flatten()).view(*index.shape, 4)
    first = torch.arange(len(boxes), device=index.device).view(-1, 1, 1) * boxes.shape[1]
    return boxes.flatten(0, 1).index_select(0, (index + first).flatten()).view(*index.shape, 4)


def mean_plus_spread(overlap: Float[Tensor, "B G K"], found: Bool[Tensor, "B G K"]) -> Float[Tensor, "B G 1"]:
    """Mean plus unbiased standard deviation of the overlaps of each object's candidates, which ``found`` marks."""
    count = found.sum(-1, keepdim=True)
    mean = (overlap * found).sum(-1, keepdim=True) / count.clamp(min=1)
    variance = ((overlap - mean).square() * found).sum(-1, keepdim=True) / (count - 1).clamp(min=1)
    return mean + variance.sqrt()


def _looked_up(
    priors: Priors, grids: tuple[Grid, ...], truth: GroundTruth, topk: int
) -> tuple[Int[Tensor, "B G K"], Bool[Tensor, "B G K"]]:
    """Rank the columns and the rows of each grid by their distance, and combine them.

    A cell whose column has rank a and whose row has rank b (from 1) has at least a*b - 1 cells that are as near. So
    only cells with a*b <= topk can be among the nearest: 23 cells for topk = 9.
    """
    middles = centers(truth.boxes)
    lines, start = [], 0  # for each level: the nearest columns, their distances, the nearest rows, their distances
    for grid in grids:
        count = grid.height * grid.width * grid.each
        # The valid cells are a rectangle at the top left, so their number in the first row and column is its extent.
        cells = priors.valid[:, start : start + count].view(-1, grid.height, grid.width, grid.each)[..., 0]
        lines.append(
            (
                *_ranked(middles[..., 0], cells[:, 0].sum(-1), grid, topk),
                *_ranked(middles[..., 1], cells[:, :, 0].sum(-1), grid, topk),
            )
        )
        start += count
    columns, x, rows, y = (torch.stack(each, dim=2) for each in zip(*lines, strict=True))  # (B, G, L, topk) each
    ranks = [(slice(a, a + 1), slice(0, topk // (a + 1))) for a in range(topk)]
    distance = torch.cat([x[..., a].square() + y[..., b].square() for a, b in ranks], dim=-1).sqrt()  # (B, G, L, n)
    column = torch.cat([columns[..., a].expand_as(rows[..., b]) for a, b in ranks], dim=-1)
    row = torch.cat([rows[..., b] for _, b in ranks], dim=-1)
    return _picked(grids, row, column, distance, topk)


def _picked(
    grids: tuple[Grid, ...],
    row: Int[Tensor, "B G L n"],
    column: Int[Tensor, "B G L n"],
    distance: Float[Tensor, "B G L n"],
    topk: int,
) -> tuple[Int[Tensor, "B G K"], Bool[Tensor, "B G K"]]:
    """The priors of the ``topk`` nearest of these cells; a cell of n priors stands for n of them."""
    distance, order = distance.sort(dim=-1, stable=True)
    row, column = row.gather(-1, order), column.gather(-1, order)
    keeps, exists, start = [], [], 0
    for level, grid in enumerate(grids):
        cells = min(topk, -(-topk // grid.each))
        prior = row[:, :, level, :cells] * grid.width + column[:, :, level, :cells]
        prior = prior.unsqueeze(-1) * grid.each + torch.arange(grid.each, device=prior.device)
        real = distance[:, :, level, :cells].isfinite().unsqueeze(-1).expand_as(prior)
        keeps.append(prior.flatten(2)[..., :topk] + start)
        exists.append(real.flatten(2)[..., :topk])
        start += grid.height * grid.width * grid.each
    return torch.cat(keeps, dim=-1), torch.cat(exists, dim=-1)


def _ranked(
    coordinate: Float[Tensor, "B G"], extent: Int[Tensor, " b"], grid: Grid, topk: int
) -> tuple[Int[Tensor, "B G k"], Float[Tensor, "B G k"]]:
    """The ``topk`` columns (or rows) nearest to a coordinate, nearest first, and their distances.

    ``extent`` is the number of valid columns; beyond it the distance is infinite.
    """
    extent = extent.view(-1, 1, 1)
    middle = coordinate.unsqueeze(-1) / grid.stride - grid.offset
    first = (middle - topk / 2).ceil().maximum(torch.zeros_like(middle)).minimum((extent - topk).clamp(min=0))
    line = first.long() + torch.arange(topk, device=middle.device)
    apart = ((line + grid.offset) * grid.stride - coordinate.unsqueeze(-1)).abs()
    apart, order = torch.where(line < extent, apart, torch.inf).sort(dim=-1, stable=True)
    return torch.where(apart.isfinite(), line.gather(-1, order), 0), apart


def _searched(priors: Priors, truth: GroundTruth, topk: int) -> tuple[Int[Tensor, "B G K"], Bool[Tensor, "B G K"]]:
    """Measure the distance of every object to every prior of a level, one slice of objects at a time."""
    batch, objects = truth.labels.shape
    middles = centers(truth.boxes)
    keeps, exists = [], []
    for part in object_slices(batch, max(priors.counts), objects, truth.boxes):
        levels, start = [], 0
        for count in priors.counts:
            level = slice(start, start + count)
            apart = torch.cdist(middles[:, part], priors.centers[:, level].expand(batch, -1, -1), compute_mode=_EXACT)
            apart = apart.masked_fill(~priors.valid[:, None, level], torch.inf)
            distance, nearest = apart.topk(min(topk, count), largest=False)
            levels.append((nearest + start, distance.isfinite()))
            start += count
        keeps.append(torch.cat([index for index, _ in levels], dim=-1))
        exists.append(torch.cat([real for _, real in levels], dim=-1))
    if not keeps:
        empty = truth.labels.new_zeros(batch, 0, 1)
        return empty, empty.bool()
    return torch.cat(keeps, dim=1), torch.cat(exists, dim=1)
