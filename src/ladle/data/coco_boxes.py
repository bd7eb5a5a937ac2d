"""The box of one COCO annotation: its ``bbox``, or the box around its polygons or its mask."""

from __future__ import annotations

import math
from typing import Any

from ladle.data.shapes import Corners, around_mask, around_polygons, turned
from ladle.data.values import number, numbers, unpacked

__all__ = ["corners_of"]

_BOX_FIELDS = 4
_PLAIN = frozenset({int, float})


def corners_of(annotation: dict[str, Any], size: tuple[int, int] | None) -> tuple[Corners | None, str | None]:
    """The box as corners in pixels, or None, and a remark about an unusual or unreadable box, or None.

    ``size`` is the (height, width) that the file states for the image.
    """
    box = annotation.get("bbox")
    if box is None or box == []:
        return _around(annotation.get("segmentation"), size)
    values = numbers(box)
    if values is None or len(values) != _BOX_FIELDS:
        return None, "bbox is not four numbers; dropped"
    x, y, width, height = values
    corners = x, y, x + width, y + height
    angle = _rotation(annotation.get("attributes"))
    if angle:
        return turned(corners, math.radians(angle)), "box turned by an angle; the upright box around it is used"
    return corners, None if _PLAIN.issuperset(map(type, box)) else "bbox holds text; converted to numbers"


def _rotation(attributes: object) -> float:
    """The angle in degrees by which CVAT rotates a box around its center."""
    angle = number(attributes.get("rotation")) if isinstance(attributes, dict) else None
    return angle if angle is not None and math.isfinite(angle) else 0.0


def _around(shape: object, size: tuple[int, int] | None) -> tuple[Corners | None, str]:
    shape = unpacked(shape) if isinstance(shape, str) else shape
    if isinstance(shape, dict):
        corners, kind = around_mask(shape, size), "mask"
    else:
        corners, kind = around_polygons(shape), "polygon"
    if corners is None:
        return (
            None,
            f"bbox is missing, and the {kind} is none that can be read; dropped"
            if shape
            else "bbox is missing; dropped",
        )
    return corners, f"bbox is missing; taken from the {kind}"
