"""Methods by name: which lesson a detector of a family is taught, and who judges."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, NamedTuple

from ladle.assigners import ATSS, PAA, EvidenceAssigner, MaxIoU
from ladle.criteria import DenseCriterion
from ladle.distillers import SoftLabels
from ladle.errors import UserError
from ladle.objectives import Lesson

__all__ = ["METHODS", "Distilled", "Method", "Plan", "plan_of"]

Method = Literal["plain", "soft", "soft-only", "lad", "solad"]
Distilled = Literal["soft", "soft-only", "lad", "solad"]
"""The methods that need a teacher."""

METHODS: dict[Method, str] = {
    "plain": "ground truth, assigned by the student",
    "soft": "plain training, and the teacher's scores, qualities and boxes as soft labels",
    "soft-only": "the teacher's soft labels alone",
    "lad": "ground truth, assigned by the teacher",
    "solad": "ground truth, assigned by the teacher, and its soft labels",
}
"""What each method teaches."""

_HOME = {
    "retinanet": Lesson(
        MaxIoU(0.5, 0.4), DenseCriterion(box="l1", box_weight=1.0, share="count", quality=None, floor="image")
    ),
    "atss": Lesson(ATSS(), DenseCriterion(box_weight=2.0, quality="centerness", quality_weight=1.0, floor="image")),
    "paa": Lesson(PAA(), DenseCriterion()),
}


class Plan(NamedTuple):
    """What a student is taught, who judges, and what of the method is left out and why."""

    lesson: Lesson
    judge: Literal["student", "teacher"]
    skipped: tuple[str, ...] = ()


def plan_of(method: Method, family: str, teacher_family: str | None = None) -> Plan:
    """The published form of ``method`` for a student of ``family``.

    LAD and SoLAD share the box loss equally among positives, as the reference code of LAD does, where plain PAA weighs
    it by IoU. Soft labels alone use the weights of the released configuration without ground truth.

    Raises :class:`UserError` where the student's assigner looks at no predictions: a teacher could not judge.
    """
    home = _HOME[family]
    if method == "plain":
        return Plan(home, "student")
    skipped: tuple[str, ...] = ()
    soft = SoftLabels(weight=10.0, least=0.1) if method == "soft-only" else SoftLabels()
    if family != teacher_family:
        soft = replace(soft, quality=0.0)
        skipped = (f"the quality branch: {teacher_family} and {family} mean different things by it",)
    if method == "soft":
        return Plan(replace(home, distillers=(soft,)), "student", skipped)
    if method == "soft-only":
        return Plan(Lesson(home.assign, None, (soft,)), "student", skipped)
    if not isinstance(home.assign, EvidenceAssigner):
        raise UserError(
            f"--method {method}: {type(home.assign).__name__}, the assigner of {family}, looks at no predictions, so a "
            "teacher cannot judge; distil a paa-* student, or take --method soft"
        )
    criterion = home.criterion
    if isinstance(criterion, DenseCriterion):
        criterion = replace(criterion, share="count")
    lesson = Lesson(home.assign, criterion, (soft,) if method == "solad" else ())
    return Plan(lesson, "teacher", skipped if method == "solad" else ())
