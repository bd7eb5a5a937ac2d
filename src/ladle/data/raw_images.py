"""What the readers of COCO, YOLO and VOC hand over: a split as its annotation files describe it, unchecked."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ladle.data.dataset import Defect

__all__ = ["Form", "RawImage", "RawSplit"]

Form = Literal["corners", "corner and size", "center and size"]
"""What the four numbers of a box are: two corners, the upper left corner and the sides, or the center and the sides."""


@dataclass
class RawImage:
    """An image as its annotations describe it, before anyone has opened the file.

    ``corners`` are ``x1 y1 x2 y2`` as written, in pixels of the ``stated`` (height, width), or fractions of the image
    where ``fractions`` is True; ``records`` name each of them. ``faults`` are fatal.
    """

    id: int | str
    name: str
    file: Path
    stated: tuple[int, int] | None = None
    fractions: bool = False
    corners: list[tuple[float, float, float, float]] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    crowd: list[bool] = field(default_factory=list)
    records: list[str] = field(default_factory=list)
    faults: list[Defect] = field(default_factory=list)

    def add(self, record: str, corners: tuple[float, float, float, float], label: int, crowd: bool = False) -> None:
        """Append one object."""
        self.records.append(record)
        self.corners.append(corners)
        self.labels.append(label)
        self.crowd.append(crowd)


@dataclass(frozen=True)
class RawSplit:
    """One split as its annotation files describe it; ``form`` says what the four numbers of its boxes are."""

    raw_images: list[RawImage]
    classes: tuple[str, ...]
    category_ids: tuple[int, ...]
    defects: list[Defect]
    source: Path
    notes: tuple[str, ...] = ()
    form: Form = "corners"
