"""Check that the four numbers of boxes have the meaning that the format defines.

Some annotation files contain ``x y width height`` instead of corners, or the reverse, or fractions instead of pixels.
A single such box cannot be distinguished from a wrong box, but if many boxes fit another form, the file is refused.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float64

from ladle.data.raw_images import Form, RawSplit
from ladle.errors import UserError

__all__ = ["check_form", "within_first_pixel"]

_FEWEST = 4
_MOST_MISFITS, _FEW_MISFITS = 0.1, 0.01
_OVERHANG = 0.05
_LEAST_SIDE = 4
_ROUNDING = 1e-6
_FORMS: dict[Form, str] = {
    "corners": "two corners (x1 y1 x2 y2)",
    "corner and size": "a corner and two sides (x y width height)",
    "center and size": "a center and two sides (x y width height)",
}

_Boxes = Float64[np.ndarray, "n 4"]
_Limits = Float64[np.ndarray, "n 2"]


def within_first_pixel(corners: _Boxes, limit: _Limits) -> Bool[np.ndarray, " n"]:
    """The boxes with all numbers in [0, 1], at least one of them not whole, in images of more than a few pixels."""
    inside = (corners >= 0).all(axis=1) & (corners <= 1 + _ROUNDING).all(axis=1)
    found: Bool[np.ndarray, " n"] = inside & (corners != np.rint(corners)).any(axis=1)
    return found & (limit > _LEAST_SIDE).all(axis=1)


def check_form(raw_split: RawSplit, corners: _Boxes, limit: _Limits, tiny: Bool[np.ndarray, " n"]) -> None:
    """Raise UserError if most boxes are ``tiny``, or if another form fits the boxes far better than their own.

    ``corners`` are in pixels, ``limit`` is the (width, height) of each box's image. A form fits a box if its corners
    are in order and exceed the image by less than a twentieth of its size.
    """
    if 2 * tiny.sum() > len(corners):
        raise UserError(
            f"{raw_split.source}: expected boxes in pixels, found {tiny.sum()} of {len(corners)} between 0 and 1, "
            "which look like fractions of the image: multiply them by its width and height"
        )
    finite = np.isfinite(corners).all(axis=1)
    corners, limit = corners[finite], limit[finite]
    if len(corners) < _FEWEST or _misfits(corners, limit) <= _MOST_MISFITS:
        return
    numbers = _written(corners, raw_split.form)
    better = [
        words
        for form, words in _FORMS.items()
        if form != raw_split.form and _misfits(_read(numbers, form), limit) <= _FEW_MISFITS
    ]
    if better:
        raise UserError(
            f"{raw_split.source}: expected {_FORMS[raw_split.form]} for every box, found numbers that fit their images "
            f"as {' or '.join(better)}: write them in the form that the format asks for"
        )


def _misfits(corners: _Boxes, limit: _Limits) -> float:
    low, high, margin = corners[:, :2], corners[:, 2:], _OVERHANG * limit
    fits = (low <= high) & (low >= -margin) & (high <= limit + margin)
    return float(1 - fits.all(axis=1).mean())


def _written(corners: _Boxes, form: Form) -> _Boxes:
    low, high = corners[:, :2], corners[:, 2:]
    if form == "corners":
        return corners
    return np.concatenate([low if form == "corner and size" else (low + high) / 2, high - low], axis=1)


def _read(numbers: _Boxes, form: Form) -> _Boxes:
    first, second = numbers[:, :2], numbers[:, 2:]
    if form == "corners":
        return numbers
    low = first if form == "corner and size" else first - second / 2
    return np.concatenate([low, low + second], axis=1)
