"""Data sets: read COCO, YOLO and Pascal VOC, check and repair them, and make batches of them."""

import warnings
from typing import Any

from ladle.data.dataset import Defect, DetectionDataset, ImageInfo
from ladle.data.health import Health, SplitHealth, inspect
from ladle.data.images import image_size, load_image
from ladle.data.reading import detect_format, read, splits
from ladle.data.samples import Sample
from ladle.data.sources import Source, Splits

__all__ = [
    "Defect",
    "DetectionDataset",
    "Health",
    "ImageInfo",
    "Sample",
    "Source",
    "SplitHealth",
    "Splits",
    "detect_format",
    "image_size",
    "inspect",
    "load_image",
    "read",
    "splits",
]

_FORMER: dict[str, Any] = {"Catalogue": DetectionDataset, "Picture": ImageInfo, "load_picture": load_image}
"""Former names; they will be removed in the next minor release."""


def __getattr__(name: str) -> Any:
    if name not in _FORMER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    now = _FORMER[name]
    warnings.warn(f"ladle.data.{name} is now called {now.__name__}", DeprecationWarning, stacklevel=2)
    return now
