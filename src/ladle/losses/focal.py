"""Focal loss on logits (Lin et al. 2017, eq. 5): alpha 0.25, gamma 2 everywhere the sources use it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from ladle.overlaps import may_look

__all__ = ["background_focal", "class_focal_sum", "object_focal", "sigmoid_focal", "softplus"]

_ROWS = 1024
"""Rows taken at once on a processor."""


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

    No one-hot matrix is built, and on a processor no temporary outgrows its cache. Without gradient.
    """
    rows, labels = logits.reshape(-1, logits.shape[-1]), label.reshape(-1, 1)
    slices = zip(rows.split(_ROWS), labels.split(_ROWS), strict=True) if may_look(rows) else [(rows, labels)]
    parts = []
    for part, here in slices:
        mine = object_focal(part.gather(-1, here), alpha, gamma)
        price = softplus(part).mul_(part.sigmoid().pow_(gamma)).mul_(1 - alpha)
        parts.append(price.scatter_(-1, here, mine).sum(-1))
    return torch.cat(parts).view(label.shape)


def softplus(logits: Tensor) -> Tensor:
    """``log(1 + exp(logits))`` without gradient, several times faster on a processor than PyTorch's, which is scalar.

    ``log(1 + e)`` loses what 1 + e rounds off; the first order of that is put back.
    """
    small = logits.abs().neg_().exp_()
    rounded = small + 1
    lost = small.sub_(rounded - 1).div_(rounded)
    return rounded.log_().add_(lost).add_(logits.clamp(min=0))
