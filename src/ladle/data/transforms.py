"""Views of a picture for training: pure functions from a sample and a generator to a sample."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

__all__ = ["Sample"]


@dataclass(frozen=True)
class Sample:
    """One picture with its objects.

    ``image`` is RGB, ``boxes`` are xyxy in its pixels, ``original`` is the height and width of the picture on disk.
    """

    image: UInt8[Tensor, "3 H W"]
    boxes: Float[Tensor, "n 4"]
    labels: Int[Tensor, " n"]
    crowd: Bool[Tensor, " n"]
    id: int | str
    original: tuple[int, int]
