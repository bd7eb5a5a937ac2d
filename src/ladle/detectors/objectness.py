"""Class scores multiplied by an objectness without a loss (Nguyen et al., WACV 2022; released code of CoLAD).

Both heads compute probabilities and return them as logits in float32, as every other head does: focal loss on these
logits is the focal loss on the probabilities, and a sigmoid gives the probabilities back.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["ConditionalObjectness", "ImplicitObjectness", "Objectness"]

_SIDE = 3
"""Side of the square of locations around a location that contribute to its score."""
_FIRST_THRESHOLD = -9.21
"""The logit of 1e-4, the initial threshold of the implicit objectness."""
_LEAST, _MOST = 1e-38, 1 - 2.0**-24
"""Probabilities are kept within these, so that their logits are finite in float32."""


class ConditionalObjectness(nn.Module):
    """COP: the mean over the 3 x 3 neighborhood of class score times a predicted relevance of the neighbor."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.relevance = nn.Conv2d(width, _SIDE * _SIDE, 3, padding=1)

    def start(self) -> None:
        """Keep the initial weights that every convolution of a head has."""

    def forward(self, logits: Tensor, tower: Tensor) -> Tensor:
        """Class logits (B,C,H,W) and the box tower (B,W,H,W) to the logits of the scores (B,C,H,W).

        A neighbor outside the map has logit 0, as in the released code.
        """
        height, width = logits.shape[-2:]
        relevance = self.relevance(tower).float().sigmoid()
        classes = F.pad(logits.float(), (1, 1, 1, 1)).sigmoid()
        shifts = [(dy, dx) for dy in range(_SIDE) for dx in range(_SIDE)]
        score = torch.zeros_like(logits, dtype=torch.float32)
        for number, (dy, dx) in enumerate(shifts):
            score = score + classes[..., dy : dy + height, dx : dx + width] * relevance[:, number : number + 1]
        return _logit(score / len(shifts))


class ImplicitObjectness(nn.Module):
    """IO: the class score's excess over a learnt threshold, times an objectness."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.objectness = nn.Conv2d(width, 1, 3, padding=1)
        self.threshold = nn.Conv2d(width, 1, 3, padding=1)

    @torch.no_grad()
    def start(self) -> None:
        """Start with a threshold near 0, since a score below the threshold has no gradient."""
        assert self.threshold.bias is not None
        self.threshold.bias.fill_(_FIRST_THRESHOLD)

    def forward(self, logits: Tensor, tower: Tensor) -> Tensor:
        """Class logits (B,C,H,W) and the box tower (B,W,H,W) to the logits of the scores (B,C,H,W)."""
        excess = (logits.float().sigmoid() - self.threshold(tower).float().sigmoid()).relu()
        return _logit(excess * self.objectness(tower).float().sigmoid())


Objectness = ConditionalObjectness | ImplicitObjectness
"""Either objectness module."""


def _logit(probability: Tensor) -> Tensor:
    return probability.clamp(_LEAST, _MOST).logit()
