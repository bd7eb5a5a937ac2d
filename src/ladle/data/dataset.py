"""The records a data set is read into: images, their objects, and every defect met on the way."""

from __future__ import annotations

import warnings
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32, Int64

from ladle.data.values import printable

__all__ = ["Defect", "DetectionDataset", "ImageInfo"]

_EXAMPLES = 3


@dataclass(frozen=True, eq=False)
class ImageInfo:
    """One image of a data set and its objects, boxes ``x1 y1 x2 y2`` in pixels of the image as displayed.

    ``height`` and ``width`` are those of the file after its EXIF rotation, whatever the annotations claim. Where
    ``upright`` is False the annotations are in the stored, unrotated frame, and so are ``height`` and ``width``: the
    rotation must not be applied. Labels count from 0 without gaps; ``crowd`` marks regions to be ignored (COCO
    ``iscrowd``, VOC ``difficult``). ``deep`` images have 16 bits a channel. Every box is finite, inside the image
    and has sides of half a pixel or more.
    """

    id: int | str
    file: Path
    height: int
    width: int
    boxes: Float32[np.ndarray, "n 4"]
    labels: Int64[np.ndarray, " n"]
    crowd: Bool[np.ndarray, " n"]
    upright: bool = True
    deep: bool = False

    @property
    def areas(self) -> Float32[np.ndarray, " n"]:
        """Width times height of every box in square pixels; the areas an annotation file states are never used."""
        sides = self.boxes[:, 2:] - self.boxes[:, :2]
        areas: Float32[np.ndarray, " n"] = sides[:, 0] * sides[:, 1]
        return areas


@dataclass(frozen=True)
class Defect:
    """Something wrong with a data set: ``file`` says where (``a.jpg: annotation 7``), ``what`` says it.

    A fatal defect makes its image unusable; the others were repaired as ``what`` tells. What is no printable text in
    either, such as a line end in a file's name, is escaped, and very long names are cut.
    """

    file: str
    what: str
    count: int = 1
    fatal: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "file", printable(self.file))
        object.__setattr__(self, "what", printable(self.what))

    def __str__(self) -> str:
        return f"{self.file}: {self.what}"


@dataclass(frozen=True, eq=False)
class DetectionDataset:
    """One split of a data set, read and checked.

    ``category_ids[label]`` is the id that results files use for ``classes[label]``. ``notes`` are remarks that are no
    defects, such as which split stood in for a missing one.
    """

    images: tuple[ImageInfo, ...]
    classes: tuple[str, ...]
    category_ids: tuple[int, ...]
    defects: tuple[Defect, ...]
    source: Path
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.images)

    @property
    def pictures(self) -> tuple[ImageInfo, ...]:
        """The former name of ``images``."""
        warnings.warn("DetectionDataset.pictures is now called images", DeprecationWarning, stacklevel=2)
        return self.images

    @property
    def holds_objects(self) -> bool:
        """Whether there is an object that is no region to be ignored."""
        return any((~image.crowd).any() for image in self.images)

    def summary(self) -> str:
        """Say in a few lines what was read, what was remarked, and what was repaired or left out."""
        boxes = sum(len(image.boxes) for image in self.images)
        head = f"{self.source}: {len(self)} images, {boxes} boxes, {len(self.classes)} classes"
        return "\n".join([head, *(f"  note: {note}" for note in self.notes), *(f"  {act}" for act in self.acts())])

    def acts(self) -> list[str]:
        """A line for every kind of repair and of images left out: how often and where."""
        return _lines(self.defects)


def _lines(defects: tuple[Defect, ...]) -> list[str]:
    kinds: dict[tuple[bool, str], list[Defect]] = defaultdict(list)
    for defect in defects:
        kinds[defect.fatal, defect.what].append(defect)
    return [_line(what, fatal, kind) for (fatal, what), kind in kinds.items()]


def _line(what: str, fatal: bool, kind: list[Defect]) -> str:
    places = ", ".join(defect.file for defect in kind[:_EXAMPLES]) + (", …" if len(kind) > _EXAMPLES else "")
    return f"{'left out: ' if fatal else ''}{sum(defect.count for defect in kind)} × {what} ({places})"
