"""Annotations of a COCO file as few bytes each, so that a large file does not take gigabytes while it is read."""

from __future__ import annotations

import struct
from typing import Any, TypeAlias

__all__ = ["Packed", "packed", "unpacked"]

Packed: TypeAlias = bytes | dict[str, Any]
"""An annotation: as bytes, or as it is in the file."""

_LAYOUT = struct.Struct("<qqqq4d")
_KEYS = ("id", "image_id", "category_id", "iscrowd")
_UNUSUAL = ("attributes", "ignore")
"""Keys of some annotations that change how they are read."""
_BOX_FIELDS = 4
_PLAIN = frozenset({int, float})


def packed(entry: dict[str, Any]) -> Packed:
    """An annotation as bytes, if it has nothing but numbers where COCO has them; any other object as it is.

    What is not read is left out: the area and, beside a box, the polygon, which is most of the file.

    Examples:
        >>> from ladle.data.coco_packing import packed, unpacked
        >>> entry = {"id": 1, "image_id": 2, "category_id": 3, "bbox": [4, 5, 6, 7.5], "iscrowd": 0, "area": 45}
        >>> len(packed(entry)), unpacked(packed(entry))["bbox"]
        (64, [4.0, 5.0, 6.0, 7.5])
    """
    box = entry.get("bbox")
    if type(box) is not list or len(box) != _BOX_FIELDS or not _PLAIN.issuperset(map(type, box)):
        return entry
    numbers = [entry.get(key) for key in _KEYS]
    if any(type(number) is not int for number in numbers) or any(key in entry for key in _UNUSUAL):
        return entry
    try:
        return _LAYOUT.pack(*numbers, *box)
    except (struct.error, OverflowError):  # a number of more than 64 bits
        return entry


def unpacked(entry: Packed) -> dict[str, Any]:
    """The annotation as a dictionary."""
    if isinstance(entry, dict):
        return entry
    *numbers, x, y, width, height = _LAYOUT.unpack(entry)
    return dict(zip(_KEYS, numbers, strict=True)) | {"bbox": [x, y, width, height]}
