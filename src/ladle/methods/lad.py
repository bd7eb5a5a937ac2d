"""The parts of a method that are not distillers: assignment by the teacher, and training without ground truth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ladle.distillers.joining import Joinable

__all__ = ["LAD", "TeacherOnly"]


@dataclass(frozen=True)
class LAD(Joinable):
    """Label-assignment distillation: the assigner is given the teacher's predictions (Nguyen et al., WACV 2022).

    Args:
        stages: where the teacher judges: ``all``, the proposal network (``rpn``) or the region heads (``roi``).
        keep_count: for assigners that use the overlap of boxes: whether each object keeps the number of priors that it
            has without a teacher. Predicted boxes have a much larger IoU with objects than priors have, and nearly
            all of them would be above a fixed threshold.
        class_power: for the same assigners: power of the teacher's score for an object's class, by which overlaps are
            multiplied. By default 1 in region heads and 0 elsewhere: a region head refines nearly every proposal near
            an object into a good box, so that only the class score distinguishes them.
        until: last epoch in which the teacher judges; unlimited by default.
        after: epochs in which the student judges before the teacher does.

    Examples:
        >>> from ladle.distillers import SoftLabels
        >>> from ladle.methods import LAD
        >>> solad = LAD() + SoftLabels()
    """

    stages: Literal["all", "rpn", "roi"] = "all"
    keep_count: bool = True
    class_power: float | None = None
    until: float | None = None
    after: float = 0.0


@dataclass(frozen=True)
class TeacherOnly(Joinable):
    """No loss on ground truth: all losses are those of distillers.

    Examples:
        >>> from ladle.distillers import SoftLabels
        >>> from ladle.methods import TeacherOnly
        >>> soft_only = TeacherOnly() + SoftLabels(class_weight=10.0, least=0.1)
    """
