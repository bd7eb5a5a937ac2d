"""The sizes of objects as a detector sees them, after images are resized to ``--imgsz``."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from ladle.data.dataset import DetectionDataset, ImageInfo
from ladle.data.samples import fit
from ladle.data.transforms import DropSmall

__all__ = ["CELL", "Shrunk", "shrunk", "sufficient"]

CELL = 8
"""Stride of the finest feature map in pixels; a smaller object may lie between two of its locations."""
_STEP = 32


@dataclass(frozen=True)
class Shrunk:
    """The number of objects, of those with a side under :data:`CELL` pixels (``tiny``), and under one (``lost``)."""

    objects: int
    tiny: int
    lost: int


def shrunk(dataset: DetectionDataset, imgsz: int) -> Shrunk:
    """Count the small objects after the longer side of their image is resized to ``imgsz``."""
    sides = _sides(dataset, imgsz)
    return Shrunk(len(sides), int((sides < CELL).sum()), int((sides < DropSmall().least).sum()))


def sufficient(dataset: DetectionDataset, imgsz: int) -> int:
    """The smallest multiple of 32 for ``imgsz`` at which half of the objects are as large as :data:`CELL`."""
    median = float(np.median(_sides(dataset, imgsz)))
    return math.ceil(imgsz * CELL / median / _STEP) * _STEP


def _sides(dataset: DetectionDataset, imgsz: int) -> Float[np.ndarray, " n"]:
    """The shorter side of every object, in pixels of its resized image."""
    images = dataset.images
    scales = np.array([_scale(image, imgsz) for image in images]).reshape(-1, 2)
    boxes = np.concatenate([np.zeros((0, 4)), *(image.boxes for image in images)])
    crowd = np.concatenate([np.zeros(0, np.bool_), *(image.crowd for image in images)])
    owner = np.repeat(np.arange(len(images)), [len(image.boxes) for image in images])
    sides: Float[np.ndarray, " n"] = ((boxes[:, 2:] - boxes[:, :2]) * scales[owner]).min(axis=1)[~crowd]
    return sides


def _scale(image: ImageInfo, imgsz: int) -> tuple[float, float]:
    height, width = fit((image.height, image.width), imgsz)
    return width / image.width, height / image.height
