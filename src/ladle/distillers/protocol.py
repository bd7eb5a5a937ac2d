"""Protocols of distillers, and of the networks they compare."""

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
    """A loss between two outputs, usually at the same priors; ``ladle.testing`` has the laws that it must obey.

    If it has parameters it is a ``torch.nn.Module``: they are trained along with the student, and not saved with it.

    Examples:
        >>> from ladle.distillers import DistillationLoss, FitNet, SoftLabels
        >>> from ladle.testing import example_network
        >>> built = FitNet().build(example_network(), example_network())
        >>> isinstance(built, DistillationLoss), isinstance(SoftLabels(), DistillationLoss)
        (True, True)
    """

    def __call__(
        self, student: Output, teacher: Output, truth: GroundTruth, assignment: Assignment, /
    ) -> dict[str, Term]:
        """Terms to add to the student's losses; without gradient for the teacher, and 0 at invalid priors."""
        ...


@runtime_checkable
class TowerLoss(DistillationLoss, Protocol):
    """A loss that needs the maps inside the towers of dense heads.

    Examples:
        >>> from ladle.distillers import SoftLabels, TowerLoss
        >>> isinstance(SoftLabels(), TowerLoss)
        False
    """

    @property
    def tower_depths(self) -> tuple[int, int]:
        """After how many convolutions the student and the teacher must return their towers' maps."""
        ...


@runtime_checkable
class Distiller(Protocol):
    """A distillation loss in plain values; :meth:`build` makes the loss for two networks.

    Examples:
        A custom distiller needs these four members; here it is also the loss:

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
        """Whether it compares feature maps only; the teacher may then have other classes and priors."""
        ...

    @property
    def every_stage(self) -> bool:
        """Whether it applies to every stage that both detectors have, or to the first one only."""
        ...

    def summarize(self, student: NetworkInfo, teacher: NetworkInfo, stage: int, /) -> Summary:
        """What each term imitates in a stage; raises ValueError if it cannot work with these two networks."""
        ...

    def build(self, student: Network, teacher: Network, /) -> DistillationLoss:
        """The loss for two networks."""
        ...


@runtime_checkable
class Network(Protocol):
    """What :meth:`Distiller.build` may use of a detector or a teacher.

    Examples:
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
        """Channels and strides of its feature maps."""
        ...

    @property
    def head(self) -> Head | None:
        """The head of its last stage; None if that is not a dense head."""
        ...


@runtime_checkable
class Head(Protocol):
    """A dense head whose towers can be run in two parts.

    Examples:
        >>> from ladle.distillers import Head
        >>> from ladle.families import detector_spec
        >>> head = detector_spec("paa-small", ("cat", "dog")).build().head
        >>> isinstance(head, Head), head.depth
        (True, 2)
    """

    @property
    def depth(self) -> int:
        """The number of convolutions in a tower."""
        ...

    @property
    def width(self) -> int:
        """The number of channels in a tower."""
        ...

    def predict_from(self, towers: Sequence[tuple[Tensor, Tensor]], depth: int, priors: Priors) -> Predictions:
        """Predictions from the towers' maps after ``depth`` convolutions, with gradient for the maps."""
        ...


@dataclass(frozen=True)
class Summary:
    """What each term of a distiller imitates, by name, and which terms are left out and why.

    ``distiller`` is the value to use for these two networks, if it differs from the one that was summarized.

    Examples:
        >>> from ladle.distillers import Summary
        >>> Summary({"pkd": "correlation of channels"}).skips
        ()
    """

    teaches: dict[str, str]
    skips: tuple[str, ...] = ()
    distiller: Distiller | None = field(default=None, compare=False)
