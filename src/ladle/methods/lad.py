"""The parts of a method that are no distillers: who assigns, and whether ground truth is learned."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ladle.distillers.joining import Joinable

__all__ = ["LAD", "TeacherOnly"]


@dataclass(frozen=True)
class LAD(Joinable):
    """Label-assignment distillation: the assigner is given the teacher's predictions (Nguyen et al., WACV 2022).

    Args:
        stages: in which stages of a detector: ``all``, the proposal network (``rpn``) or the region heads (``roi``).
        keep_count: for assigners that use the overlap of boxes: whether each object keeps the number of priors that it
            has without a teacher. Refined boxes overlap objects far better than priors do, and fixed thresholds would
            take them all.
        class_power: for the same assigners: power of the teacher's score for an object's class, by which overlaps are
            multiplied. By default 1 in region heads and 0 elsewhere: a region head refines nearly every proposal near
            an object into a good box, and only the class score tells which of them show it.
        until: last epoch in which the teacher judges; unlimited by default.

    Example:
        >>> from ladle.distillers import SoftLabels
        >>> from ladle.methods import LAD
        >>> solad = LAD() + SoftLabels()
    """

    stages: Literal["all", "rpn", "roi"] = "all"
    keep_count: bool = True
    class_power: float | None = None
    until: float | None = None


@dataclass(frozen=True)
class TeacherOnly(Joinable):
    """No loss on ground truth: the student learns from the distillers alone.

    Example:
        >>> from ladle.distillers import SoftLabels
        >>> from ladle.methods import TeacherOnly
        >>> soft_only = TeacherOnly() + SoftLabels(class_weight=10.0, least=0.1)
    """
