"""A short summary of a split of a data set, with which a resumed run compares its data."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Annotated

import numpy as np

from ladle.data.sources import DatasetSource, Source
from ladle.limits import Length, Range

__all__ = ["Contents", "contents_of", "difference"]

_PARTS_OF_A_PIXEL = 64
"""Boxes are compared at this resolution, which is coarser than differences in rounding between machines."""

Count = Annotated[int, Range(0, 2**53)]


@dataclass(frozen=True)
class Contents:
    """The numbers of images and objects, the classes, and a SHA-256 of the images' names and sizes and of all boxes."""

    images: Count
    objects: Count
    classes: tuple[str, ...]
    sha256: Annotated[str, Length(64, 64)]


def contents_of(source: Source) -> Contents:
    """Summarize ``source``; pixels are not read."""
    images = source.dataset.images if isinstance(source, DatasetSource) else ()
    digest = hashlib.sha256(json.dumps(source.category_ids).encode())
    for one in images:
        digest.update(json.dumps([one.id, one.height, one.width, one.upright]).encode())
        digest.update(np.rint(one.boxes * _PARTS_OF_A_PIXEL).astype("<i4").tobytes())
        digest.update(one.labels.astype("<i4").tobytes() + one.crowd.tobytes())
    objects = sum(len(one.labels) for one in images)
    return Contents(len(source), objects, tuple(source.classes), digest.hexdigest())


def difference(before: Contents, now: Contents) -> str | None:
    """Describe the first difference; None if there is none."""
    if now.images != before.images:
        return f"there are {now.images} instead of {before.images}"
    if now.classes != before.classes:
        return f"the classes are {', '.join(now.classes)} instead of {', '.join(before.classes)}"
    if now.objects != before.objects:
        return f"they show {now.objects} objects instead of {before.objects}"
    return None if now.sha256 == before.sha256 else "their names, sizes or boxes differ"
