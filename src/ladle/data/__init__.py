"""Data sets: read COCO, YOLO and Pascal VOC, check them, and turn them into batches."""

from ladle.data.catalogue import Catalogue, Defect, Picture
from ladle.data.health import Health, SplitHealth, inspect
from ladle.data.pictures import load_picture, picture_size
from ladle.data.reading import detect_format, read, splits

__all__ = [
    "Catalogue",
    "Defect",
    "Health",
    "Picture",
    "SplitHealth",
    "detect_format",
    "inspect",
    "load_picture",
    "picture_size",
    "read",
    "splits",
]
