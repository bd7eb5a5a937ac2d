"""Small parts of dense heads: from maps to rows of predictions, and initial values."""

from __future__ import annotations

import math

from torch import Tensor, nn

__all__ = ["bounded_exp", "convolutions", "flattened", "logit", "set_bias"]

_MOST_EXPONENT = 10.0
"""Sides of boxes are at most ``exp(10)`` strides, more than any image has."""


def flattened(maps: Tensor, width: int) -> Tensor:
    """Maps (B, A*width, H, W) to rows (B, H*W*A, width): row by row, then the anchors of a location."""
    batch = maps.shape[0]
    return maps.permute(0, 2, 3, 1).reshape(batch, -1, width)


def bounded_exp(logarithm: Tensor) -> Tensor:
    """The exponential, of at most 10."""
    return logarithm.clamp(max=_MOST_EXPONENT).exp()


def convolutions(*parts: nn.Module | None) -> list[nn.Conv2d]:
    """All convolutions of modules."""
    modules = [module for part in parts if part is not None for module in part.modules()]
    return [module for module in modules if isinstance(module, nn.Conv2d)]


def set_bias(part: nn.Module, value: Tensor) -> None:
    """Set the bias of all convolutions of a module."""
    for conv in convolutions(part):
        assert conv.bias is not None
        conv.bias.copy_(value.expand_as(conv.bias))


def logit(prob: float) -> float:
    """The logit of a probability."""
    return math.log(prob / (1 - prob))
