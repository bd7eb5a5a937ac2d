"""Box edges as discrete distributions over distances (Li et al., "Generalized Focal Loss", NeurIPS 2020)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

__all__ = ["distribution_focal", "expected_bin", "rebinned"]


def expected_bin(logits: Float[Tensor, "*b K"]) -> Float[Tensor, "*b"]:
    """The expected value of the distribution over bins 0 ... K-1 (eq. 4 with unit steps), in float32."""
    bins = torch.arange(logits.shape[-1], device=logits.device, dtype=torch.float32)
    # A sum instead of a matrix product, which autocast would run in half precision.
    return (logits.float().softmax(-1) * bins).sum(-1)


def distribution_focal(logits: Float[Tensor, "*b K"], target: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
    """Distribution focal loss: cross entropy with the two bins around ``target``, linearly weighted (eq. 6).

    ``target`` is in units of bins. Clamp it to [0, K-1] first: outside this range the weights are extrapolated.
    """
    log_probs = logits.float().log_softmax(-1)
    below = target.floor().clamp(0, logits.shape[-1] - 2)
    pair = torch.stack([below, below + 1], dim=-1).long()
    near = log_probs.gather(-1, pair)
    upper = target - below
    return -((1 - upper) * near[..., 0] + upper * near[..., 1])


def rebinned(probs: Float[Tensor, "*b K"], bins: int) -> Float[Tensor, "*b bins"]:
    """Convert a distribution over K bins to one over ``bins`` bins.

    Additional bins get probability 0; the probability of removed bins is added to the last one.
    """
    known = probs.shape[-1]
    if known <= bins:
        return F.pad(probs, (0, bins - known))
    return torch.cat([probs[..., : bins - 1], probs[..., bins - 1 :].sum(-1, keepdim=True)], dim=-1)
