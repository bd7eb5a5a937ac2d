"""Kernel of :mod:`ladle.windows`: the priors of a grid inside the region of an object, one program an object."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from ladle.windows import SLACK, levels_table

__all__ = ["window_priors"]


def window_priors(
    boxes: Tensor, valid: Tensor, regions: Tensor, included: Tensor, grids: Sequence[float], margin: float, most: int
) -> tuple[Tensor, Tensor]:
    """See ``_window_priors`` in :mod:`ladle.windows`."""
    (batch, many), table = included.shape, levels_table(grids, boxes.device)
    width = len(table) * most * most * int(grids[4])
    prior = torch.empty(batch, many, width, dtype=torch.long, device=boxes.device)
    real = torch.empty(batch, many, width, dtype=torch.bool, device=boxes.device)
    if prior.numel():
        _windows[(triton.cdiv(width, 256), many, batch)](
            boxes.contiguous(),
            valid.contiguous(),
            regions.contiguous(),
            included.contiguous(),
            table,
            prior,
            real,
            margin=margin,
            slack=SLACK,
            many=many,
            count=boxes.shape[1],
            levels=len(table),
            most=most,
            width=width,
            per_image_boxes=int(len(boxes) > 1),
            per_image_valid=int(len(valid) > 1),
            CELLS=256,
            enable_fp_fusion=False,
        )
    return prior, real


@triton.jit
def _windows(
    boxes, valid, regions, included, table, prior, real, margin, slack,
    many, count, levels, most, width, per_image_boxes, per_image_valid, CELLS: tl.constexpr,
):  # fmt: skip
    """A block of the window of one object."""
    image, number = tl.program_id(2), tl.program_id(1)
    place = image * many + number
    at = tl.program_id(0) * CELLS + tl.arange(0, CELLS)
    within = at < width
    size = width // levels
    level = tl.where(within, at // size, 0)
    columns, rows = tl.load(table + level * 6), tl.load(table + level * 6 + 1)
    stride, offset = tl.load(table + level * 6 + 2), tl.load(table + level * 6 + 3)
    each, base = tl.load(table + level * 6 + 4).to(tl.int32), tl.load(table + level * 6 + 5).to(tl.int32)
    cell = (at % size) // each
    region = regions + (place * levels + level) * 4
    left, top = tl.load(region), tl.load(region + 1)
    right, bottom = tl.load(region + 2), tl.load(region + 3)
    first_column = tl.maximum(tl.ceil((tl.div_rn(left, stride) - offset) - slack), 0.0)
    first_row = tl.maximum(tl.ceil((tl.div_rn(top, stride) - offset) - slack), 0.0)
    column, row = first_column + (cell % most).to(tl.float32), first_row + (cell // most).to(tl.float32)
    exists = within & (column <= (tl.div_rn(right, stride) - offset) + slack) & (column < columns)
    exists = exists & (row <= (tl.div_rn(bottom, stride) - offset) + slack) & (row < rows)
    exists = exists & (tl.load(included + place) != 0)
    column, row = tl.minimum(column, columns - 1), tl.minimum(row, rows - 1)
    index = base + (row.to(tl.int32) * columns.to(tl.int32) + column.to(tl.int32)) * each + (at % size) % each
    box = boxes + (image * per_image_boxes * count + index) * 4
    x = (tl.load(box, within, 0.0) + tl.load(box + 2, within, 0.0)) / 2
    y = (tl.load(box + 1, within, 0.0) + tl.load(box + 3, within, 0.0)) / 2
    inner = tl.minimum(tl.minimum(x - left, right - x), tl.minimum(y - top, bottom - y))
    usable = tl.load(valid + image * per_image_valid * count + index, within, 0) != 0
    tl.store(prior + place.to(tl.int64) * width + at, index, within)
    tl.store(real + place.to(tl.int64) * width + at, exists & (inner > margin) & usable, within)
