"""What it means to be a distiller."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

from torch import Tensor

from ladle.types import Assignment, GroundTruth, Output, Predictions, Priors, Pyramid, Term

__all__ = ["Distiller", "DistillerSpec", "Head", "Network", "Outline", "Outlined", "TowerDistiller", "Voice"]


@runtime_checkable
class Distiller(Protocol):
    """A loss between two outputs, usually at the same priors; its laws stand in ``ladle.testing``.

    Examples:
        >>> from ladle.distillers import PKD, Distiller, SoftLabels
        >>> isinstance(SoftLabels(), Distiller), isinstance(PKD(), Distiller)  # PKD has to be built first
        (True, False)
    """

    def __call__(
        self, student: Output, teacher: Output, truth: GroundTruth, assignment: Assignment, /
    ) -> dict[str, Term]:
        """Terms to add to the student's own; no gradient reaches the teacher, invalid priors cost nothing."""
        ...


@runtime_checkable
class DistillerSpec(Protocol):
    """A distiller in plain values that has to know the two networks first, usually because it owns weights.

    What is built may be an ``nn.Module``: it is trained along with the student, and never saved with it.

    Examples:
        >>> from ladle.distillers import PKD, DistillerSpec, SoftLabels
        >>> isinstance(SoftLabels(), DistillerSpec), isinstance(PKD(), DistillerSpec)
        (False, True)
    """

    def build(self, student: Network, teacher: Network, /) -> Distiller:
        """The distiller for these two."""
        ...


@runtime_checkable
class Outlined(Protocol):
    """A distiller, or the plain values of one, that can say before training what it will teach.

    Examples:
        >>> from ladle.distillers import PKD, Outlined, SoftLabels
        >>> isinstance(PKD(), Outlined), PKD().features_only, SoftLabels().features_only
        (True, True, False)
    """

    @property
    def features_only(self) -> bool:
        """Whether feature maps are compared and no predictions."""
        ...

    @property
    def every_stage(self) -> bool:
        """Whether it teaches every stage of a detector, or a detector once."""
        ...

    def outline(self, student: Voice, teacher: Voice, /) -> Outline:
        """What it will teach; raises ValueError where it cannot work with these two networks."""
        ...


@runtime_checkable
class TowerDistiller(Distiller, Protocol):
    """A distiller that looks into the towers of both heads.

    Examples:
        >>> from ladle.distillers import PKD, SoftLabels, TowerDistiller
        >>> isinstance(SoftLabels(), TowerDistiller)
        False
    """

    @property
    def inside(self) -> tuple[int, int]:
        """After how many convolutions the towers of the student and of the teacher are looked at."""
        ...


@runtime_checkable
class Network(Protocol):
    """What a distiller may ask of a detector or a teacher before training.

    Examples:
        >>> from ladle.families import detector_spec
        >>> from ladle.distillers import Network
        >>> detector = detector_spec("paa-tiny", ("cat", "dog")).build()
        >>> isinstance(detector, Network)
        True
        >>> detector.pyramid
        Pyramid(channels=(48, 48, 48), strides=(8, 16, 32))
    """

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
    """A dense head that can be left and entered half-way up its towers.

    Examples:
        >>> from ladle.families import detector_spec
        >>> from ladle.distillers import Head
        >>> head = detector_spec("paa-small", ("cat", "dog")).build().head
        >>> isinstance(head, Head), head.depth
        (True, 2)
    """

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

    ``bins`` are those of a box edge's distribution, 0 where it says none; ``quality`` is what its quality branch means,
    None where there is none; ``depth`` and ``width`` are the convolutions and the channels of the towers of its head.

    Examples:
        >>> from ladle.distillers import PKD, SoftLabels, Voice
        >>> from ladle.types import Pyramid
        >>> voice = Voice(Pyramid((48, 48), (8, 16)), classes=2, bins=0, quality="iou", depth=1, width=48)
        >>> PKD().outline(voice, voice).teaches
        {'pkd': 'correlation of channels, maps of stride 8, 16'}
        >>> list(SoftLabels().outline(voice, voice._replace(quality=None)).skips)
        ['soft_quality: the teacher has no quality branch']
    """

    pyramid: Pyramid
    classes: int
    bins: int
    quality: str | None
    depth: int
    width: int


class Outline(NamedTuple):
    """What a distiller teaches, by the names of its terms, and what it leaves out and why.

    ``instead`` is the distiller in the form that leaves it out, where that is another.

    Examples:
        >>> from ladle.distillers import Outline
        >>> Outline({"pkd": "correlation of channels"}).skips
        ()
    """

    teaches: dict[str, str]
    skips: tuple[str, ...] = ()
    instead: Distiller | DistillerSpec | None = None
