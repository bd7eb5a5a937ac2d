"""What it means to be a distiller."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from torch import Tensor

from ladle.networks import NetworkInfo
from ladle.types import Assignment, GroundTruth, Output, Predictions, Priors, Pyramid, Term

__all__ = ["DistillationLoss", "Distiller", "Head", "Network", "Summary", "TowerLoss"]


@runtime_checkable
class DistillationLoss(Protocol):
    """A loss between two outputs, usually at the same priors; its laws stand in ``ladle.testing``.

    One that trains weights of its own is a ``torch.nn.Module``: they are trained along with the student, and never
    saved with it.

    Example:
        >>> from ladle.distillers import DistillationLoss, FitNet, SoftLabels
        >>> from ladle.testing import example_network
        >>> built = FitNet().build(example_network(), example_network())
        >>> isinstance(built, DistillationLoss), isinstance(SoftLabels(), DistillationLoss)
        (True, True)
    """

    def __call__(
        self, student: Output, teacher: Output, truth: GroundTruth, assignment: Assignment, /
    ) -> dict[str, Term]:
        """Terms to add to the student's own; no gradient reaches the teacher, invalid priors cost nothing."""
        ...


@runtime_checkable
class TowerLoss(DistillationLoss, Protocol):
    """A loss that needs the maps inside the towers of dense heads.

    Example:
        >>> from ladle.distillers import SoftLabels, TowerLoss
        >>> isinstance(SoftLabels(), TowerLoss)
        False
    """

    @property
    def tower_depths(self) -> tuple[int, int]:
        """After how many convolutions the student and the teacher must hand out their towers' maps."""
        ...


@runtime_checkable
class Distiller(Protocol):
    """A way of distilling in plain values, which becomes a loss for two networks.

    Example:
        A distiller of one's own needs these three members:

        >>> from dataclasses import dataclass
        >>> from ladle.distillers import Distiller, Summary
        >>> from ladle.types import Term
        >>> @dataclass(frozen=True)
        ... class ScoreDifference:
        ...     weight: float = 1.0
        ...     features_only = False
        ...     every_stage = True
        ...
        ...     def summarize(self, student, teacher, stage):
        ...         return Summary({"difference": f"{student.stage(stage).classes} class scores at every prior"})
        ...
        ...     def build(self, student, teacher):
        ...         return self
        ...
        ...     def __call__(self, student, teacher, truth, assignment):
        ...         valid = student.priors.valid.unsqueeze(-1)
        ...         gap = (student.predictions.scores - teacher.predictions.detach().scores).abs() * valid
        ...         return {"difference": Term(self.weight * gap.sum(), valid.sum().float(), gap.new_zeros(()))}
        >>> isinstance(ScoreDifference(), Distiller)
        True
    """

    @property
    def features_only(self) -> bool:
        """Whether it compares feature maps and no predictions: the teacher may then have other classes and priors."""
        ...

    @property
    def every_stage(self) -> bool:
        """Whether it teaches every stage of a detector that the teacher has too, or the first alone."""
        ...

    def summarize(self, student: NetworkInfo, teacher: NetworkInfo, stage: int, /) -> Summary:
        """What it teaches a stage; raises ValueError where it cannot work with these two."""
        ...

    def build(self, student: Network, teacher: Network, /) -> DistillationLoss:
        """The loss for two networks."""
        ...


@runtime_checkable
class Network(Protocol):
    """What a distiller may ask of a detector or a teacher when it is built.

    Example:
        >>> from ladle.distillers import Network
        >>> from ladle.families import detector_spec
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

    Example:
        >>> from ladle.distillers import Head
        >>> from ladle.families import detector_spec
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

    def predict_from(self, towers: Sequence[tuple[Tensor, Tensor]], depth: int, priors: Priors) -> Predictions:
        """From the towers' maps after ``depth`` convolutions to predictions, with gradient for the maps."""
        ...


@dataclass(frozen=True)
class Summary:
    """What a distiller teaches, by the names of its terms, and what it leaves out and why.

    ``distiller`` is the form of it for these two networks, where that differs from the value that was asked.

    Example:
        >>> from ladle.distillers import Summary
        >>> Summary({"pkd": "correlation of channels"}).skips
        ()
    """

    teaches: dict[str, str]
    skips: tuple[str, ...] = ()
    distiller: Distiller | None = field(default=None, compare=False)
