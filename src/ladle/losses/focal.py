"""Focal loss on logits (Lin et al. 2017, eq. 5): alpha 0.25, gamma 2 everywhere the sources use it."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

__all__ = ["background_focal", "class_focal_sum", "object_focal", "sigmoid_focal"]


def object_focal(logits: Tensor, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """The loss of a logit whose target is 1; any shape."""
    return alpha * (-logits).sigmoid().pow(gamma) * F.softplus(-logits)


def background_focal(logits: Tensor, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """The loss of a logit whose target is 0; any shape."""
    return (1 - alpha) * logits.sigmoid().pow(gamma) * F.softplus(logits)


def sigmoid_focal(logits: Tensor, targets: Tensor, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """The loss against targets in {0, 1} of the same shape."""
    return targets * object_focal(logits, alpha, gamma) + (1 - targets) * background_focal(logits, alpha, gamma)


def class_focal_sum(
    logits: Float[Tensor, "*b C"], label: Int[Tensor, "*b"], alpha: float = 0.25, gamma: float = 2.0
) -> Float[Tensor, "*b"]:
    """The loss summed over classes when ``label`` is the one class whose target is 1.

    Written as "everything is background" plus a correction at one class, so that no one-hot matrix is built.
    """
    chosen = logits.gather(-1, label.unsqueeze(-1)).squeeze(-1)
    correction = object_focal(chosen, alpha, gamma) - background_focal(chosen, alpha, gamma)
    return background_focal(logits, alpha, gamma).sum(-1) + correction
