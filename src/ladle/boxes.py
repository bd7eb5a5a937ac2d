"""Box geometry: areas, overlaps, and the encodings of regression targets.

Boxes are ``x1 y1 x2 y2``, and every function accepts any number of leading dimensions. Denominators of overlaps are
clamped at 1e-6, as in the published code of PAA, ATSS and LAD, so that thresholds decide alike.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = [
    "area",
    "centerness",
    "centers",
    "clip",
    "contains",
    "corners",
    "decode_deltas",
    "decode_distances",
    "encode_deltas",
    "encode_distances",
    "giou",
    "iou",
    "pairwise_coverage",
    "pairwise_intersection",
    "pairwise_iou",
]

STDS = (0.1, 0.2)
"""Standard deviations by which anchor deltas are divided: of (dx, dy) and of (log dw, log dh)."""
MAX_LOG_RATIO = abs(math.log(16 / 1000))
"""Largest log ratio of a predicted side to its anchor's side (62.5 times): keeps exp() finite."""
SIZES = {"small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, float("inf"))}
"""COCO's areas of small, medium and large objects in square pixels: at least the first, less than the second."""
IOU_FLOOR = 1e-6
"""Lower bound of the denominator of an overlap, in square pixels, and of the sides of an encoded box, in pixels."""


def area(boxes: Float[Tensor, "*b 4"]) -> Float[Tensor, "*b"]:
    """Width times height in square pixels; a box with swapped corners has area 0.

    Examples:
        >>> import torch
        >>> from ladle.boxes import area
        >>> area(torch.tensor([0.0, 0.0, 4.0, 2.0]))
        tensor(8.)
    """
    width, height = (boxes[..., 2:] - boxes[..., :2]).clamp(min=0).unbind(-1)
    return width * height


def centers(boxes: Float[Tensor, "*b 4"]) -> Float[Tensor, "*b 2"]:
    """The center ``x y`` of each box."""
    return (boxes[..., :2] + boxes[..., 2:]) / 2


def corners(boxes: Float[Tensor, "*b 4"]) -> Float[Tensor, "*b 4"]:
    """Boxes of center, width and height as corners ``x1 y1 x2 y2``.

    >>> import torch
    >>> from ladle.boxes import corners
    >>> corners(torch.tensor([5.0, 5.0, 4.0, 2.0]))
    tensor([3., 4., 7., 6.])
    """
    half = boxes[..., 2:] / 2
    return torch.cat([boxes[..., :2] - half, boxes[..., :2] + half], -1)


def clip(boxes: Float[Tensor, "*b n 4"], sizes: Tensor) -> Float[Tensor, "*b n 4"]:
    """Clip boxes to their image; ``sizes`` (..., 2) holds heights and widths.

    Examples:
        >>> import torch
        >>> from ladle.boxes import clip
        >>> clip(torch.tensor([[-3.0, 5.0, 30.0, 40.0]]), torch.tensor([32, 24]))  # height and width
        tensor([[ 0.,  5., 24., 32.]])
    """
    height, width = sizes[..., 0:1].to(boxes.dtype), sizes[..., 1:2].to(boxes.dtype)
    x = boxes[..., 0::2].clamp(min=0).minimum(width.unsqueeze(-1))
    y = boxes[..., 1::2].clamp(min=0).minimum(height.unsqueeze(-1))
    return torch.stack([x[..., 0], y[..., 0], x[..., 1], y[..., 1]], dim=-1)


def pairwise_intersection(first: Float[Tensor, "*#b p 4"], second: Float[Tensor, "*#b g 4"]) -> Tensor:
    """Intersection area of every pair, (..., p, 4) and (..., g, 4) -> (..., p, g). Leading dimensions broadcast."""
    a, b = first.unsqueeze(-2), second.unsqueeze(-3)
    width = (a[..., 2].minimum(b[..., 2]) - a[..., 0].maximum(b[..., 0])).clamp(min=0)
    height = (a[..., 3].minimum(b[..., 3]) - a[..., 1].maximum(b[..., 1])).clamp(min=0)
    return width * height


def pairwise_iou(first: Float[Tensor, "*#b p 4"], second: Float[Tensor, "*#b g 4"]) -> Tensor:
    """Intersection over union of every pair, (..., p, 4) and (..., g, 4) -> (..., p, g).

    Examples:
        >>> import torch
        >>> from ladle.boxes import pairwise_iou
        >>> boxes = torch.tensor([[0.0, 0.0, 4.0, 2.0], [2.0, 0.0, 6.0, 2.0], [8.0, 8.0, 9.0, 9.0]])
        >>> pairwise_iou(boxes[:2], boxes)
        tensor([[1.0000, 0.3333, 0.0000],
                [0.3333, 1.0000, 0.0000]])
    """
    shared = pairwise_intersection(first, second)
    union = area(first).unsqueeze(-1) + area(second).unsqueeze(-2) - shared
    return shared / union.clamp(min=IOU_FLOOR)


def pairwise_coverage(first: Float[Tensor, "*#b p 4"], second: Float[Tensor, "*#b g 4"]) -> Tensor:
    """Intersection over the area of the first box ("IoF") of every pair, (..., p, 4) and (..., g, 4) -> (..., p, g)."""
    return pairwise_intersection(first, second) / area(first).unsqueeze(-1).clamp(min=IOU_FLOOR)


def iou(first: Float[Tensor, "*#b 4"], second: Float[Tensor, "*#b 4"]) -> Tensor:
    """Intersection over union, box by box.

    Examples:
        >>> import torch
        >>> from ladle.boxes import iou
        >>> iou(torch.tensor([0.0, 0.0, 4.0, 2.0]), torch.tensor([2.0, 0.0, 6.0, 2.0]))
        tensor(0.3333)
    """
    shared = _intersection(first, second)
    return shared / (area(first) + area(second) - shared).clamp(min=IOU_FLOOR)


def giou(first: Float[Tensor, "*#b 4"], second: Float[Tensor, "*#b 4"]) -> Tensor:
    """Generalized IoU, box by box (Rezatofighi et al., CVPR 2019).

    The IoU minus the fraction of the common bounding box that neither box covers; in (-1, 1].

    Examples:
        >>> import torch
        >>> from ladle.boxes import giou
        >>> giou(torch.tensor([0.0, 0.0, 4.0, 2.0]), torch.tensor([6.0, 0.0, 10.0, 2.0]))
        tensor(-0.2000)
    """
    shared = _intersection(first, second)
    union = (area(first) + area(second) - shared).clamp(min=IOU_FLOOR)
    low = first[..., :2].minimum(second[..., :2])
    high = first[..., 2:].maximum(second[..., 2:])
    # Not prod(-1), whose gradient waits for the device.
    hull_width, hull_height = (high - low).clamp(min=0).unbind(-1)
    hull = (hull_width * hull_height).clamp(min=IOU_FLOOR)
    return shared / union - (hull - union) / hull


def _intersection(first: Tensor, second: Tensor) -> Tensor:
    low = first[..., :2].maximum(second[..., :2])
    high = first[..., 2:].minimum(second[..., 2:])
    width, height = (high - low).clamp(min=0).unbind(-1)
    return width * height


def contains(boxes: Float[Tensor, "*#b 4"], points: Float[Tensor, "*#b 2"], margin: float = 0.0) -> Tensor:
    """Whether each point lies inside its box by more than ``margin`` pixels."""
    inner = torch.minimum(points - boxes[..., :2], boxes[..., 2:] - points)
    return inner.amin(-1) > margin


def decode_deltas(
    priors: Float[Tensor, "*#b 4"], deltas: Float[Tensor, "*#b 4"], stds: tuple[float, float] = STDS
) -> Tensor:
    """Boxes from anchor deltas (dx, dy, dw, dh), multiplied by ``stds`` of shift and size (R-CNN coder).

    Examples:
        >>> import torch
        >>> from ladle.boxes import decode_deltas
        >>> anchor = torch.tensor([[0.0, 0.0, 16.0, 16.0]])
        >>> decode_deltas(anchor, torch.zeros(1, 4))
        tensor([[ 0.,  0., 16., 16.]])
    """
    shift, stretch = stds
    size = priors[..., 2:] - priors[..., :2]
    center = centers(priors) + size * (deltas[..., :2] * shift)
    half = size * (deltas[..., 2:] * stretch).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp() / 2
    return torch.cat([center - half, center + half], dim=-1)


def encode_deltas(
    priors: Float[Tensor, "*#b 4"], boxes: Float[Tensor, "*#b 4"], stds: tuple[float, float] = STDS
) -> Tensor:
    """The deltas that :func:`decode_deltas` turns into ``boxes``; sides are clamped to at least 1e-6 pixels."""
    size = (priors[..., 2:] - priors[..., :2]).clamp(min=IOU_FLOOR)
    shift = (centers(boxes) - centers(priors)) / size
    stretch = ((boxes[..., 2:] - boxes[..., :2]).clamp(min=IOU_FLOOR) / size).log()
    return torch.cat([shift / stds[0], stretch / stds[1]], dim=-1)


def decode_distances(points: Float[Tensor, "*#b 2"], distances: Float[Tensor, "*#b 4"]) -> Tensor:
    """Boxes from the distances of their left, top, right and bottom edges to a point, in pixels (FCOS coder).

    Examples:
        >>> import torch
        >>> from ladle.boxes import decode_distances
        >>> decode_distances(torch.tensor([[16.0, 16.0]]), torch.tensor([[8.0, 8.0, 16.0, 4.0]]))
        tensor([[ 8.,  8., 32., 20.]])
    """
    return torch.cat([points - distances[..., :2], points + distances[..., 2:]], dim=-1)


def encode_distances(points: Float[Tensor, "*#b 2"], boxes: Float[Tensor, "*#b 4"]) -> Tensor:
    """The distances that :func:`decode_distances` turns into ``boxes``; negative if the point lies beyond an edge."""
    return torch.cat([points - boxes[..., :2], boxes[..., 2:] - points], dim=-1)


def centerness(points: Float[Tensor, "*#b 2"], boxes: Float[Tensor, "*#b 4"]) -> Tensor:
    """Centerness of a point in its box: 1 at the center, 0 at an edge and outside (Tian et al., ICCV 2019, eq. 3).

    Examples:
        >>> import torch
        >>> from ladle.boxes import centerness
        >>> point = torch.tensor([[8.0, 16.0], [16.0, 16.0]])
        >>> centerness(point, torch.tensor([0.0, 0.0, 32.0, 32.0]).expand(2, 4))
        tensor([0.5774, 1.0000])
    """
    distances = encode_distances(points, boxes).clamp(min=0)
    near, far = distances[..., :2], distances[..., 2:]
    ratio = near.minimum(far) / near.maximum(far).clamp(min=1e-12)
    return ratio.prod(-1).sqrt()
