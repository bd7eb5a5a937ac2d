"""Whether a data set is fit to train on."""

from __future__ import annotations

from ladle.data import Health, inspect
from ladle.recipes.console import say

__all__ = ["check"]


def check(data: str) -> Health:
    """Print the health of a data set: sizes, classes, objects, duplicates between splits, and every defect.

    Args:
        data: a folder in COCO, YOLO or Pascal VOC form.
    """
    health = inspect(data)
    say(health.render())
    return health
