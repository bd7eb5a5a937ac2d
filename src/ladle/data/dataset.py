"""The records of a data set: images, their objects, and all defects that were found."""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32, Int64

from ladle.data.values import printable

__all__ = ["Defect", "DetectionDataset", "ImageInfo"]

_EXAMPLES = 3


@dataclass(frozen=True, eq=False)
class ImageInfo:
    """One image of a data set and its objects; boxes are ``x1 y1 x2 y2`` in pixels of the image as displayed.

    Boxes are finite, inside the image, and have sides of at least half a pixel.

    Attributes:
        id: the id of the image in its data set.
        file: the image file.
        height: height of the file after its EXIF rotation, whatever the annotations state.
        width: width of the file after its EXIF rotation.
        boxes: the boxes of the objects.
        labels: their classes, from 0 without gaps.
        crowd: True for regions to be ignored (COCO ``iscrowd``, VOC ``difficult``).
        upright: False if the annotations refer to the stored image without EXIF rotation. The rotation must not be
            applied then, and ``height`` and ``width`` are those of the stored image.
        deep: True for an image with 16 bits per channel.
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
        """Width times height of every box in square pixels; areas in annotation files are not used."""
        sides = self.boxes[:, 2:] - self.boxes[:, :2]
        areas: Float32[np.ndarray, " n"] = sides[:, 0] * sides[:, 1]
        return areas


@dataclass(frozen=True)
class Defect:
    """A defect of a data set: its place in ``file`` (``a.jpg: annotation 7``) and its description in ``what``.

    An image with a fatal defect cannot be used; other defects were repaired as ``what`` describes. Characters that are
    not printable, such as a line break in a file name, are escaped, and very long texts are cut.
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

    ``category_ids[label]`` is the id of ``classes[label]`` in COCO results files. ``notes`` are remarks that are not
    defects, such as which split is used instead of a missing one.
    """

    images: Sequence[ImageInfo]
    classes: tuple[str, ...]
    category_ids: tuple[int, ...]
    defects: tuple[Defect, ...]
    source: Path
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.images)

    @property
    def pictures(self) -> Sequence[ImageInfo]:
        """The former name of ``images``."""
        warnings.warn("DetectionDataset.pictures is now called images", DeprecationWarning, stacklevel=2)
        return self.images

    @property
    def holds_objects(self) -> bool:
        """Whether there is at least one object that is not a region to be ignored."""
        return any((~image.crowd).any() for image in self.images)

    def summary(self) -> str:
        """A few lines about what was read, with notes, repairs, and images that were left out."""
        boxes = sum(len(image.boxes) for image in self.images)
        head = f"{self.source}: {len(self)} images, {boxes} boxes, {len(self.classes)} classes"
        return "\n".join([head, *(f"  note: {note}" for note in self.notes), *(f"  {act}" for act in self.acts())])

    def acts(self) -> list[str]:
        """One line for each kind of repair and of images left out, with count and places."""
        return _lines(self.defects)


def _lines(defects: tuple[Defect, ...]) -> list[str]:
    kinds: dict[tuple[bool, str], list[Defect]] = defaultdict(list)
    for defect in defects:
        kinds[defect.fatal, defect.what].append(defect)
    return [_line(what, fatal, kind) for (fatal, what), kind in kinds.items()]


def _line(what: str, fatal: bool, kind: list[Defect]) -> str:
    places = ", ".join(defect.file for defect in kind[:_EXAMPLES]) + (", …" if len(kind) > _EXAMPLES else "")
    return f"{'left out: ' if fatal else ''}{sum(defect.count for defect in kind)} × {what} ({places})"
