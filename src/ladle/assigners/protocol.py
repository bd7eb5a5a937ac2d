"""The protocols of assigners."""

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
    """Decides which prior learns which object: a pure, batched function that computes in float32.

    :data:`ladle.testing.ASSIGNER_LAWS` are the properties that every assigner must have.

    Examples:
        >>> from ladle.assigners import Assigner
        >>> from ladle.types import Assignment
        >>> def all_background(predictions, priors, truth):
        ...     return Assignment.empty(priors.valid.expand(len(truth.labels), -1))
        >>> isinstance(all_background, Assigner)  # any function with these three arguments
        True
    """

    def __call__(self, predictions: Predictions, priors: Priors, truth: GroundTruth, /) -> Assignment:
        """Return the plan for these predictions, without changing the inputs. Only soft plans may have a gradient."""
        ...


@runtime_checkable
class OverlapAssigner(Assigner, Protocol):
    """An assigner that compares the boxes of the priors with objects, and ignores predictions.

    In its judged form the boxes that a teacher predicts replace the boxes of the priors.

    Examples:
        >>> from ladle.assigners import ATSS, PAA, OverlapAssigner
        >>> isinstance(ATSS(), OverlapAssigner), isinstance(PAA(), OverlapAssigner)
        (True, False)
        >>> ATSS().judged_by_teacher(True, 0.0, False).boxes
        'predictions'
    """

    @property
    def boxes(self) -> Literal["priors", "predictions"]:
        """The boxes that are compared with objects: those of the ``priors``, or in the judged form ``predictions``."""
        ...

    def judged_by_teacher(self, keep_count: bool, class_power: float, ignore_rejected: bool, /) -> Assigner:
        """The judged form of this assigner.

        Args:
            keep_count: whether each object gets as many priors as without a teacher.
            class_power: overlaps are multiplied by this power of the teacher's score for the object's class.
            ignore_rejected: whether priors that are positive without a teacher, but not with it, are ignored instead of
                background.

        Raises:
            ValueError: for an option that this assigner does not have.
        """
        ...


@runtime_checkable
class SoftAssigner(Assigner, Protocol):
    """An assigner with which a prior learns several objects at once; it needs :class:`ladle.criteria.BagCriterion`.

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
    """An assigner that uses only the centers of priors: several anchors at one location are equal to it.

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
    """Whether an assigner uses predictions; all do except overlap assigners in their plain form."""
    return not isinstance(assigner, OverlapAssigner) or assigner.boxes == "predictions"


@dataclass(frozen=True)
class Evidence(Record):
    """The costs from which a prediction-aware assigner decides.

    Attributes:
        index: the object for which each prior is a candidate.
        cost: the cost of each prior for that object; lower is better, finite for candidates.
        candidate: the priors that are candidates.

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
    """An assigner in two steps, costs and decision, so that the costs of two networks can be compared in between.

    Examples:
        >>> from ladle.assigners import PAA, EvidenceAssigner, MaxIoU
        >>> isinstance(PAA(), EvidenceAssigner), isinstance(MaxIoU(), EvidenceAssigner)
        (True, False)
    """

    def weigh(self, predictions: Predictions, priors: Priors, truth: GroundTruth, /) -> Evidence:
        """Compute the cost of every candidate."""
        ...

    def select(self, evidence: Evidence, priors: Priors, truth: GroundTruth, /) -> Assignment:
        """Decide among the candidates."""
        ...


S = TypeVar("S")
R = TypeVar("R")


def full_precision(
    decide: Callable[[S, Predictions, Priors, GroundTruth], R],
) -> Callable[[S, Predictions, Priors, GroundTruth], R]:
    """Decorate an assigner's method to run in float32 and without gradient, whatever the network's dtype or autocast.

    Half precision would move costs across thresholds, differently on every device.
    """

    @wraps(decide)
    def method(self: S, predictions: Predictions, priors: Priors, truth: GroundTruth) -> R:
        with torch.no_grad(), torch.autocast(predictions.logits.device.type, enabled=False):
            return decide(self, predictions.map(Tensor.float), priors, truth)

    return method
