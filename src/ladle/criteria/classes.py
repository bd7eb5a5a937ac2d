"""What the classes of a dense head cost under a plan."""

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
    """The class loss summed over everything that counts; ``labels`` are those of ``plan.objects``.

    Every class is background everywhere, then corrected at the classes that are objects: no one-hot matrix is built.
    """
    chosen, learnt = logits.gather(-1, labels), plan.affinity
    counted = plan.background + plan.weight
    off: Callable[[Tensor], Tensor] = background_quality_focal
    everywhere: Callable[[Tensor], Tensor] = background_quality_focal_sum
    if kind == "focal":
        off, everywhere, on = background_focal, background_focal_sum, object_focal(chosen)
    elif kind == "quality":
        on = quality_focal(chosen, overlap.unsqueeze(-1))
    elif kind == "aligned":
        # The affinity is the target, so a prior that learns little counts as fully as one that learns much.
        on, learnt = quality_focal(chosen, learnt), (learnt > 0).float()
        counted = plan.background + learnt.sum(-1)
    else:
        off, everywhere, counted = F.softplus, _softplus_sum, plan.weight
        on = F.binary_cross_entropy_with_logits(chosen, overlap.unsqueeze(-1).expand_as(chosen), reduction="none")
    return (counted * everywhere(logits)).sum() + (learnt * (on - off(chosen))).sum()


def _softplus_sum(logits: Tensor) -> Tensor:
    return F.softplus(logits).sum(-1)
