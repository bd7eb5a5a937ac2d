"""What it means to be an assigner."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Literal, Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ladle.types import Assignment, GroundTruth, Predictions, Priors, Record

__all__ = [
    "Assigner",
    "Evidence",
    "EvidenceAssigner",
    "OverlapAssigner",
    "PointAssigner",
    "SoftAssigner",
    "full_precision",
    "uses_predictions",
]


@runtime_checkable
class Assigner(Protocol):
    """Decides which prior learns which object; pure, batched, float32 inside. Its laws stand in ``ladle.testing``.

    Examples:
        >>> from ladle.assigners import Assigner
        >>> from ladle.types import Assignment
        >>> def nobody(predictions, priors, truth):
        ...     return Assignment.empty(priors.valid.expand(len(truth.labels), -1))
        >>> isinstance(nobody, Assigner)  # any function of these three
        True
    """

    def __call__(self, predictions: Predictions, priors: Priors, truth: GroundTruth, /) -> Assignment:
        """Return the plan for these predictions; the inputs are left alone. Gradient flows into soft plans alone."""
        ...


@runtime_checkable
class OverlapAssigner(Assigner, Protocol):
    """An assigner that compares the boxes of the priors with objects, and ignores predictions.

    In its judged form the boxes that a teacher predicts take the place of the priors' own.

    Examples:
        >>> from ladle.assigners import ATSS, PAA, OverlapAssigner
        >>> isinstance(ATSS(), OverlapAssigner), isinstance(PAA(), OverlapAssigner)
        (True, False)
        >>> ATSS().judged_by_teacher(True, 0.0, False).boxes
        'predictions'
    """

    @property
    def boxes(self) -> Literal["priors", "predictions"]:
        """Which boxes are compared with objects: those of the ``priors``, or in the judged form the ``predictions``."""
        ...

    def judged_by_teacher(self, keep_count: bool, class_power: float, ignore_rejected: bool, /) -> Assigner:
        """The judged form of this assigner.

        Args:
            keep_count: whether each object keeps the number of priors that it has without a teacher.
            class_power: power of the teacher's score for the object's class, by which overlaps are multiplied.
            ignore_rejected: whether a prior that is positive without a teacher, and that the teacher rejects, is
                ignored instead of background.

        Raises:
            ValueError: for an option that this assigner does not have.
        """
        ...


@runtime_checkable
class SoftAssigner(Assigner, Protocol):
    """An assigner by which a prior learns several objects at once; only a criterion of bags can learn from it.

    Examples:
        >>> from ladle.assigners import AutoAssign, PAA, SoftAssigner
        >>> isinstance(AutoAssign(), SoftAssigner), isinstance(PAA(), SoftAssigner)
        (True, False)
    """

    @property
    def soft(self) -> bool:
        """Always true."""
        ...


@runtime_checkable
class PointAssigner(Assigner, Protocol):
    """An assigner that chooses among points: several anchors at one location are all the same to it.

    Examples:
        >>> from ladle.assigners import FCOS, PAA, PointAssigner
        >>> isinstance(FCOS(), PointAssigner), isinstance(PAA(), PointAssigner)
        (True, False)
    """

    @property
    def by_points(self) -> bool:
        """Always true."""
        ...


def uses_predictions(assigner: Assigner) -> bool:
    """Whether an assigner needs predictions; only overlap assigners in their plain form do not."""
    return not isinstance(assigner, OverlapAssigner) or assigner.boxes == "predictions"


@dataclass(frozen=True)
class Evidence(Record):
    """What a prediction-aware assigner weighs before it decides.

    ``candidate`` priors compete for object ``index``, each at ``cost`` (lower is better, finite on candidates).

    Examples:
        >>> from ladle.assigners import PAA
        >>> from ladle.testing import example_scene
        >>> predictions, priors, truth = example_scene()
        >>> evidence = PAA().weigh(predictions, priors, truth)
        >>> bool(evidence.cost[evidence.candidate].isfinite().all())
        True
    """

    index: Int[Tensor, "B P"]
    cost: Float[Tensor, "B P"]
    candidate: Bool[Tensor, "B P"]


@runtime_checkable
class EvidenceAssigner(Assigner, Protocol):
    """An assigner that shows its working, so that two networks' costs can be compared before the decision.

    Examples:
        >>> from ladle.assigners import PAA, EvidenceAssigner, MaxIoU
        >>> isinstance(PAA(), EvidenceAssigner), isinstance(MaxIoU(), EvidenceAssigner)
        (True, False)
    """

    def weigh(self, predictions: Predictions, priors: Priors, truth: GroundTruth, /) -> Evidence:
        """Price every candidate prior."""
        ...

    def select(self, evidence: Evidence, priors: Priors, truth: GroundTruth, /) -> Assignment:
        """Choose among the candidates."""
        ...


S = TypeVar("S")
R = TypeVar("R")


def full_precision(
    decide: Callable[[S, Predictions, Priors, GroundTruth], R],
) -> Callable[[S, Predictions, Priors, GroundTruth], R]:
    """Run an assigner's method in float32, without gradient, whatever autocast or dtype the network runs in.

    Half precision moves costs across thresholds, and does so differently on every device.
    """

    @wraps(decide)
    def method(self: S, predictions: Predictions, priors: Priors, truth: GroundTruth) -> R:
        with torch.no_grad(), torch.autocast(predictions.logits.device.type, enabled=False):
            return decide(self, predictions.map(Tensor.float), priors, truth)

    return method
