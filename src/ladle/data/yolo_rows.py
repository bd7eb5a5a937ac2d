"""One row of a YOLO label file: a class and a box, a polygon, four corners, or a box with key points."""

from __future__ import annotations

import math
from typing import NamedTuple

from ladle.data.shapes import Corners, hull
from ladle.data.values import number, shown, whole
from ladle.errors import UserError

__all__ = ["KeyPoints", "Row", "read_row"]

_BOX_FIELDS = 5
_POLYGON_FIELDS = 7
_LONGEST_CLASS = 9
_NOWHERE = (math.nan, math.nan, math.nan, math.nan)
_MOST_FRACTION = 2.0
"""Largest center or side of a box in fractions of the image; larger numbers are taken for pixels."""
_ROUNDING = 0.01
"""How far a box may reach over the border of its image, in fractions of it, and still count as inside."""


class KeyPoints(NamedTuple):
    """``kpt_shape`` of a YOLO file: how many key points follow each box, and how many numbers each of them has."""

    points: int
    numbers: int


class Row(NamedTuple):
    """A class, corners in fractions of the image, a remark on an unusual row, and the sixth number of a row, if any."""

    label: int
    corners: Corners
    remark: str | None = None
    sixth: float | None = None


def read_row(words: list[str], classes: int, points: KeyPoints | None) -> Row:
    """Read the words of one row; raises UserError, without the name of the file, for an invalid row."""
    numbers = [number(word) for word in words]
    found = [value for value in numbers[1:] if value is not None]
    if None in numbers:
        raise UserError(f"expected numbers separated by blanks, found {_shown(words)}")
    label = _label(words[0], classes)
    if points is not None and len(words) != _BOX_FIELDS:
        return _pose(label, found, points)
    if any(abs(value) > _MOST_FRACTION for value in found[:4] if math.isfinite(value)):
        raise UserError(f"expected fractions of the image between 0 and 1, found {_shown(words)}: are these pixels?")
    remark = None if words[0].isdecimal() else "class is no whole number; read as one"
    if len(words) == _BOX_FIELDS:
        return Row(label, _box(found), remark)
    if len(words) == _BOX_FIELDS + 1:
        return Row(label, _box(found), None, sixth=found[-1])
    return Row(label, _polygon(found, words), "polygon; its bounding box is used")


def _label(word: str, classes: int) -> int:
    label = int(word) if word.isascii() and word.isdecimal() and len(word) <= _LONGEST_CLASS else whole(word)
    if label is None or not 0 <= label < classes:
        raise UserError(f"expected a class from 0 to {classes - 1}, found {shown(word)}")
    return label


def _box(values: list[float]) -> Corners:
    x, y, width, height = values[:4]
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2


def _pose(label: int, values: list[float], points: KeyPoints) -> Row:
    expected = _BOX_FIELDS + points.points * points.numbers
    if len(values) + 1 != expected:
        raise UserError(f"expected {expected} fields for kpt_shape {list(points)}, found {len(values) + 1}")
    if any(abs(value) > _MOST_FRACTION for value in values[:4] if math.isfinite(value)):
        raise UserError("expected fractions of the image between 0 and 1 in the box: are these pixels?")
    return Row(label, _box(values), "key points; ignored")


def _polygon(values: list[float], words: list[str]) -> Corners:
    if len(words) < _POLYGON_FIELDS or len(words) % 2 == 0:
        raise UserError(
            f"expected class, x, y, width and height, found {len(words)} fields: "
            "for key points data.yaml needs kpt_shape"
        )
    if _ends_in_key_points(values):
        raise UserError(f"expected a polygon, found a box with key points ({_shown(words)}): data.yaml needs kpt_shape")
    if len(words) == _POLYGON_FIELDS and words[-1].isdecimal() and 0 <= values[-2] <= 1:
        raise UserError(f"expected a box or a polygon, found {_shown(words)}: a box with a confidence and a number?")
    if any(abs(value) > _MOST_FRACTION for value in values if math.isfinite(value)):
        raise UserError(f"expected fractions of the image between 0 and 1, found {_shown(words)}: are these pixels?")
    return hull(values) or _NOWHERE


def _ends_in_key_points(values: list[float]) -> bool:
    """Whether the numbers are a box followed by key points, each with a visibility of 0, 1 or 2.

    A polygon has no coordinate 2. If it touches the border it may have 0 and 1 in these places. But then its last point
    is the first one again, or the "box" of its first numbers is not inside the image, or contains no point that is
    "seen".
    """
    points = values[_BOX_FIELDS - 1 :]
    seen = points[2::3]
    if len(points) % 3 or not set(seen) <= {0, 1, 2} or values[:2] == values[-2:]:
        return False
    if 2 in seen:
        return True
    left, top, right, bottom = _box(values)
    is_box = min(left, top) >= -_ROUNDING and max(right, bottom) <= 1 + _ROUNDING
    places = [(x, y) for x, y, visible in zip(points[0::3], points[1::3], seen, strict=True) if visible]
    # A point that is not seen has no place: it is written as 0 0 0.
    return is_box and (any(left <= x <= right and top <= y <= bottom for x, y in places) or not any(points))


def _shown(words: list[str]) -> str:
    return shown(" ".join(words))
