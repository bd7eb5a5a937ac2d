"""What one stage of a detector is taught."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from ladle.assigners import Assigner, RandomSampler
from ladle.distillers import Distiller, DistillerSpec
from ladle.types import Assignment, GroundTruth, Output, Term

__all__ = ["Criterion", "Lesson", "Scheduled", "is_over"]


@runtime_checkable
class Criterion(Protocol):
    """The losses of an output under an assignment."""

    def __call__(self, output: Output, truth: GroundTruth, assignment: Assignment, /) -> dict[str, Term]:
        """Terms by name, each still to be normalized."""
        ...


@dataclass(frozen=True)
class Scheduled:
    """A distiller with a weight on all of its terms and a time at which it works.

    Args:
        distil: what is taught.
        weight: of all its terms together, on top of their own.
        warmup: epochs over which the weight rises from 0.
        until: the epoch after which it ends; never by default. A teacher that nobody asks any more is not run.
        steps: optimizer steps over which the weight rises from 0, on top of the ``warmup``.
    """

    distil: Distiller | DistillerSpec
    weight: float = 1.0
    warmup: float = 0.0
    until: float | None = None
    steps: int = 0

    def strength(self, epoch: float, step: int) -> float:
        """The weight once ``epoch`` epochs, a fraction within an epoch, and ``step`` steps are done."""
        if self.until is not None and epoch > self.until:
            return 0.0
        risen = min(1.0, epoch / self.warmup if self.warmup else 1.0)
        return self.weight * risen * min(1.0, step / self.steps if self.steps else 1.0)


@dataclass(frozen=True)
class Lesson:
    """Which prior learns which object, what that costs, and what else the teacher teaches.

    Without a ``criterion`` the objects serve the distillers alone: learning from the teacher without ground truth. A
    distiller works all the time, or when its :class:`Scheduled` says. ``sampler`` draws a few priors of the plan, as
    detectors in two stages do. ``afterwards`` is the rule once a teacher no longer judges, if it differs.
    """

    assign: Assigner
    criterion: Criterion | None
    distillers: tuple[Distiller | DistillerSpec | Scheduled, ...] = ()
    sampler: RandomSampler | None = None
    afterwards: Assigner | None = None

    def rule(self, over: bool) -> Assigner:
        """The assigner, or the one for when a teacher's judging is ``over``."""
        return self.afterwards if over and self.afterwards is not None else self.assign


def is_over(until: float | None, epoch: float | None) -> bool:
    """Whether a teacher has stopped judging; raises ValueError where nobody has told the time."""
    if until is None:
        return False
    if epoch is None:
        raise ValueError(
            "the teacher stops judging at some time: tell the objective the time, objective.set_time(epoch, step)"
        )
    return epoch > until
