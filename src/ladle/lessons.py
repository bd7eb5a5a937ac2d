"""A lesson: how one stage of a detector is trained, as a value."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, Protocol, runtime_checkable

from ladle.assigners import Assigner, OverlapAssigner
from ladle.assigners.sampling import RandomSampler
from ladle.distillers import Distiller, Joinable
from ladle.types import Assignment, GroundTruth, Output, Term

__all__ = ["Criterion", "Lesson", "OneToOne", "Scheduled", "TeacherJudges", "Time"]

Time = tuple[float, int]
"""The progress of a run: the epochs done so far, fractions included, and the optimizer steps."""


@runtime_checkable
class Criterion(Protocol):
    """The losses of an output under an assignment.

    Examples:
        >>> from ladle.lessons import Criterion
        >>> from ladle.types import Term
        >>> def mean_score(output, truth, assignment):
        ...     scores = output.predictions.scores
        ...     return {"class": Term(scores.sum(), scores.new_tensor(scores.numel()), scores.new_zeros(()))}
        >>> isinstance(mean_score, Criterion)
        True
    """

    def __call__(self, output: Output, truth: GroundTruth, assignment: Assignment, /) -> dict[str, Term]:
        """Terms by name, each still to be divided by its count."""
        ...


@dataclass(frozen=True)
class Scheduled(Joinable):
    """A distiller with a loss weight on all of its terms and a schedule.

    Args:
        distiller: the distiller.
        weight: factor on all its terms, multiplied with their loss weights; with ``auto`` it follows the ratio of
            gradient norms, see :class:`~ladle.engine.weighing.GradientWeight`.
        warmup: epochs over which the factor rises from 0.
        until: last epoch in which it is active; unlimited by default. The teacher is not run once no distiller is
            active.
        warmup_steps: optimizer steps over which the factor rises from 0, on top of ``warmup``.

    Examples:
        >>> from ladle.distillers import PKD
        >>> from ladle.lessons import Scheduled
        >>> Scheduled(PKD(), weight=0.5, warmup=2).strength((1.0, 100))
        0.25
    """

    distiller: Distiller
    weight: float | Literal["auto"] = 1.0
    warmup: float = 0.0
    until: float | None = None
    warmup_steps: int = 0

    def __post_init__(self) -> None:
        """Raise ValueError for another word than ``auto``, a warm-up that it would undo, and an end at the start."""
        if isinstance(self.weight, str) and self.weight != "auto":
            raise ValueError(f"weight takes a number or 'auto', found {self.weight!r}")
        if self.weight == "auto" and (self.warmup or self.warmup_steps):
            raise ValueError("a weight 'auto' follows the gradients from the first steps: leave the warm-up out")
        if self.until is not None and self.until <= 0:
            raise ValueError(f"until {self.until:g}: the distiller would never act; leave the distiller out")

    @property
    def changes(self) -> bool:
        """Whether the factor depends on the time."""
        return bool(self.warmup or self.warmup_steps) or self.until is not None

    def strength(self, time: Time) -> float:
        """The factor on all terms at a time."""
        epoch, step = time
        if self.until is not None and epoch > self.until:
            return 0.0
        risen = min(1.0, epoch / self.warmup) if self.warmup else 1.0
        return (
            (1.0 if self.weight == "auto" else self.weight)
            * risen
            * (min(1.0, step / self.warmup_steps) if self.warmup_steps else 1.0)
        )


@dataclass(frozen=True)
class TeacherJudges:
    """The assigner is given the teacher's predictions instead of the student's: label-assignment distillation.

    Args:
        keep_count: for assigners that use the overlap of boxes: whether each object keeps the number of priors that it
            has without a teacher.
        class_power: for the same assigners: power of the teacher's score for an object's class, by which overlaps are
            multiplied.
        ignore_rejected: for MaxIoU: whether a prior that would be positive without a teacher, and is not with one, is
            ignored; otherwise it is background.
        until: last epoch in which the teacher judges; unlimited by default.
        after: epochs in which the student judges before the teacher does.
    """

    keep_count: bool = True
    class_power: float = 0.0
    ignore_rejected: bool = False
    until: float | None = None
    after: float = 0.0

    def active(self, time: Time | None) -> bool:
        """Whether the teacher judges at a time; raises ValueError if that depends on the time and ``time`` is None."""
        if self.until is None and not self.after:
            return True
        if time is None:
            raise ValueError("the teacher judges in some epochs: call objective.set_time(epoch, step) before a step")
        return time[0] > self.after and (self.until is None or time[0] <= self.until)

    def assigner(self, plain: Assigner) -> Assigner:
        """The form of an assigner for the teacher's predictions."""
        if isinstance(plain, OverlapAssigner):
            return plain.judged_by_teacher(self.keep_count, self.class_power, self.ignore_rejected)
        return plain


@dataclass(frozen=True)
class OneToOne:
    """The lesson of a one-to-one head, and the loss weight of the one-to-many head beside it.

    The weight is a factor on the losses on ground truth; it changes linearly from 1 to ``last`` over the run. By
    default it stays 1 and both heads train backbone and neck. ``OneToOne(lesson, detached=True)`` is the published
    form (YOLOv10, Wang et al. 2024).

    Args:
        lesson: assigner and losses of the one-to-one head.
        last: the factor at the end of the run.
        epochs: the epochs of the run; with None the factor is 1.
        detached: whether the one-to-one head gets the feature maps without gradient.

    Examples:
        >>> from ladle.assigners import TaskAligned
        >>> from ladle.criteria import DenseCriterion
        >>> from ladle.lessons import Lesson, OneToOne
        >>> one = OneToOne(Lesson(TaskAligned().one_to_one, DenseCriterion()), last=0.25, epochs=12)
        >>> [one.weight_of_many((epoch, 0)) for epoch in (0, 6, 12)]
        [1.0, 0.625, 0.25]
    """

    lesson: Lesson
    last: float = 1.0
    epochs: float | None = None
    detached: bool = False

    def weight_of_many(self, time: Time | None) -> float:
        """The factor at a time; raises ValueError if it depends on the time and ``time`` is None."""
        if self.epochs is None:
            return 1.0
        if time is None:
            raise ValueError("a loss weight falls: call objective.set_time(epoch, step) before every step")
        return 1 + (self.last - 1) * min(1.0, time[0] / self.epochs)


@dataclass(frozen=True)
class Lesson:
    """Assigner, losses and distillers of one stage.

    A lesson decides which prior is trained on which object, with which losses, and what the teacher adds.

    Args:
        assigner: assigns objects to priors.
        criterion: the losses under that assignment. With None there are no losses on ground truth; the assignment is
            then for the distillers only.
        distillers: distillers, in the whole run or :class:`Scheduled`.
        sampler: samples some of the assigned priors, as detectors with region heads need it.
        judge: None if the assigner is given the student's predictions, otherwise how the teacher judges.
        closing: the criterion of the closing epochs in place of ``criterion``; None if there is no other.
        closes: last epoch before the closing ones; None if there are none.
        one_to_one: the lesson of a one-to-one head beside the stage; None if there is no such head.

    Examples:
        LAD with soft labels, in its published form for PAA:

        >>> from ladle.assigners import PAA
        >>> from ladle.criteria import DenseCriterion
        >>> from ladle.distillers import SoftLabels
        >>> from ladle.lessons import Lesson, TeacherJudges
        >>> solad = Lesson(PAA(), DenseCriterion(share="count"), (SoftLabels(),), judge=TeacherJudges())
    """

    assigner: Assigner
    criterion: Criterion | None
    distillers: tuple[Distiller | Scheduled, ...] = ()
    sampler: RandomSampler | None = None
    judge: TeacherJudges | None = None
    closing: Criterion | None = None
    closes: float | None = None
    one_to_one: OneToOne | None = None

    def within(self, epochs: float, closing: float = 0) -> Lesson:
        """The lesson in a run of ``epochs``, of which the last ``closing`` have the closing criterion."""
        one = self.one_to_one
        if one is not None:
            one = replace(one, lesson=one.lesson.within(epochs, closing), epochs=epochs)
        return replace(self, closes=epochs - closing if closing else None, one_to_one=one)

    def weight_at(self, time: Time | None) -> float:
        """The factor on the losses on ground truth at a time: 1 unless there is a one-to-one head."""
        return 1.0 if self.one_to_one is None else self.one_to_one.weight_of_many(time)

    def criterion_at(self, time: Time | None) -> Criterion | None:
        """The losses on ground truth at a time; raises ValueError if they depend on the time and ``time`` is None."""
        if self.criterion is None or self.closing is None or self.closes is None:
            return self.criterion
        if time is None:
            raise ValueError("the losses change with the epoch: call objective.set_time(epoch, step) before a step")
        return self.closing if time[0] > self.closes else self.criterion

    def teacher_judges(self, time: Time | None) -> bool:
        """Whether the assigner is given the teacher's predictions at a time."""
        return self.judge is not None and self.judge.active(time)

    def assigner_at(self, time: Time | None) -> Assigner:
        """The assigner at a time, in the form for the network that judges then."""
        return self._judged_assigner if self.teacher_judges(time) else self.assigner

    @cached_property
    def _judged_assigner(self) -> Assigner:
        """The same object at every time, so that what is kept for an assigner is found again."""
        return self.assigner if self.judge is None else self.judge.assigner(self.assigner)
