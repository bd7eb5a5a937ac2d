"""One training step: plain training, soft labels, label-assignment distillation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from ladle.objectives.lesson import Lesson
from ladle.teachers import Teacher
from ladle.types import Assignment, Batch, GroundTruth, Term

__all__ = ["Supervised"]


class Supervised(nn.Module):
    """A student taught by ground truth, with an assigner that listens to the student or to its teacher.

    ``judge="teacher"`` *is* label-assignment distillation (LAD, Nguyen et al. 2022): the assigner is handed the
    teacher's predictions, nothing else changes. Adding :class:`~ladle.distillers.SoftLabels` gives SoLAD; soft labels
    with ``judge="student"`` are the classic kind.

    The teacher is no part of this module: it is absent from parameters, state dict and data-parallel wrappers.
    """

    def __init__(
        self,
        student: nn.Module,
        lessons: Sequence[Lesson],
        teacher: Teacher | None = None,
        judge: Literal["student", "teacher"] = "student",
    ) -> None:
        """Take one lesson per stage of the student; raises ValueError where a teacher is needed and missing."""
        super().__init__()
        needs = judge == "teacher" or any(lesson.distillers for lesson in lessons)
        if needs and teacher is None:
            raise ValueError("a teacher that judges or is imitated must be given; pass teacher=FrozenDetector(...)")
        self.student = student
        self.lessons = tuple(lessons)
        self.teacher = teacher
        self.judge = judge
        self.monitor: dict[str, Tensor] = {}

    def forward(self, batch: Batch) -> dict[str, Term]:
        """The terms of one batch; ``monitor`` then holds how many positives an object has on average."""
        student = self.student(batch.images, batch.sizes, batch.truth)
        teacher = student
        if self.teacher is not None:
            teacher = self.teacher(batch.images, batch.sizes, [output.priors for output in student])
        judges = teacher if self.judge == "teacher" else student
        terms: dict[str, Term] = {}
        for lesson, own, judge, guide in zip(self.lessons, student, judges, teacher, strict=True):
            assignment = lesson.assign(judge.predictions, own.priors, batch.truth)
            if lesson.criterion is not None:
                terms |= lesson.criterion(own, batch.truth, assignment)
            for distil in lesson.distillers:
                terms |= distil(own, guide, batch.truth, assignment)
            self.monitor = {"positives_per_object": _positives_per_object(assignment, batch.truth)}
        return terms


@torch.no_grad()
def _positives_per_object(assignment: Assignment, truth: GroundTruth) -> Tensor:
    return assignment.positive.sum() / truth.learnable.sum().clamp(min=1)
