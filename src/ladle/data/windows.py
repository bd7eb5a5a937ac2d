"""Windows of images, in numpy: for a few boxes its calls take a fraction of the time of torch's."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32

from ladle.boxes import IOU_FLOOR

__all__ = ["coverage", "first_useful", "placed"]

Floats = Float32[np.ndarray, " k"]


def placed(
    size: tuple[int, int], aspect: Floats | float, share: Floats, across: Floats, down: Floats
) -> Float32[np.ndarray, "k 4"]:
    """Windows of aspect ratio ``aspect`` (w / h) with ``share`` of the largest sides in an image of ``size`` (h, w).

    ``across`` and ``down`` are their places from the left and from the top, 0 to 1.

    Examples:
        >>> import numpy as np
        >>> half = np.full(1, 0.5, np.float32)
        >>> placed((40, 80), 1.0, half, across=half, down=half).tolist()
        [[30.0, 10.0, 50.0, 30.0]]
    """
    height, width = size
    tall = np.minimum(np.float32(width / aspect), np.float32(height)) * share
    high = tall.round().clip(1, height)
    wide = (tall * np.float32(aspect)).round().clip(1, width)
    left, top = (across * (width - wide)).round(), (down * (height - high)).round()
    return np.stack([left, top, left + wide, top + high], axis=1)


def first_useful(
    boxes: Float32[np.ndarray, "n 4"], windows: Float32[np.ndarray, "k 4"], least_visible: float
) -> int | None:
    """The first window in which ``least_visible`` of a box is visible; 0 without boxes, None if there is no window."""
    if len(boxes) == 0:
        return 0
    useful = (coverage(boxes, windows) >= least_visible).any(axis=0)
    return int(useful.argmax()) if useful.any() else None


def coverage(boxes: Float32[np.ndarray, "n 4"], windows: Float32[np.ndarray, "k 4"]) -> Float32[np.ndarray, "n k"]:
    """The share of each box that is inside each window, as :func:`ladle.boxes.pairwise_coverage`."""
    low = np.maximum(boxes[:, None, :2], windows[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], windows[None, :, 2:])
    inside = (high - low).clip(0).prod(axis=2)
    shares: Float32[np.ndarray, "n k"] = inside / (boxes[:, 2:] - boxes[:, :2]).prod(axis=1).clip(IOU_FLOOR)[:, None]
    return shares
