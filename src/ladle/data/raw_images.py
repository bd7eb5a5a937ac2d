"""The result of the readers of COCO, YOLO and VOC: a split as its annotation files describe it, unchecked."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ladle.data.dataset import Defect

__all__ = ["Form", "RawImage", "RawSplit"]

Form = Literal["corners", "corner and size", "center and size"]
"""The meaning of the four numbers of a box: two corners, upper left corner and sides, or center and sides."""


def _no_numbers() -> array[float]:
    return array("d")


@dataclass(slots=True)
class RawImage:
    """An image as its annotations describe it, before its file is opened.

    Attributes:
        id: the id of the image.
        name: the name of the image in messages.
        file: the image file.
        stated: the (height, width) that the annotations state, or None.
        fractions: whether ``corners`` are fractions of the image instead of pixels.
        corners: ``x1 y1 x2 y2`` of all objects, one after the other.
        labels: the class of each object.
        crowd: whether each object is a region to be ignored.
        records: the name of each object in messages.
        faults: fatal defects.
    """

    id: int | str
    name: str
    file: Path
    stated: tuple[int, int] | None = None
    fractions: bool = False
    corners: array[float] = field(default_factory=_no_numbers)
    labels: list[int] = field(default_factory=list)
    crowd: list[bool] = field(default_factory=list)
    records: list[str] = field(default_factory=list)
    faults: list[Defect] = field(default_factory=list)

    def add(self, record: str, corners: tuple[float, float, float, float], label: int, crowd: bool = False) -> None:
        """Append one object."""
        self.records.append(record)
        self.corners.extend(corners)
        self.labels.append(label)
        self.crowd.append(crowd)


@dataclass(frozen=True)
class RawSplit:
    """One split as its annotation files describe it; ``form`` is the meaning of the four numbers of a box."""

    raw_images: list[RawImage]
    classes: tuple[str, ...]
    category_ids: tuple[int, ...]
    defects: list[Defect]
    source: Path
    notes: tuple[str, ...] = ()
    form: Form = "corners"
