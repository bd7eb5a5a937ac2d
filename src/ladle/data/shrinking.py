"""How large objects are where a detector sees them: after images were made as large as ``--imgsz``."""

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
"""Pixels between two places at which the finest map of a detector looks; a smaller object may lie between them."""
_STEP = 32


@dataclass(frozen=True)
class Shrunk:
    """Of so many ``objects`` so many have a side under :data:`CELL` pixels, and so many under one, at a size."""

    objects: int
    tiny: int
    lost: int


def shrunk(dataset: DetectionDataset, imgsz: int) -> Shrunk:
    """Count the objects that are tiny once the longer side of their image is ``imgsz``."""
    sides = _sides(dataset, imgsz)
    return Shrunk(len(sides), int((sides < CELL).sum()), int((sides < DropSmall().least).sum()))


def sufficient(dataset: DetectionDataset, imgsz: int) -> int:
    """The least multiple of 32 for ``imgsz`` that makes half of the objects as large as :data:`CELL`."""
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
