"""Similarity distance of boxes (SimD), a measure that is above 0 also where boxes do not overlap."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from ladle.boxes import IOU_FLOOR

__all__ = ["LARGEST_SIDES", "SimD", "measure_of", "numbers_of"]

LARGEST_SIDES = 1e30
"""Upper bound of the sum of two sides, in pixels, so that boxes without end have a similarity of 0 and not NaN."""


@dataclass(frozen=True)
class SimD:
    """Similarity of boxes by their distance and by their shape (Shi et al., IROS 2024, arXiv 2407.02394).

    With centers x, y and sides w, h of the two boxes 1 and 2 it is exp(-(location + shape))::

        location = sqrt((m (x1 - x2) / (w1 + w2))^2 + (n (y1 - y2) / (h1 + h2))^2)
        shape    = sqrt((m (w1 - w2) / (w1 + w2))^2 + (n (h1 - h2) / (h1 + h2))^2)

    It is 1 for equal boxes, and does not change if both boxes are enlarged alike. In float32 it is 0 for a sum of about
    104 and more.

    Args:
        m: mean of abs(x1 - x2) / (w1 + w2) over all pairs of an object and a prior of its image. ``ladle assign stats``
            computes it for a data set and a detector.
        n: the same of abs(y1 - y2) / (h1 + h2).

    Examples:
        >>> import torch
        >>> from ladle.assigners import SimD
        >>> small, beside = torch.tensor([0.0, 0.0, 8.0, 8.0]), torch.tensor([8.0, 0.0, 16.0, 8.0])
        >>> SimD(m=2.0, n=2.0).between(small, beside)  # exp(-2 * 8 / 16); their IoU is 0
        tensor(0.3679)
    """

    m: float
    n: float

    def __post_init__(self) -> None:
        if not all(0 < value < math.inf for value in (self.m, self.n)):
            raise ValueError(f"SimD takes numbers above 0, found m={self.m}, n={self.n}")

    def between(self, first: Float[Tensor, "*#b 4"], second: Float[Tensor, "*#b 4"]) -> Tensor:
        """The similarity box by box; leading dimensions broadcast."""
        return self.of_sides(first.unbind(-1), second.unbind(-1))

    def of_sides(self, first: Sequence[Tensor], second: Sequence[Tensor]) -> Tensor:
        """The similarity of boxes whose coordinates x1, y1, x2, y2 are four tensors each; their shapes broadcast."""
        x1, y1, x2, y2 = first
        left, top, right, bottom = second
        across, wide = _apart(x1, x2, left, right, self.m)
        down, high = _apart(y1, y2, top, bottom, self.n)
        location = (across + down).sqrt_()
        return location.add_((wide + high).sqrt_()).neg_().exp_()


def measure_of(numbers: Sequence[float]) -> SimD | None:
    """The measure of the two numbers in which a fused operation takes it; None, for the IoU, of none."""
    return SimD(*numbers) if numbers else None


def numbers_of(measure: SimD | None) -> list[float]:
    """The inverse of :func:`measure_of`."""
    return [] if measure is None else [measure.m, measure.n]


def _apart(low: Tensor, high: Tensor, other_low: Tensor, other_high: Tensor, factor: float) -> tuple[Tensor, Tensor]:
    """The squared distances of two intervals' middles and of their lengths, in sums of their lengths."""
    length, other = (high - low).clamp(min=0), (other_high - other_low).clamp(min=0)
    both = (length + other).clamp_(min=IOU_FLOOR, max=LARGEST_SIDES)
    middle = (low + high) / 2 - (other_low + other_high) / 2
    return (middle / both).mul_(factor).square_(), ((length - other) / both).mul_(factor).square_()
