"""What the boxes of a dense head cost, prior by prior, and how good they and their priors are."""

from __future__ import annotations

from typing import Literal

from jaxtyping import Float
from torch import Tensor

from ladle.boxes import centerness, encode_deltas, encode_distances, giou, iou
from ladle.losses import distribution_focal
from ladle.types import Priors

__all__ = ["Boxes", "box_cost", "centerness", "edge_cost"]

Boxes = Literal["giou", "iou2", "l1"]

_SHORT = 0.1
"""How many bins below the last one a learnt distance ends, as in the released code of GFL."""


def box_cost(
    kind: Boxes, boxes: Float[Tensor, "B P 4"], target: Float[Tensor, "B P 4"], priors: Priors
) -> Float[Tensor, "B P"]:
    """The loss of every box against the one it learns; ``l1`` is summed over the four deltas."""
    if kind == "giou":
        return 1 - giou(boxes, target)
    if kind == "iou2":
        return 1 - iou(boxes, target).square()
    return (encode_deltas(priors.boxes, boxes) - encode_deltas(priors.boxes, target)).abs().sum(-1)


def edge_cost(edges: Float[Tensor, "B P 4 K"], target: Float[Tensor, "B P 4"], priors: Priors) -> Float[Tensor, "B P"]:
    """Distribution focal loss, the mean over the four edges; distances beyond the bins are cut to the last."""
    distances = encode_distances(priors.centers, target) / priors.stride[:, None]
    return distribution_focal(edges, distances.clamp(0, edges.shape[-1] - 1 - _SHORT)).mean(-1)
