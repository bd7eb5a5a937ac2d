"""Focal loss on logits (Lin et al., ICCV 2017, eq. 5), by default with alpha 0.25 and gamma 2 as in the paper."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from ladle.device import may_look

__all__ = ["background_focal", "background_focal_sum", "class_focal_sum", "object_focal", "sigmoid_focal", "softplus"]

_ROWS = 1024
"""Rows per block on the CPU, so that temporaries stay in its cache."""


def object_focal(logits: Tensor, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """Focal loss of logits whose target is 1; any shape."""
    return alpha * (-logits).sigmoid().pow(gamma) * F.softplus(-logits)


def background_focal(logits: Tensor, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """Focal loss of logits whose target is 0; any shape."""
    return (1 - alpha) * logits.sigmoid().pow(gamma) * F.softplus(logits)


def background_focal_sum(logits: Float[Tensor, "*b C"], alpha: float = 0.25, gamma: float = 2.0) -> Float[Tensor, "*b"]:
    """:func:`background_focal` summed over classes, with less memory.

    The gradient is computed in the forward pass and is the only tensor saved for the backward pass. On the CPU the rows
    are processed in blocks that fit its cache. Differentiable once.
    """
    summed: Tensor = _BackgroundSum.apply(logits, alpha, gamma)
    return summed


def sigmoid_focal(logits: Tensor, targets: Tensor, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """Focal loss with targets in {0, 1} of the same shape."""
    return targets * object_focal(logits, alpha, gamma) + (1 - targets) * background_focal(logits, alpha, gamma)


def class_focal_sum(
    logits: Float[Tensor, "*b C"], label: Int[Tensor, "*b"], alpha: float = 0.25, gamma: float = 2.0
) -> Float[Tensor, "*b"]:
    """Focal loss summed over classes, with target 1 for class ``label`` and 0 for all others. No gradient.

    No one-hot matrix is built. On the CPU the rows are processed in blocks that fit its cache.
    """
    rows, labels = logits.reshape(-1, logits.shape[-1]), label.reshape(-1, 1)
    slices = zip(rows.split(_ROWS), labels.split(_ROWS), strict=True) if may_look(rows) else [(rows, labels)]
    parts = []
    for part, here in slices:
        positive = object_focal(part.gather(-1, here), alpha, gamma)
        loss = softplus(part).mul_(part.sigmoid().pow_(gamma)).mul_(1 - alpha)
        parts.append(loss.scatter_(-1, here, positive).sum(-1))
    return (torch.cat(parts) if len(parts) != 1 else parts[0]).view(label.shape)


def softplus(logits: Tensor) -> Tensor:
    """``log(1 + exp(logits))`` without gradient; on the CPU several times faster than PyTorch's scalar loop.

    With e = exp(-|logits|), ``1 + e`` rounds off low digits of e; their first-order effect on the logarithm is added.
    """
    small = logits.abs().neg_().exp_()
    rounded = small + 1
    lost = small.sub_(rounded - 1).div_(rounded)
    return rounded.log_().add_(lost).add_(logits.clamp(min=0))


class _BackgroundSum(torch.autograd.Function):
    """Sum over classes of ``(1 - alpha) p^g s`` with p = sigmoid(z) and s = softplus(z).

    Its derivative by z is ``(1 - alpha) p^g (g (1 - p) s + p)``. Logits and slope are (N, C), the sums (N,).
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, alpha: float, gamma: float) -> Tensor:
        rows = logits.reshape(-1, logits.shape[-1])
        slope = torch.empty_like(rows)
        steps = _ROWS if may_look(rows) else max(len(rows), 1)
        sums = []
        for part, into in zip(rows.split(steps), slope.split(steps), strict=True):
            prob, cost = part.sigmoid(), softplus(part)
            power = prob.pow(gamma).mul_(1 - alpha)
            torch.mul(cost, 1 - prob, out=into).mul_(gamma).add_(prob).mul_(power)
            sums.append(cost.mul_(power).sum(-1))
        ctx.save_for_backward(slope.view(logits.shape))
        return torch.cat(sums).view(logits.shape[:-1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (slope,) = ctx.saved_tensors
        return slope * gradient.unsqueeze(-1), None, None
