"""Reading images back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def read(path: Path) -> np.ndarray:
    """The image as (H, W, 3) integers."""
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def near(pixels: np.ndarray, shade: str, reach: int = 12) -> np.ndarray:
    """Which pixels are of this color, (H, W)."""
    target = [int(shade[i : i + 2], 16) for i in (1, 3, 5)]
    return (np.abs(pixels - target) <= reach).all(-1)


def middles(mask: np.ndarray) -> list[tuple[float, float]]:
    """The center ``x y`` of every connected blob, from left to right."""
    from scipy.ndimage import center_of_mass, label

    blobs, count = label(mask)
    return sorted((float(x), float(y)) for y, x in center_of_mass(mask, blobs, range(1, count + 1)))


def largest(mask: np.ndarray) -> tuple[int, int, int, int]:
    """What the largest connected blob spans: left, top, right, bottom."""
    from scipy.ndimage import find_objects, label

    blobs, _ = label(mask)
    rows, columns = find_objects(blobs)[np.bincount(blobs.ravel())[1:].argmax()]
    return columns.start, rows.start, columns.stop, rows.stop
