"""Methods by name: which lesson a detector of a family is taught, and who judges."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, NamedTuple

from ladle.criteria import DenseCriterion
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


def plan_of(method: Method, family: str, teacher_family: str | None = None, assigner: str | None = None) -> Plan:
    """The published form of ``method`` for a student of ``family``, or that form under another assigner.

    LAD and SoLAD share PAA's box loss equally among positives, as the reference code of LAD does, where plain PAA
    weighs it by IoU; other detectors keep their losses. Soft labels alone use the weights of the released configuration
    without ground truth.

    Raises :class:`UserError` for an assigner that there is not, or that cannot work with this family.
    """
    home = lesson_of(family, assigner)
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
    criterion = home.criterion
    if family == "paa" and isinstance(criterion, DenseCriterion):
        criterion = replace(criterion, share="count")
    lesson = Lesson(judged_by_teacher(home.assign), criterion, (soft,) if method == "solad" else ())
    return Plan(lesson, "teacher", skipped if method == "solad" else ())
