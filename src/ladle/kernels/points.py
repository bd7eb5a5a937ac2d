"""Kernels that compare points with boxes: the smallest object that a point may learn, points inside any region."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

__all__ = ["inside_any", "inside_matrix", "smallest_object"]

_POINTS = 128
"""Points of one program."""


def smallest_object(
    boxes: Tensor, stride: Tensor, level: Tensor, valid: Tensor, objects: Tensor, learnable: Tensor, bounds: Tensor,
    radius: float, closed: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """See ``_smallest_object`` in :mod:`ladle.assigners.fcos`."""
    (batch, many), count = learnable.shape, boxes.shape[1]
    positive = torch.empty(batch, count, dtype=torch.bool, device=boxes.device)
    index = torch.empty(batch, count, dtype=torch.long, device=boxes.device)
    boxes, stride, level, valid = (each.contiguous() for each in (boxes, stride, level, valid))
    _smallest[(triton.cdiv(count, _POINTS), batch)](
        boxes,
        stride,
        level,
        valid,
        objects.contiguous(),
        learnable.contiguous(),
        bounds,
        positive,
        index,
        radius=radius,
        many=many,
        count=count,
        per_image_boxes=int(len(boxes) > 1),
        per_image_valid=int(len(valid) > 1),
        CLOSED=closed,
        POINTS=_POINTS,
        enable_fp_fusion=False,
    )
    return positive, index


def inside_any(boxes: Tensor, level: Tensor, valid: Tensor, regions: Tensor, included: Tensor) -> Tensor:
    """See ``_inside_any`` in :mod:`ladle.assigners.dynamic_k`."""
    (batch, many), count = included.shape, boxes.shape[1]
    inside = torch.empty(batch, count, dtype=torch.bool, device=boxes.device)
    boxes, level, valid = boxes.contiguous(), level.contiguous(), valid.contiguous()
    _inside[(triton.cdiv(count, _POINTS), batch)](
        boxes,
        level,
        valid,
        regions.contiguous(),
        included.contiguous(),
        inside,
        many,
        regions.shape[2],
        count,
        per_image_boxes=int(len(boxes) > 1),
        per_image_valid=int(len(valid) > 1),
        POINTS=_POINTS,
        enable_fp_fusion=False,
    )
    return inside


def inside_matrix(boxes: Tensor, level: Tensor, regions: Tensor, margin: float) -> Tensor:
    """See ``_inside_matrix`` in :mod:`ladle.all_pairs`."""
    (batch, many, levels), count = regions.shape[:3], boxes.shape[1]
    inside = torch.empty(batch, many, count, dtype=torch.bool, device=boxes.device)
    if inside.numel():
        _inside_matrix[(triton.cdiv(count, _POINTS), many, batch)](
            boxes.contiguous(),
            level.contiguous(),
            regions.contiguous(),
            inside,
            many,
            levels,
            count,
            per_image_boxes=int(len(boxes) > 1),
            margin=margin,
            POINTS=_POINTS,
            enable_fp_fusion=False,
        )
    return inside


@triton.jit
def _smallest(
    boxes, stride, level, valid, objects, learnable, bounds, positive, index, radius,
    many, count, per_image_boxes, per_image_valid, CLOSED: tl.constexpr, POINTS: tl.constexpr,
):  # fmt: skip
    """The smallest object of each point; the first one among equals."""
    image = tl.program_id(1)
    prior = tl.program_id(0) * POINTS + tl.arange(0, POINTS)
    within = prior < count
    exists = within & (tl.load(valid + image * per_image_valid * count + prior, within, 0) != 0)
    row = image * per_image_boxes * count + prior
    x = (tl.load(boxes + row * 4, within, 0.0) + tl.load(boxes + row * 4 + 2, within, 0.0)) / 2
    y = (tl.load(boxes + row * 4 + 1, within, 0.0) + tl.load(boxes + row * 4 + 3, within, 0.0)) / 2
    reach = radius * tl.load(stride + prior, within, 0.0)
    number_of_level = tl.load(level + prior, within, 0)
    low, high = tl.load(bounds + number_of_level), tl.load(bounds + number_of_level + 1)
    smallest = tl.full([POINTS], float("inf"), tl.float32)
    winner = tl.full([POINTS], -1, tl.int64)
    for number in range(many):
        place = image * many + number
        if tl.load(learnable + place) != 0:
            left, top = tl.load(objects + place * 4), tl.load(objects + place * 4 + 1)
            right, bottom = tl.load(objects + place * 4 + 2), tl.load(objects + place * 4 + 3)
            area = tl.maximum(right - left, 0.0) * tl.maximum(bottom - top, 0.0)
            nearest = tl.minimum(tl.minimum(x - left, right - x), tl.minimum(y - top, bottom - y))
            farthest = tl.maximum(tl.maximum(x - left, right - x), tl.maximum(y - top, bottom - y))
            if radius > 0:
                middle_x, middle_y = (left + right) / 2, (top + bottom) / 2
                across = tl.minimum(x - (middle_x - reach), (middle_x + reach) - x)
                down = tl.minimum(y - (middle_y - reach), (middle_y + reach) - y)
                nearest = tl.minimum(nearest, tl.minimum(across, down))
            if CLOSED:  # noqa: SIM108  (a branch at compile time)
                suits = (farthest >= low) & (farthest <= high)
            else:
                suits = (farthest > low) & (farthest < high)
            better = exists & suits & (nearest > 0) & ((area < smallest) | (winner < 0))
            smallest = tl.where(better, area, smallest)
            winner = tl.where(better, number, winner)
    tl.store(positive + image * count + prior, winner >= 0, within)
    tl.store(index + image * count + prior, tl.maximum(winner, 0), within)


@triton.jit
def _inside(
    boxes, level, valid, regions, included, inside, many, levels, count, per_image_boxes, per_image_valid,
    POINTS: tl.constexpr,
):  # fmt: skip
    """Whether each valid point lies inside the region of any included object on its level."""
    image = tl.program_id(1)
    prior = tl.program_id(0) * POINTS + tl.arange(0, POINTS)
    within = prior < count
    exists = within & (tl.load(valid + image * per_image_valid * count + prior, within, 0) != 0)
    row = image * per_image_boxes * count + prior
    x = (tl.load(boxes + row * 4, within, 0.0) + tl.load(boxes + row * 4 + 2, within, 0.0)) / 2
    y = (tl.load(boxes + row * 4 + 1, within, 0.0) + tl.load(boxes + row * 4 + 3, within, 0.0)) / 2
    number_of_level = tl.load(level + prior, within, 0)
    found = tl.zeros([POINTS], tl.int32)
    for number in range(many):
        place = image * many + number
        if tl.load(included + place) != 0:
            region = regions + (place * levels + number_of_level) * 4
            left, top = tl.load(region, within, 0.0), tl.load(region + 1, within, 0.0)
            right, bottom = tl.load(region + 2, within, 0.0), tl.load(region + 3, within, 0.0)
            inner = tl.minimum(tl.minimum(x - left, right - x), tl.minimum(y - top, bottom - y))
            found = tl.where(inner > 0, 1, found)
    tl.store(inside + image * count + prior, exists & (found != 0), within)


@triton.jit
def _inside_matrix(
    boxes, level, regions, inside, many, levels, count, per_image_boxes, margin, POINTS: tl.constexpr
):  # fmt: skip
    """Whether each point lies inside the region of one object on its level."""
    image, number = tl.program_id(2), tl.program_id(1)
    prior = tl.program_id(0) * POINTS + tl.arange(0, POINTS)
    within = prior < count
    row = image * per_image_boxes * count + prior
    x = (tl.load(boxes + row * 4, within, 0.0) + tl.load(boxes + row * 4 + 2, within, 0.0)) / 2
    y = (tl.load(boxes + row * 4 + 1, within, 0.0) + tl.load(boxes + row * 4 + 3, within, 0.0)) / 2
    place = image * many + number
    region = regions + (place * levels + tl.load(level + prior, within, 0)) * 4
    left, top = tl.load(region, within, 0.0), tl.load(region + 1, within, 0.0)
    right, bottom = tl.load(region + 2, within, 0.0), tl.load(region + 3, within, 0.0)
    inner = tl.minimum(tl.minimum(x - left, right - x), tl.minimum(y - top, bottom - y))
    tl.store(inside + place.to(tl.int64) * count + prior, inner > margin, within)
