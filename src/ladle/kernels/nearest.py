"""Kernel of :mod:`ladle.assigners.atss`: the candidates of each object and its threshold, one program an object."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from ladle.boxes import IOU_FLOOR
from ladle.kernels.overlaps import similarity
from ladle.similarity import LARGEST_SIDES
from ladle.windows import levels_table

__all__ = ["nearest_candidates"]


def nearest_candidates(
    boxes: Tensor,
    valid: Tensor,
    objects: Tensor,
    learnable: Tensor,
    grids: Sequence[float],
    topk: int,
    margin: float,
    numbers: Sequence[float],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """See ``_nearest_candidates`` in :mod:`ladle.assigners.atss`; ``grids`` has five numbers for each level."""
    (batch, many), count = learnable.shape, boxes.shape[1]
    table = levels_table(grids, boxes.device)
    columns = topk * len(table)
    near = torch.empty(batch, many, columns, dtype=torch.long, device=boxes.device)
    found = torch.empty(batch, many, columns, dtype=torch.bool, device=boxes.device)
    overlap = boxes.new_empty(batch, many, columns)
    chosen = torch.empty_like(found)
    if batch and many:
        _candidates[(many, batch)](
            boxes.contiguous(),
            valid.contiguous(),
            objects.contiguous(),
            learnable.contiguous(),
            table,
            near,
            found,
            overlap,
            chosen,
            margin=margin,
            many=many,
            count=count,
            levels=len(table),
            per_image_boxes=int(len(boxes) > 1),
            per_image_valid=int(len(valid) > 1),
            floor=IOU_FLOOR,
            most=LARGEST_SIDES,
            m=numbers[0] if numbers else 1.0,
            n=numbers[1] if numbers else 1.0,
            TOPK=topk,
            SIDE=triton.next_power_of_2(topk),
            LINE=triton.next_power_of_2(int(max(*grids[0::5], *grids[1::5]))),
            WIDTH=triton.next_power_of_2(columns),
            SIMD=len(numbers) > 0,
            enable_fp_fusion=False,
        )
    return near, found, overlap, chosen


@triton.jit
def _lines(coordinate, extent, stride, offset, TOPK: tl.constexpr, SIDE: tl.constexpr):
    """The ``TOPK`` columns (or rows) around a coordinate, their distances, and their ranks by distance."""
    at = tl.arange(0, SIDE)
    middle = tl.div_rn(coordinate, stride) - offset
    first = tl.minimum(tl.maximum(tl.ceil(middle - TOPK / 2), 0.0), tl.maximum(extent - TOPK, 0).to(tl.float32))
    line = first.to(tl.int32) + at
    apart = tl.abs((line.to(tl.float32) + offset) * stride - coordinate)
    apart = tl.where((at < TOPK) & (line < extent), apart, float("inf"))
    before = (apart[None, :] < apart[:, None]) | ((apart[None, :] == apart[:, None]) & (at[None, :] < at[:, None]))
    return line, apart, tl.sum(before.to(tl.int32), 1)


@triton.jit
def _candidates(
    boxes, valid, objects, learnable, table, near, found, overlap, chosen, margin,
    many, count, levels, per_image_boxes, per_image_valid, floor, most, m, n,
    TOPK: tl.constexpr, SIDE: tl.constexpr, LINE: tl.constexpr, WIDTH: tl.constexpr, SIMD: tl.constexpr,
):  # fmt: skip
    """The nearest priors of one object on every level, their overlaps, and which of them it chooses."""
    image, number = tl.program_id(1), tl.program_id(0)
    place = image * many + number
    left, top = tl.load(objects + place * 4), tl.load(objects + place * 4 + 1)
    right, bottom = tl.load(objects + place * 4 + 2), tl.load(objects + place * 4 + 3)
    slot, along = tl.arange(0, WIDTH), tl.arange(0, LINE)
    nearest = tl.zeros([WIDTH], tl.int32)
    real = tl.zeros([WIDTH], tl.int32)
    for level in range(levels):
        width = tl.load(table + level * 6).to(tl.int32)
        height = tl.load(table + level * 6 + 1).to(tl.int32)
        stride, offset = tl.load(table + level * 6 + 2), tl.load(table + level * 6 + 3)
        each = tl.load(table + level * 6 + 4).to(tl.int32)
        base = tl.load(table + level * 6 + 5).to(tl.int32)
        # The valid cells are a rectangle at the top left: its extent is that of the first row and the first column.
        first_cell = valid + image * per_image_valid * count + base
        columns = tl.sum((tl.load(first_cell + along * each, along < width, 0) != 0).to(tl.int32), 0)
        rows = tl.sum((tl.load(first_cell + along * width * each, along < height, 0) != 0).to(tl.int32), 0)
        column, across, column_rank = _lines((left + right) / 2, columns, stride, offset, TOPK, SIDE)
        row, down, row_rank = _lines((top + bottom) / 2, rows, stride, offset, TOPK, SIDE)
        distance = tl.sqrt_rn((across * across)[None, :] + (down * down)[:, None])
        cell = row[:, None] * width + column[None, :]
        # Equal distances are ordered by the rank of the column, then of the row.
        order = column_rank[None, :] * SIDE + row_rank[:, None]
        for step in range((TOPK + each - 1) // each):
            least = tl.min(tl.min(distance, 1), 0)
            first = tl.min(tl.min(tl.where(distance == least, order, SIDE * SIDE), 1), 0)
            picked = (order == first) & (distance < float("inf"))
            prior = base + tl.sum(tl.sum(tl.where(picked, cell, 0), 1), 0) * each
            some = tl.sum(tl.sum(picked.to(tl.int32), 1), 0)
            distance = tl.where(picked, float("inf"), distance)
            anchor = slot - level * TOPK - step * each  # which prior of this cell belongs into each slot
            here = (anchor >= 0) & (anchor < each) & (slot < (level + 1) * TOPK)
            nearest = tl.where(here, prior + anchor, nearest)
            real = tl.where(here, some, real)
    exists = (real != 0) & (tl.load(learnable + place) != 0)
    at = image * per_image_boxes * count + nearest
    within = slot < levels * TOPK
    x1, y1 = tl.load(boxes + at * 4, within, 0.0), tl.load(boxes + at * 4 + 1, within, 0.0)
    x2, y2 = tl.load(boxes + at * 4 + 2, within, 0.0), tl.load(boxes + at * 4 + 3, within, 0.0)
    if SIMD:
        iou = similarity(x1, y1, x2, y2, left, top, right, bottom, m, n, floor, most)
    else:
        shared_width = tl.maximum(tl.minimum(x2, right) - tl.maximum(x1, left), 0.0)
        shared = shared_width * tl.maximum(tl.minimum(y2, bottom) - tl.maximum(y1, top), 0.0)
        area = tl.maximum(x2 - x1, 0.0) * tl.maximum(y2 - y1, 0.0)
        union = area + tl.maximum(right - left, 0.0) * tl.maximum(bottom - top, 0.0) - shared
        iou = tl.div_rn(shared, tl.maximum(union, floor))
    one = exists.to(tl.float32)
    total = tl.sum(one, 0)
    mean = tl.div_rn(tl.sum(iou * one, 0), tl.maximum(total, 1.0))
    variance = tl.div_rn(tl.sum((iou - mean) * (iou - mean) * one, 0), tl.maximum(total - 1, 1.0))
    x, y = (x1 + x2) / 2, (y1 + y2) / 2
    inner = tl.minimum(tl.minimum(x - left, right - x), tl.minimum(y - top, bottom - y))
    chooses = exists & (inner > margin) & (iou >= mean + tl.sqrt_rn(variance))
    start = place.to(tl.int64) * levels * TOPK + slot
    tl.store(near + start, nearest, within)
    tl.store(found + start, exists, within)
    tl.store(overlap + start, iou, within)
    tl.store(chosen + start, chooses, within)
