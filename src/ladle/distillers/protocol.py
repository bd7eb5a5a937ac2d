"""What it means to be a distiller."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

from torch import Tensor

from ladle.types import Assignment, GroundTruth, Output, Predictions, Priors, Pyramid, Term

__all__ = ["Distiller", "DistillerSpec", "Head", "Network", "Outline", "Voice"]


@runtime_checkable
class Distiller(Protocol):
    """A loss between two outputs, usually at the same priors; its laws stand in ``ladle.testing``."""

    def __call__(
        self, student: Output, teacher: Output, truth: GroundTruth, assignment: Assignment, /
    ) -> dict[str, Term]:
        """Terms to add to the student's own; no gradient reaches the teacher, invalid priors cost nothing."""
        ...


@runtime_checkable
class DistillerSpec(Protocol):
    """A distiller in plain values that has to know the two networks first, usually because it owns weights.

    What is built may be an ``nn.Module``: it is trained along with the student, and never saved with it. Before that
    :class:`Outline` tells a reader what will be taught, if it has a method ``outline`` of two :class:`Voice`. One that
    sets ``features_only`` compares feature maps and no predictions.
    """

    def build(self, student: Network, teacher: Network, /) -> Distiller:
        """The distiller for these two."""
        ...


@runtime_checkable
class Network(Protocol):
    """What a distiller may ask of a detector or a teacher before training."""

    @property
    def pyramid(self) -> Pyramid:
        """What its feature maps are like."""
        ...

    @property
    def head(self) -> Head | None:
        """The head of its last stage, if that is dense."""
        ...


@runtime_checkable
class Head(Protocol):
    """A dense head that can be left and entered half-way up its towers."""

    @property
    def depth(self) -> int:
        """The convolutions of a tower."""
        ...

    @property
    def width(self) -> int:
        """The channels of a tower."""
        ...

    def finish(self, towers: Sequence[tuple[Tensor, Tensor]], depth: int, priors: Priors) -> Predictions:
        """From the towers' maps after ``depth`` convolutions to predictions, with gradient for the maps."""
        ...


class Voice(NamedTuple):
    """What a network says, in plain values: enough to tell what of it can be compared.

    ``bins`` are those of a box edge's distribution, 0 where it says none; ``depth`` and ``width`` are the convolutions
    and the channels of the towers of its head.
    """

    pyramid: Pyramid
    classes: int
    bins: int
    quality: bool
    depth: int
    width: int


class Outline(NamedTuple):
    """What a distiller teaches, by the names of its terms, and what it leaves out and why."""

    teaches: dict[str, str]
    skips: tuple[str, ...] = ()
