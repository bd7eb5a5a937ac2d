"""Upright bounding boxes ``x1 y1 x2 y2`` of polygons, rotated boxes and run-length masks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Int64

from ladle.data.values import numbers, unpacked, whole

__all__ = ["Corners", "around_mask", "around_polygons", "hull", "turned"]

Corners: TypeAlias = "tuple[float, float, float, float]"
"""The corners ``x1 y1 x2 y2`` of one box."""

_FEWEST_POINTS = 2
_MOST_DEPTH = 4
_MOST_SIDE = 10**6
_FIVE_BITS, _MORE, _NEGATIVE = 0x1F, 0x20, 0x10
_FIRST_CHARACTER = 48
_MOST_CHARACTERS = 7
"""Most characters of one packed count, 35 bits."""


def hull(values: Sequence[float]) -> Corners | None:
    """The bounding box of points ``x y x y ...``; None for fewer than two, an odd number of values, NaN or infinity."""
    if len(values) < 2 * _FEWEST_POINTS or len(values) % 2 or not all(map(math.isfinite, values)):
        return None
    across, down = values[0::2], values[1::2]
    return min(across), min(down), max(across), max(down)


def turned(corners: Corners, radians: float) -> Corners:
    """The upright bounding box of a box that is rotated around its center."""
    x1, y1, x2, y2 = corners
    cosine, sine = abs(math.cos(radians)), abs(math.sin(radians))
    width, height = abs(x2 - x1), abs(y2 - y1)
    across, down = (width * cosine + height * sine) / 2, (width * sine + height * cosine) / 2
    x, y = (x1 + x2) / 2, (y1 + y2) / 2
    return x - across, y - down, x + across, y + down


def around_polygons(shape: object) -> Corners | None:
    """The bounding box of polygons: lists of ``x y x y ...`` or of points, or one such list; numbers may be text.

    None for other values.
    """
    values = _flat(unpacked(shape) if isinstance(shape, str) else shape, _MOST_DEPTH)
    return None if values is None else hull(values)


def _flat(shape: object, depth: int) -> list[float] | None:
    """All coordinates of nested lists; None if an innermost list does not consist of pairs."""
    if not isinstance(shape, list) or not shape or not depth:
        return None
    if not isinstance(shape[0], list):
        found = numbers(shape)
        return found if found and len(found) % 2 == 0 else None
    parts = [_flat(part, depth - 1) for part in shape]
    return None if None in parts else [value for part in parts if part is not None for value in part]


def around_mask(mask: dict[str, Any], size: tuple[int, int] | None) -> Corners | None:
    """The bounding box of a COCO run-length mask, whose counts are numbers or packed into text.

    None for a mask that is empty, invalid, or of another (height, width) than ``size``.
    """
    frame, counts = _frame(mask.get("size")), mask.get("counts")
    packed = _unpack(counts) if isinstance(counts, str) else None
    runs = packed if packed is not None else _runs(counts)
    if frame is None or runs is None or (size is not None and frame != size):
        return None
    height, width = frame
    if (runs < 0).any() or (runs > height * width).any() or runs.sum() != height * width:
        return None
    ends = np.cumsum(runs)
    starts, ends = (ends - runs)[1::2], ends[1::2]
    starts, ends = starts[starts < ends], ends[starts < ends]
    if not len(starts):
        return None
    first, last = starts // height, (ends - 1) // height
    spans = (first != last).any()  # a run that continues in the next column touches top and bottom
    top = 0 if spans else (starts % height).min()
    bottom = height - 1 if spans else ((ends - 1) % height).max()
    return float(first.min()), float(top), float(last.max() + 1), float(bottom + 1)


def _frame(size: object) -> tuple[int, int] | None:
    match _wholes(size):
        case [int(height), int(width)] if 0 < height <= _MOST_SIDE and 0 < width <= _MOST_SIDE:
            return height, width
    return None


def _runs(counts: object) -> Int64[np.ndarray, " n"] | None:
    found = _wholes(counts)
    if not found or any(count is None or abs(count) > _MOST_SIDE**2 for count in found):
        return None
    return np.array(found, dtype=np.int64)


def _wholes(value: object) -> list[int | None]:
    """The integers of a list, each possibly as text, or of one text that contains all of them."""
    found = unpacked(value) if isinstance(value, str) else value
    return [whole(one) for one in found] if isinstance(found, list) else []


def _unpack(counts: str) -> Int64[np.ndarray, " n"] | None:
    """Decode COCO's packed counts: groups of 5-bit characters, lowest bits first.

    From the fourth on they are differences to the count two places before.
    """
    if not counts or not counts.isascii():
        return None
    bits = np.frombuffer(counts.encode("ascii"), dtype=np.uint8).astype(np.int64) - _FIRST_CHARACTER
    last = np.flatnonzero((bits & _MORE) == 0)
    if not len(last) or last[-1] != len(bits) - 1 or bits.min() < 0 or bits.max() >= 2 * _MORE:
        return None
    starts = np.concatenate([[0], last[:-1] + 1])
    if (last - starts >= _MOST_CHARACTERS).any():
        return None
    place = np.arange(len(bits)) - np.repeat(starts, last - starts + 1)
    values = np.add.reduceat((bits & _FIVE_BITS) << (5 * place), starts)
    values -= np.where(bits[last] & _NEGATIVE, np.int64(1) << (5 * (last - starts + 1)), 0)
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    return values
