"""What a student is taught, stage by stage, and who judges: made out of a method's words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, cast

from ladle.assigners import Assigner, OverlapAssigner
from ladle.detectors import DenseSpec, DetectorSpec
from ladle.distillers import Distiller, DistillerSpec, Outline, Outlined, Voice
from ladle.errors import UserError
from ladle.families import family_of, lessons_of
from ladle.objectives import Lesson, Scheduled, stage_names
from ladle.recipes.assigners import assigner_named
from ladle.recipes.methods import JUDGED, RISES, Times, distiller_of, parts_of

__all__ = ["Judging", "Plan", "plan_of"]

Judge = Literal["student", "teacher"]


@dataclass(frozen=True)
class Judging:
    """How a teacher judges: ``keep_count`` and ``class_power`` of rules of overlap, and until after which epoch.

    By default the teacher's class scores count in region heads, with power 1, and nowhere else.
    """

    keep_count: bool = True
    class_power: float | None = None
    until: float | None = None


class Plan(NamedTuple):
    """A lesson and a judge for each stage, what is taught term by term, and what is left out and why.

    ``features_only`` says that nothing but the teacher's feature maps is needed, ``aligned`` that it must predict at
    the student's own anchors.
    """

    lessons: tuple[Lesson, ...]
    judges: tuple[Judge, ...]
    teaches: dict[str, str]
    skipped: tuple[str, ...] = ()
    features_only: bool = False
    aligned: bool = False

    @property
    def lesson(self) -> Lesson:
        """The lesson of the first stage, of most detectors the only one."""
        return self.lessons[0]

    @property
    def judge(self) -> Judge:
        """Who judges the first stage."""
        return self.judges[0]


def plan_of(
    method: str,
    student: DetectorSpec,
    teacher: DetectorSpec | None = None,
    assigner: str | None = None,
    times: Times | None = None,
    judging: Judging = Judging(),
) -> Plan:
    """The published form of ``method`` for a student, or that form under another assigner.

    LAD shares PAA's box loss equally among positives, as its reference code does, where plain PAA weighs it by IoU;
    other detectors keep their losses. Soft labels alone use the weights of the released configuration without ground
    truth. Distillers take the settings that were released for the student's family.

    Raises :class:`UserError` for a method or an assigner that there is not, or that cannot work with these two.
    """
    words = parts_of(method)
    lessons = lessons_of(student, assigner_named(assigner) if assigner is not None else None)
    if words == ("plain",):
        return Plan(lessons, _students(lessons), {})
    if teacher is None:
        raise UserError(f"--method {method} needs a teacher: give --teacher runs/train/NAME/weights/best.safetensors")
    if words == ("soft-only",):
        lessons = tuple(replace(lesson, criterion=None) for lesson in lessons)
    judges = _judges(method, words, student, teacher)
    lessons = tuple(
        _judged(lesson, student, judging, stage) if judge == "teacher" else lesson
        for stage, (lesson, judge) in enumerate(zip(lessons, judges, strict=True))
    )
    _check_judging(
        method, judging, [rule.assign for rule, who in zip(lessons, judges, strict=True) if who == "teacher"]
    )
    plan = Plan(lessons, judges, {}, features_only="teacher" not in judges, aligned=judges[0] == "teacher")
    for word in words:
        if word not in JUDGED:
            plan = _with(plan, word, method, student, teacher, times or {})
    return plan


def _judges(method: str, words: tuple[str, ...], student: DetectorSpec, teacher: DetectorSpec) -> tuple[Judge, ...]:
    """Who judges each stage."""
    word = next((word for word in words if word in JUDGED), None)
    if word is None:
        return _students((None, *student.regions))
    if not student.regions:
        if word != "lad":
            raise UserError(f"--method {method}: {student.name} has one stage only; say lad")
        return ("teacher",)
    if "roi" in JUDGED[word] and not teacher.regions:
        raise UserError(
            f"--method {method}: the teacher {teacher.name} has one stage, so it cannot judge what {student.name} "
            "proposes; take lad-rpn, or a teacher in two stages"
        )
    first: Judge = "teacher" if "rpn" in JUDGED[word] else "student"
    later: Judge = "teacher" if "roi" in JUDGED[word] else "student"
    return (first, *(later for _ in student.regions))


def _check_judging(method: str, judging: Judging, rules: Sequence[Assigner]) -> None:
    """Refuse numbers of judging that make no sense, and what would change nothing."""
    usual, names = Judging(), ", ".join(type(rule).__name__ for rule in rules)
    for flag, number in (("class_power", judging.class_power), ("judge_until", judging.until)):
        if number is not None and not 0 <= number < float("inf"):
            raise UserError(f"--{flag} {number}: expected a number of 0 or more")
    if judging != usual and not rules:
        raise UserError(
            f"--method {method}: the teacher judges nothing, so leave out --keep_count, --class_power and "
            "--judge_until, or add lad"
        )
    for flag in ("keep_count", "class_power"):
        if getattr(judging, flag) != getattr(usual, flag) and not any(
            isinstance(one, OverlapAssigner) for one in rules
        ):
            raise UserError(f"--{flag} {getattr(judging, flag)}: {names} does not use it; leave it out")


def _students(stages: Sequence[object]) -> tuple[Judge, ...]:
    nobody: Judge = "student"
    return tuple(nobody for _ in stages)


def _judged(lesson: Lesson, student: DetectorSpec, judging: Judging, stage: int) -> Lesson:
    """The lesson of a stage that the teacher judges.

    A region head refines nearly every proposal near an object into a good box. Which of them *show* the object only the
    teacher's class scores tell, so there they count, and what is turned down is ignored.
    """
    power = judging.class_power if judging.class_power is not None else float(stage > 0)
    rule, criterion = lesson.assign, family_of(student).judged(lesson.criterion)
    if not isinstance(rule, OverlapAssigner):
        return replace(lesson, criterion=criterion)
    try:
        judged = rule.judged_by_teacher(judging.keep_count, power, stage > 0)
    except ValueError as error:
        raise UserError(str(error)) from None
    return replace(lesson, assign=judged, criterion=criterion, afterwards=rule)


def _with(plan: Plan, word: str, method: str, student: DetectorSpec, teacher: DetectorSpec, times: Times) -> Plan:
    """The plan with one more distiller: of features once, of predictions in every stage that both have."""
    chosen = distiller_of(word, student, teacher)
    stages = range(len(plan.lessons) if chosen.every_stage else 1)
    names = stage_names(len(plan.lessons)) if len(plan.lessons) > 1 else [""]
    given: dict[str, str] = {}
    skips, lessons = plan.skipped, list(plan.lessons)
    for stage in stages:
        if stage and not teacher.regions:
            skips = (*skips, f"{word} in {names[stage]}: the teacher has one stage")
            continue
        outline, distil = _outlined(word, chosen, student, teacher, stage)
        one = _timed(word, distil, times)
        skips = (*skips, *(skip for skip in outline.skips if skip not in skips))
        given |= {f"{names[stage]}/{term}".lstrip("/"): what + _when(one) for term, what in outline.teaches.items()}
        kept = (*lessons[stage].distillers, distil if one == Scheduled(distil) else one)
        lessons[stage] = replace(lessons[stage], distillers=kept)
    twice = plan.teaches.keys() & given.keys()
    if twice:
        raise UserError(f"--method {method}: {word} teaches {', '.join(sorted(twice))}, which another part teaches too")
    return plan._replace(
        lessons=tuple(lessons),
        teaches=plan.teaches | given,
        skipped=skips,
        features_only=plan.features_only and chosen.features_only,
        aligned=plan.aligned or not chosen.features_only,
    )


def _outlined(
    word: str, distil: Outlined, student: DetectorSpec, teacher: DetectorSpec, stage: int
) -> tuple[Outline, Distiller | DistillerSpec]:
    """What a distiller will teach a stage, and the distiller that does."""
    try:
        outline = distil.outline(_voice(student, stage), _voice(teacher, stage))
    except ValueError as error:
        raise UserError(f"--method {word}: {error}") from None
    if not outline.teaches:
        raise UserError(f"--method {word} would teach nothing: {'; '.join(outline.skips)}; leave it out")
    return outline, outline.instead or cast("Distiller | DistillerSpec", distil)


def _timed(word: str, distil: Distiller | DistillerSpec, times: Times) -> Scheduled:
    """The distiller with the weight and the times that were asked for, and its own rise where none was."""
    said = times.get(word, {})
    return Scheduled(distil, **said, steps=0 if "warmup" in said else RISES.get(word, 0))


def _when(one: Scheduled) -> str:
    """The weight and the time of a distiller in words; nothing where they are the usual."""
    said = [f"weight {one.weight:g}"] if one.weight != 1 else []
    said += [f"rising over {one.warmup:g} epochs"] if one.warmup else []
    said += [f"rising over the first {one.steps} steps"] if one.steps else []
    said += [f"until epoch {one.until:g}"] if one.until is not None else []
    return f" ({', '.join(said)})" if said else ""


def _voice(spec: DetectorSpec, stage: int) -> Voice:
    """What a stage of a detector is like; a proposal network knows one class."""
    head, classes = spec.head, 1 if spec.regions and not stage else len(spec.classes)
    if not isinstance(head, DenseSpec):
        return Voice(spec.pyramid, classes, bins=0, quality=None, depth=0, width=head.width)
    bins = head.bins if head.box == "distribution" else 0
    quality = family_of(spec).quality if head.quality else None
    return Voice(spec.pyramid, classes, bins, quality, head.depth, head.width)
