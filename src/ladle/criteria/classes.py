"""The class loss of a dense head under a plan."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from ladle.losses import (
    background_focal,
    background_focal_sum,
    background_quality_focal,
    background_quality_focal_sum,
    object_focal,
    quality_focal,
)
from ladle.types import Assignment

__all__ = ["Classes", "class_total"]

Classes = Literal["focal", "quality", "aligned", "overlap"]


def class_total(
    kind: Classes,
    logits: Float[Tensor, "B P C"],
    labels: Int[Tensor, "B P M"],
    plan: Assignment,
    overlap: Float[Tensor, "B P"],
) -> Float[Tensor, ""]:
    """The class loss, summed over priors and classes.

    The loss with target 0 is summed over all classes first, then corrected at the classes that are learnt, so that no
    one-hot matrix is built.

    Args:
        kind: the loss and its targets, as in :class:`ladle.criteria.DenseCriterion`.
        logits: class logits.
        labels: the classes of ``plan.objects``.
        plan: which prior learns which object.
        overlap: IoU of each prior's predicted box with its object.
    """
    chosen, learnt = logits.gather(-1, labels), plan.affinity  # (B, P, M)
    counted = plan.background + plan.weight  # (B, P), 0 where a prior is ignored
    negative: Callable[[Tensor], Tensor] = background_quality_focal
    negative_sum: Callable[[Tensor], Tensor] = background_quality_focal_sum
    if kind == "focal":
        negative, negative_sum, positive = background_focal, background_focal_sum, object_focal(chosen)
    elif kind == "quality":
        positive = quality_focal(chosen, overlap.unsqueeze(-1))
    elif kind == "aligned":
        # The affinity is the target and therefore not the weight: every positive has weight 1.
        positive, learnt = quality_focal(chosen, learnt), (learnt > 0).float()
        counted = plan.background + learnt.sum(-1)
    else:
        negative, negative_sum, counted = F.softplus, _softplus_sum, plan.weight
        target = overlap.unsqueeze(-1).expand_as(chosen)
        positive = F.binary_cross_entropy_with_logits(chosen, target, reduction="none")
    return (counted * negative_sum(logits)).sum() + (learnt * (positive - negative(chosen))).sum()


def _softplus_sum(logits: Tensor) -> Tensor:
    return F.softplus(logits).sum(-1)
