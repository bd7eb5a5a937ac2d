"""Methods by name: which lesson a detector of a family is taught, and who judges."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, NamedTuple

from ladle.criteria import DenseCriterion
from ladle.detectors import DetectorSpec
from ladle.distillers import SoftLabels
from ladle.objectives import Lesson
from ladle.recipes.lessons import judged_by_teacher, lesson_of

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


class Plan(NamedTuple):
    """What a student is taught, who judges, and what of the method is left out and why."""

    lesson: Lesson
    judge: Literal["student", "teacher"]
    skipped: tuple[str, ...] = ()


def plan_of(
    method: Method, student: DetectorSpec, teacher: DetectorSpec | None = None, assigner: str | None = None
) -> Plan:
    """The published form of ``method`` for a student, or that form under another assigner.

    LAD and SoLAD share PAA's box loss equally among positives, as the reference code of LAD does, where plain PAA
    weighs it by IoU; other detectors keep their losses. Soft labels alone use the weights of the released configuration
    without ground truth.

    Raises :class:`UserError` for an assigner that there is not, or that cannot work with this student.
    """
    home = lesson_of(student.family, assigner, edges=student.head.box == "distribution")
    if method == "plain":
        return Plan(home, "student")
    skipped: tuple[str, ...] = ()
    soft = SoftLabels(weight=10.0, least=0.1) if method == "soft-only" else SoftLabels()
    if teacher is None or student.family != teacher.family:
        said = f"{teacher.family if teacher else 'the teacher'} and {student.family}"
        soft = replace(soft, quality=0.0)
        skipped = (f"the quality branch: {said} mean different things by it",)
    if method == "soft":
        return Plan(replace(home, distillers=(soft,)), "student", skipped)
    if method == "soft-only":
        return Plan(Lesson(home.assign, None, (soft,)), "student", skipped)
    criterion = home.criterion
    if student.family == "paa" and isinstance(criterion, DenseCriterion):
        criterion = replace(criterion, share="count")
    lesson = Lesson(judged_by_teacher(home.assign), criterion, (soft,) if method == "solad" else ())
    return Plan(lesson, "teacher", skipped if method == "solad" else ())
