"""Check a data set before training."""

from __future__ import annotations

from pathlib import Path

from ladle.data import Health, inspect
from ladle.errors import UserError
from ladle.files import path_as_text
from ladle.recipes.console import say, shown_progress
from ladle.recipes.sources import is_scenes

__all__ = ["check"]


def check(data: str | Path, imgsz: int = 640) -> Health:
    """Print a report on a data set: sizes, classes, objects, duplicates between splits, and every defect.

    If it takes longer than a few seconds, its progress is shown on standard error.

    Args:
        data: a folder in COCO, YOLO or Pascal VOC format.
        imgsz: long side of the images in pixels at which you will train, to report objects that are too small for it.
    """
    data = path_as_text(data)
    if is_scenes(data):
        raise UserError(f"{data}: expected a folder or a file; the built-in scenes are drawn without defects")
    if imgsz < 1:
        raise UserError(f"--imgsz {imgsz}: expected the long side of the images in pixels, such as 640")
    with shown_progress() as progress:
        health = inspect(data, imgsz=imgsz, progress=progress)
    say(health.render())
    return health
