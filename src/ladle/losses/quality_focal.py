"""Quality focal loss: focal loss against targets in [0, 1] (Li et al., "Generalized Focal Loss", NeurIPS 2020)."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from ladle.losses.focal import background_focal, background_focal_sum

__all__ = ["background_quality_focal", "background_quality_focal_sum", "quality_focal"]


def quality_focal(logits: Tensor, targets: Tensor, beta: float = 2.0) -> Tensor:
    """Quality focal loss ``|t - p|^beta * BCE(p, t)`` with p = sigmoid(logits) (eq. 5); any shape.

    The gradient flows through the factor as well, as in the released code. With a task-aligned target this is also the
    class loss of TOOD (Feng et al., ICCV 2021, eq. 5). For beta below 1 the slope of the factor at p = t is infinite;
    there the gradient is 0.
    """
    gap = (targets - logits.sigmoid()).abs()
    factor = gap.pow(beta)
    if 0 < beta < 1:
        apart = gap > 0
        factor = torch.where(apart, torch.where(apart, gap, 1.0).pow(beta), 0.0)
    return factor * F.binary_cross_entropy_with_logits(logits, targets, reduction="none")


background_quality_focal = partial(background_focal, alpha=0.0)
"""Quality focal loss of logits whose target is 0: focal loss with gamma 2 and without alpha."""

background_quality_focal_sum = partial(background_focal_sum, alpha=0.0)
""":func:`background_quality_focal` summed over the last axis, the classes."""
