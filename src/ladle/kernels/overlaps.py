"""Kernels of :mod:`ladle.overlaps`: the best IoU of every box and of every object, and boxes outside crowd regions.

The matrix of boxes by objects is never written to memory.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from ladle.boxes import IOU_FLOOR
from ladle.similarity import LARGEST_SIDES

__all__ = ["best_overlaps", "iou_matrix", "outside_crowds"]

_BOXES = 128
"""Boxes of one program."""
_OBJECTS = 16
"""Objects of one program of the first kernel."""


def best_overlaps(
    boxes: Tensor,
    valid: Tensor,
    objects: Tensor,
    labels: Tensor,
    learnable: Tensor,
    rescue: float,
    trust: Tensor | None,
    numbers: Sequence[float],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """See ``_best_overlaps`` in :mod:`ladle.overlaps`."""
    (batch, many), count = labels.shape, boxes.shape[1]
    boxes, objects, learnable = boxes.contiguous(), objects.contiguous(), learnable.contiguous()
    valid, labels = valid.contiguous(), labels.contiguous()
    classes = 0 if trust is None else trust.shape[2]
    trust = boxes if trust is None else trust.contiguous()
    peak = boxes.new_zeros(batch, many)
    best = boxes.new_empty(batch, count)
    index = torch.empty(batch, count, dtype=torch.long, device=boxes.device)
    claimant = torch.empty_like(index)
    shared = (boxes, valid, objects, labels, learnable, trust, peak)
    sizes = {
        "many": many,
        "count": count,
        "classes": classes,
        "per_image_boxes": int(len(boxes) > 1),
        "per_image_valid": int(len(valid) > 1),
        "floor": IOU_FLOOR,
        "most": LARGEST_SIDES,
        "m": numbers[0] if numbers else 1.0,
        "n": numbers[1] if numbers else 1.0,
        "BOXES": _BOXES,
        "SIMD": len(numbers) > 0,
        "enable_fp_fusion": False,
    }
    blocks = triton.cdiv(count, _BOXES)
    if many:
        _peaks[(blocks, triton.cdiv(many, _OBJECTS), batch)](*shared, **sizes, OBJECTS=_OBJECTS)
    _best[(blocks, batch)](*shared, best, index, claimant, rescue=rescue, **sizes)
    return best, index, peak, claimant


def outside_crowds(boxes: Tensor, valid: Tensor, objects: Tensor, crowd: Tensor, share: float) -> Tensor:
    """See ``_outside_crowds`` in :mod:`ladle.overlaps`."""
    (batch, many), count = crowd.shape, boxes.shape[1]
    free = torch.empty(batch, count, dtype=torch.bool, device=boxes.device)
    boxes, valid, objects, crowd = (each.contiguous() for each in (boxes, valid, objects, crowd))
    _outside[(triton.cdiv(count, _BOXES), batch)](
        boxes,
        valid,
        objects,
        crowd,
        free,
        share=share,
        many=many,
        count=count,
        per_image_boxes=int(len(boxes) > 1),
        per_image_valid=int(len(valid) > 1),
        floor=IOU_FLOOR,
        BOXES=_BOXES,
        enable_fp_fusion=False,
    )
    return free


def iou_matrix(boxes: Tensor, objects: Tensor) -> Tensor:
    """See ``_iou_matrix`` in :mod:`ladle.all_pairs`."""
    (batch, many), count = objects.shape[:2], boxes.shape[1]
    overlap = boxes.new_empty(batch, many, count)
    boxes, objects = boxes.contiguous(), objects.contiguous()
    if overlap.numel():
        grid = (triton.cdiv(count, _BOXES), triton.cdiv(many, _OBJECTS), batch)
        _matrix[grid](
            boxes,
            objects,
            overlap,
            many,
            count,
            per_image_boxes=int(len(boxes) > 1),
            floor=IOU_FLOOR,
            BOXES=_BOXES,
            OBJECTS=_OBJECTS,
            enable_fp_fusion=False,
        )
    return overlap


@triton.jit
def _corners(boxes, row, exists):
    """The four coordinates of a vector of boxes, 0 where there is none."""
    x1 = tl.load(boxes + row * 4, exists, 0.0)
    y1 = tl.load(boxes + row * 4 + 1, exists, 0.0)
    x2 = tl.load(boxes + row * 4 + 2, exists, 0.0)
    y2 = tl.load(boxes + row * 4 + 3, exists, 0.0)
    return x1, y1, x2, y2


@triton.jit
def _shared(x1, y1, x2, y2, left, top, right, bottom):
    """The area of intersection."""
    width = tl.maximum(tl.minimum(x2, right) - tl.maximum(x1, left), 0.0)
    height = tl.maximum(tl.minimum(y2, bottom) - tl.maximum(y1, top), 0.0)
    return width * height


@triton.jit
def _area(x1, y1, x2, y2):
    return tl.maximum(x2 - x1, 0.0) * tl.maximum(y2 - y1, 0.0)


@triton.jit
def _apart(low, high, other_low, other_high, factor, floor, most):
    """The squared distances of two intervals' middles and of their lengths, in sums of their lengths."""
    length = tl.maximum(high - low, 0.0)
    other = tl.maximum(other_high - other_low, 0.0)
    both = tl.minimum(tl.maximum(length + other, floor), most)
    middle = tl.div_rn((low + high) / 2 - (other_low + other_high) / 2, both) * factor
    longer = tl.div_rn(length - other, both) * factor
    return middle * middle, longer * longer


@triton.jit
def similarity(x1, y1, x2, y2, left, top, right, bottom, m, n, floor, most):
    """See :class:`ladle.similarity.SimD`."""
    across, wide = _apart(x1, x2, left, right, m, floor, most)
    down, high = _apart(y1, y2, top, bottom, n, floor, most)
    return tl.exp(-(tl.sqrt_rn(across + down) + tl.sqrt_rn(wide + high)))


@triton.jit
def _peaks(
    boxes, valid, objects, labels, learnable, trust, peak,
    many, count, classes, per_image_boxes, per_image_valid, floor, most, m, n,
    BOXES: tl.constexpr, SIMD: tl.constexpr, OBJECTS: tl.constexpr,
):  # fmt: skip
    """The highest IoU of a block of objects with a block of boxes, merged into ``peak``."""
    image = tl.program_id(2)
    prior = tl.program_id(0) * BOXES + tl.arange(0, BOXES)
    number = tl.program_id(1) * OBJECTS + tl.arange(0, OBJECTS)
    exists = prior < count
    exists = exists & (tl.load(valid + image * per_image_valid * count + prior, exists, 0) != 0)
    real = number < many
    real = real & (tl.load(learnable + image * many + number, real, 0) != 0)
    x1, y1, x2, y2 = _corners(boxes, image * per_image_boxes * count + prior, exists)
    left, top, right, bottom = _corners(objects, image * many + number, real)
    if SIMD:
        overlap = similarity(
            x1[None, :], y1[None, :], x2[None, :], y2[None, :],
            left[:, None], top[:, None], right[:, None], bottom[:, None], m, n, floor, most,
        )  # fmt: skip
        overlap = tl.where(real[:, None] & exists[None, :], overlap, 0.0)
    else:
        own = tl.maximum(_area(x1, y1, x2, y2), floor)
        shared = _shared(
            x1[None, :], y1[None, :], x2[None, :], y2[None, :],
            left[:, None], top[:, None], right[:, None], bottom[:, None],
        )  # fmt: skip
        overlap = tl.div_rn(shared, (own[None, :] + _area(left, top, right, bottom)[:, None]) - shared)
    if classes > 0:
        label = tl.load(labels + image * many + number, real, 0)
        place = (image * count + prior)[None, :].to(tl.int64) * classes + label[:, None]
        overlap = overlap * tl.load(trust + place, real[:, None] & exists[None, :], 0.0)
    tl.atomic_max(peak + image * many + number, tl.max(overlap, 1), real)


@triton.jit
def _best(
    boxes, valid, objects, labels, learnable, trust, peak, best, index, claimant, rescue,
    many, count, classes, per_image_boxes, per_image_valid, floor, most, m, n,
    BOXES: tl.constexpr, SIMD: tl.constexpr,
):  # fmt: skip
    """The highest IoU of each box, its object, and the last rescued object whose peak the box reaches."""
    image = tl.program_id(1)
    prior = tl.program_id(0) * BOXES + tl.arange(0, BOXES)
    within = prior < count
    exists = within & (tl.load(valid + image * per_image_valid * count + prior, within, 0) != 0)
    x1, y1, x2, y2 = _corners(boxes, image * per_image_boxes * count + prior, exists)
    own = tl.maximum(_area(x1, y1, x2, y2), floor)
    highest = tl.zeros([BOXES], tl.float32)
    winner = tl.zeros([BOXES], tl.int64)
    last = tl.zeros([BOXES], tl.int64)
    for number in range(many):
        row = image * many + number
        if tl.load(learnable + row) != 0:
            left, top = tl.load(objects + row * 4), tl.load(objects + row * 4 + 1)
            right, bottom = tl.load(objects + row * 4 + 2), tl.load(objects + row * 4 + 3)
            if SIMD:
                overlap = similarity(x1, y1, x2, y2, left, top, right, bottom, m, n, floor, most)
                overlap = tl.where(exists, overlap, 0.0)
            else:
                shared = _shared(x1, y1, x2, y2, left, top, right, bottom)
                overlap = tl.div_rn(shared, (own + _area(left, top, right, bottom)) - shared)
            if classes > 0:
                place = (image * count + prior).to(tl.int64) * classes + tl.load(labels + row)
                overlap = overlap * tl.load(trust + place, exists, 0.0)
            better = overlap > highest
            highest = tl.where(better, overlap, highest)
            winner = tl.where(better, number, winner)
            top_overlap = tl.load(peak + row)
            if (rescue >= 0) & (top_overlap >= rescue) & (top_overlap > 0):
                last = tl.where(overlap == top_overlap, number + 1, last)
    tl.store(best + image * count + prior, highest, within)
    tl.store(index + image * count + prior, winner, within)
    tl.store(claimant + image * count + prior, last, within)


@triton.jit
def _outside(
    boxes, valid, objects, crowd, free, share, many, count, per_image_boxes, per_image_valid, floor,
    BOXES: tl.constexpr,
):  # fmt: skip
    """Whether each box is valid and has at most ``share`` of its area in any one crowd region."""
    image = tl.program_id(1)
    prior = tl.program_id(0) * BOXES + tl.arange(0, BOXES)
    within = prior < count
    outside = within & (tl.load(valid + image * per_image_valid * count + prior, within, 0) != 0)
    x1, y1, x2, y2 = _corners(boxes, image * per_image_boxes * count + prior, within)
    own = tl.maximum(_area(x1, y1, x2, y2), floor)
    for number in range(many):
        row = image * many + number
        if tl.load(crowd + row) != 0:
            left, top = tl.load(objects + row * 4), tl.load(objects + row * 4 + 1)
            right, bottom = tl.load(objects + row * 4 + 2), tl.load(objects + row * 4 + 3)
            covered = tl.div_rn(_shared(x1, y1, x2, y2, left, top, right, bottom), own) > share
            outside = outside & (covered == 0)
    tl.store(free + image * count + prior, outside, within)


@triton.jit
def _matrix(
    boxes, objects, overlap, many, count, per_image_boxes, floor, BOXES: tl.constexpr, OBJECTS: tl.constexpr
):  # fmt: skip
    """The IoU of a block of objects with a block of boxes; NaN where a coordinate is NaN."""
    image = tl.program_id(2)
    prior = tl.program_id(0) * BOXES + tl.arange(0, BOXES)
    number = tl.program_id(1) * OBJECTS + tl.arange(0, OBJECTS)
    x1, y1, x2, y2 = _corners(boxes, image * per_image_boxes * count + prior, prior < count)
    left, top, right, bottom = _corners(objects, image * many + number, number < many)
    shared = _shared(
        x1[None, :], y1[None, :], x2[None, :], y2[None, :],
        left[:, None], top[:, None], right[:, None], bottom[:, None],
    )  # fmt: skip
    union = (_area(x1, y1, x2, y2)[None, :] + _area(left, top, right, bottom)[:, None]) - shared
    value = tl.div_rn(shared, tl.maximum(union, floor))
    broken = (x1 + y1 + x2 + y2) != (x1 + y1 + x2 + y2)
    value = tl.where(broken[None, :], float("nan"), value)
    place = (image * many + number)[:, None].to(tl.int64) * count + prior[None, :]
    tl.store(overlap + place, value, (number < many)[:, None] & (prior < count)[None, :])
