"""Box edges as distributions over distances (Li et al., "Generalized Focal Loss", NeurIPS 2020)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

__all__ = ["distribution_focal", "expected_bin", "rebinned"]


def expected_bin(logits: Float[Tensor, "*b K"]) -> Float[Tensor, "*b"]:
    """The mean of the distribution over bins 0 ... K-1 (eq. 4 with unit steps), in float32."""
    bins = torch.arange(logits.shape[-1], device=logits.device, dtype=torch.float32)
    # No matrix product: autocast would round it to half precision.
    return (logits.float().softmax(-1) * bins).sum(-1)


def distribution_focal(logits: Float[Tensor, "*b K"], target: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
    """Cross entropy with the two bins next to ``target``, each weighed by its nearness (eq. 6).

    ``target`` is in bins, within [0, K-1]; outside it the nearest two bins are extrapolated, so clamp it first.
    """
    log_chances = logits.float().log_softmax(-1)
    below = target.floor().clamp(0, logits.shape[-1] - 2)
    pair = torch.stack([below, below + 1], dim=-1).long()
    near = log_chances.gather(-1, pair)
    upper = target - below
    return -((1 - upper) * near[..., 0] + upper * near[..., 1])


def rebinned(chances: Float[Tensor, "*b K"], bins: int) -> Float[Tensor, "*b bins"]:
    """A distribution over bins 0 ... K-1 said in ``bins`` of them: the last one takes what lies beyond it."""
    known = chances.shape[-1]
    if known <= bins:
        return F.pad(chances, (0, bins - known))
    return torch.cat([chances[..., : bins - 1], chances[..., bins - 1 :].sum(-1, keepdim=True)], dim=-1)
