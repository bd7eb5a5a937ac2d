"""The losses of a dense head's boxes and box edges, prior by prior."""

from __future__ import annotations

from typing import Literal

from jaxtyping import Float
from torch import Tensor

from ladle.boxes import IOU_FLOOR, centerness, centers, encode_deltas, encode_distances, giou, iou
from ladle.losses import distribution_focal
from ladle.types import Priors

__all__ = ["Boxes", "box_cost", "centerness", "edge_cost", "side_cost"]

Boxes = Literal["giou", "iou2", "l1"]

_SHORT = 0.1
"""Distances are clamped to this many bins below the last bin, as in the released code of GFL."""


def box_cost(
    kind: Boxes, boxes: Float[Tensor, "B P 4"], target: Float[Tensor, "B P 4"], priors: Priors
) -> Float[Tensor, "B P"]:
    """The loss of each predicted box for its target box; ``l1`` is summed over the four deltas."""
    if kind == "giou":
        return 1 - giou(boxes, target)
    if kind == "iou2":
        return 1 - iou(boxes, target).square()
    return (encode_deltas(priors.boxes, boxes) - encode_deltas(priors.boxes, target)).abs().sum(-1)


def side_cost(boxes: Float[Tensor, "B P 4"], target: Float[Tensor, "B P 4"], priors: Priors) -> Float[Tensor, "B P"]:
    """L1 on the center in strides and on the logarithms of the sides, summed over the four (YOLOX)."""
    stride = priors.stride[:, None]
    apart = (centers(boxes) - centers(target)).abs() / stride
    sides, target_sides = ((one[..., 2:] - one[..., :2]).clamp(min=IOU_FLOOR) for one in (boxes, target))
    return (apart + (sides / target_sides).log().abs()).sum(-1)


def edge_cost(edges: Float[Tensor, "B P 4 K"], target: Float[Tensor, "B P 4"], priors: Priors) -> Float[Tensor, "B P"]:
    """Distribution focal loss, averaged over the four edges; target distances are clamped to the range of the bins."""
    distances = encode_distances(priors.centers, target) / priors.stride[:, None]
    return distribution_focal(edges, distances.clamp(0, edges.shape[-1] - 1 - _SHORT)).mean(-1)
