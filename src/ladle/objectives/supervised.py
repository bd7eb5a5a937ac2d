"""One training step: plain training, every kind of distillation, label-assignment distillation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ladle.objectives.lesson import Lesson, is_over
from ladle.objectives.teaching import DistillationLosses, StageDistillation, joined, named
from ladle.teachers import Teacher
from ladle.types import Assignment, Batch, GroundTruth, Output, Term

__all__ = ["Supervised", "positives_per_object"]


class Supervised(nn.Module):
    """A student taught by ground truth, with an assigner that listens to the student or to its teacher.

    ``judge="teacher"`` *is* label-assignment distillation (LAD, Nguyen et al. 2022): the assigner is handed the
    teacher's predictions, nothing else changes. Adding :class:`~ladle.distillers.SoftLabels` gives SoLAD; soft labels
    with ``judge="student"`` are the classic kind. Distillers add up.

    The teacher is no part of this module: it is absent from parameters, state dict and data-parallel wrappers. What
    distillers train of their own is a part of it, and none of the student.

    The losses of a student in one stage are called ``class``, ``box`` and so on. Those of several stages never share a
    name: they are called ``stage_1/class``, ``stage_2/class`` and so on.
    """

    def __init__(
        self,
        student: nn.Module,
        lessons: Sequence[Lesson],
        teacher: Teacher | None = None,
        judge: Literal["student", "teacher"] = "student",
        judge_until: float | None = None,
    ) -> None:
        """Take one lesson per stage of the student; raises ValueError where a teacher is needed and missing.

        ``judge_until`` is the epoch after which a student that was judged by its teacher judges itself.
        """
        super().__init__()
        needs = judge == "teacher" or any(lesson.distillers for lesson in lessons)
        if needs and teacher is None:
            raise ValueError("a teacher that judges or is imitated must be given; pass teacher=FrozenDetector(...)")
        self.student = student
        self.lessons = tuple(lessons)
        self.teacher = teacher
        self.judge = judge
        self.judge_until = judge_until
        self.epoch: float | None = None
        every = (StageDistillation(lesson, student, teacher) for lesson in lessons)
        self.teachings = DistillationLosses(every, _names(len(self.lessons)))
        self.monitor: dict[str, Tensor] = {}

    def forward(self, batch: Batch) -> dict[str, Term]:
        """The terms of one batch; ``monitor`` then holds how many positives an object has on average."""
        student = self.student(batch.images, batch.sizes, batch.truth, **self._deep(0))
        teacher = self._asked(batch, student)
        over = is_over(self.judge_until, self.epoch)
        judges = teacher if self.judge == "teacher" and not over else student
        terms: dict[str, Term] = {}
        parts = zip(self.teachings.names, self.lessons, self.teachings, student, judges, teacher, strict=True)
        for name, lesson, teaching, own, judge, guide in parts:
            assignment = lesson.rule(over)(judge.predictions, own.priors, batch.truth)
            found = lesson.criterion(own, batch.truth, assignment) if lesson.criterion is not None else {}
            found = joined(found, teaching(own, guide, batch.truth, assignment))
            terms = joined(terms, named(name, found))
            self.monitor |= named(name, {"positives_per_object": positives_per_object(assignment, batch.truth)})
        return self.teachings.kept_in_graph(terms)

    def set_time(self, epoch: float, step: int) -> None:
        """Say how many epochs, or a fraction, and how many steps are done: judges and distillers come and go."""
        self.epoch = epoch
        self.teachings.set_time(epoch, step)

    @property
    def distilled(self) -> frozenset[str]:
        """The terms that distillers gave in the last batch."""
        return self.teachings.distilled

    @property
    def students(self) -> dict[str, nn.Module]:
        """The network that is evaluated and saved."""
        return {"student": self.student}

    def _asked(self, batch: Batch, student: list[Output]) -> list[Output]:
        """What the teacher says; the student's own outputs where nobody listens to a teacher at this time."""
        judged = self.judge == "teacher" and not is_over(self.judge_until, self.epoch)
        heard = judged or self.teachings.active
        if self.teacher is None or not heard:
            return student
        return self.teacher(batch.images, batch.sizes, [output.priors for output in student], **self._deep(1))

    def _deep(self, network: int) -> dict[str, Any]:
        """How deep in its towers a network must show itself: nothing, where nobody asks, as most networks cannot."""
        depths = [teaching.inside for teaching in self.teachings if teaching.inside is not None]
        return {"inside": depths[-1][network]} if depths else {}


def _names(stages: int) -> tuple[str, ...]:
    """What the losses of each stage begin with: nothing where there is one stage."""
    return ("",) if stages == 1 else tuple(f"stage_{number}" for number in range(1, stages + 1))


@torch.no_grad()
def positives_per_object(assignment: Assignment, truth: GroundTruth) -> Tensor:
    """How many priors learn an object, on average over the objects of a batch."""
    return assignment.positive.sum() / truth.learnable.sum().clamp(min=1)
