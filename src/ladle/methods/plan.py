"""The plan of a training: a method applied to the published lessons of a student, stage by stage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple, cast

from ladle.assigners import Assigner, OverlapAssigner
from ladle.detectors import DetectorSpec
from ladle.distillers import Distiller, Method, Summary
from ladle.errors import UserError
from ladle.families import Family, lessons_of
from ladle.lessons import Criterion, Lesson, Scheduled, TeacherJudges
from ladle.methods.lad import LAD, TeacherOnly
from ladle.methods.words import Pair, method_of_words, pair_of, part_name, pieces_of
from ladle.networks import NetworkInfo
from ladle.objectives import stage_names

__all__ = ["Plan", "plan_for", "plan_of"]


class Plan(NamedTuple):
    """The lessons of a student, a description of each term, and which terms are left out and why.

    ``features_only``: only the teacher's feature maps are needed. ``aligned``: the teacher must predict at the
    student's priors. ``moved``: it has others, and its predictions are moved to them. ``weighed``: the terms whose
    weight follows the gradients.
    """

    lessons: tuple[Lesson, ...]
    teaches: dict[str, str]
    skipped: tuple[str, ...] = ()
    features_only: bool = False
    aligned: bool = False
    moved: bool = False
    weighed: tuple[str, ...] = ()


def plan_of(method: Method, lessons: tuple[Lesson, ...], pair: Pair | None = None, name: str = "") -> Plan:
    """Apply a method to the lessons of a student.

    Args:
        method: the distillation method.
        lessons: the student's lessons without a teacher, one for each stage.
        pair: the student and its teacher; None for plain training.
        name: the method's name in messages.

    Raises:
        UserError: if the method does not work with these networks, or if a part would have no effect.

    Examples:
        >>> from ladle.distillers import Method
        >>> from ladle.families import detector_spec, lessons_of
        >>> from ladle.methods import LAD, pair_of, plan_of
        >>> spec = detector_spec("paa-tiny", ["cat"])
        >>> plan_of(Method((LAD(),)), lessons_of(spec), pair_of(spec, spec)).lessons[0].judge
        TeacherJudges(keep_count=True, class_power=0.0, ignore_rejected=False, until=None, after=0.0)
    """
    if not method.parts:
        return Plan(lessons, {})
    name = name or "+".join(map(part_name, method.parts))
    if pair is None:
        raise UserError(f"--method {name} needs a teacher: give --teacher runs/train/NAME/weights/best.safetensors")
    try:
        pieces = [(part_name(part), piece) for part in method.parts for piece in pieces_of(part, pair)]
    except UserError:
        raise
    except ValueError as error:  # published settings of a part may depend on predictions that a teacher has not
        raise UserError(f"--method {name}: {error}") from None
    if any(isinstance(piece, TeacherOnly) for _, piece in pieces):
        lessons = tuple(replace(lesson, criterion=None) for lesson in lessons)
    judging = [piece for _, piece in pieces if isinstance(piece, LAD)]
    if len(judging) > 1:
        raise UserError(f"--method {name}: the teacher can judge in one way only, so give one LAD")
    for lad in judging:
        lessons = _judged(name, lad, lessons, pair)
    plan = Plan(lessons, {}, (), features_only=not judging, aligned=lessons[0].judge is not None)
    for word, piece in pieces:
        if not isinstance(piece, LAD | TeacherOnly):
            scheduled = piece if isinstance(piece, Scheduled) else Scheduled(cast("Distiller", piece))
            plan = _with(plan, scheduled, word, name, pair)
    return plan


def _judged(name: str, judging: LAD, lessons: tuple[Lesson, ...], pair: Pair) -> tuple[Lesson, ...]:
    """The lessons with a judging teacher in the stages of ``judging``."""
    student, teacher = pair.student, pair.teacher
    if not teacher.stages:
        raise UserError(
            f"--method {name}: the teacher {teacher.name} gives feature maps only, so it cannot judge; take pkd, cwd, "
            "mgd or another method that compares feature maps"
        )
    if judging.stages != "all" and len(lessons) == 1:
        raise UserError(f"--method {name}: {student.name} has one stage only; say lad")
    if judging.stages != "rpn" and len(lessons) > 1 and len(teacher.stages) == 1:
        raise UserError(
            f"--method {name}: the teacher {teacher.name} has one stage, so it cannot judge what {student.name} "
            "proposes; take lad-rpn, or a teacher in two stages"
        )
    stages = {"all": range(len(lessons)), "rpn": range(1), "roi": range(1, len(lessons))}[judging.stages]
    _check(judging, [lessons[stage] for stage in stages])
    try:
        return tuple(_lesson(one, judging, n, pair.family) if n in stages else one for n, one in enumerate(lessons))
    except ValueError as error:
        raise UserError(str(error)) from None


def _lesson(lesson: Lesson, judging: LAD, stage: int, family: Family | None) -> Lesson:
    """A lesson in which the teacher judges; raises ValueError if its assigner has no such form.

    A region head refines nearly every proposal near an object into a good box. In its lesson IoUs are therefore
    multiplied by the teacher's class scores, and priors that the teacher rejects are ignored.
    """
    power = judging.class_power if judging.class_power is not None else float(stage > 0)
    judge = TeacherJudges(
        judging.keep_count, power, ignore_rejected=stage > 0, until=judging.until, after=judging.after
    )
    judge.assigner(lesson.assigner)
    criterion = family.judged(lesson.criterion) if family is not None else lesson.criterion
    return replace(lesson, judge=judge, criterion=criterion)


def _check(judging: LAD, lessons: Sequence[Lesson]) -> None:
    """Raise :class:`UserError` for negative or infinite numbers, and for options that no assigner uses."""
    numbers = {"class_power": judging.class_power, "judge_until": judging.until, "judge_after": judging.after}
    for flag, number in numbers.items():
        if number is not None and not 0 <= number < float("inf"):
            raise UserError(f"--{flag} {number}: expected a number of 0 or more")
    names, usual = ", ".join(type(lesson.assigner).__name__ for lesson in lessons), LAD()
    for flag in ("keep_count", "class_power"):
        used = any(isinstance(lesson.assigner, OverlapAssigner) for lesson in lessons)
        if getattr(judging, flag) != getattr(usual, flag) and not used:
            raise UserError(f"--{flag} {getattr(judging, flag)}: {names} does not use it; leave it out")


def _with(plan: Plan, part: Scheduled, name: str, method: str, pair: Pair) -> Plan:
    """The plan with one more distiller, in the first stage or in every stage that both networks have."""
    distiller, teacher = part.distiller, pair.teacher
    if not isinstance(distiller, Distiller):
        raise UserError(f"--method {name}: expected a distiller with summarize, build, features_only and every_stage")
    if distiller.features_only and not teacher.pyramid.strides:
        raise UserError(
            f"--method {method}: {name} compares feature maps, and the teacher {teacher.name} gives none; take "
            "lad, soft or another method that uses its predictions"
        )
    if not distiller.features_only and not teacher.stages:
        raise UserError(
            f"--method {method}: {name} uses predictions, and the teacher {teacher.name} gives feature maps only; take "
            "pkd, cwd, mgd or another method that compares them"
        )
    names = stage_names(len(plan.lessons))
    teaches: dict[str, str] = {}
    skips, lessons = plan.skipped, list(plan.lessons)
    for stage in range(len(lessons) if distiller.every_stage else 1):
        if stage and len(teacher.stages) <= 1 and not distiller.features_only:
            skips = (*skips, f"{name} in {names[stage]}: the teacher has one stage")
            continue
        summary = _summary(name, distiller, pair, stage)
        skips = (*skips, *(skip for skip in summary.skips if skip not in skips))
        for term, what in summary.teaches.items():
            teaches[f"{names[stage]}/{term}".lstrip("/")] = what + _schedule(part)
        chosen = replace(part, distiller=summary.distiller or distiller)
        kept = chosen.distiller if chosen == Scheduled(chosen.distiller) else chosen
        lessons[stage] = replace(lessons[stage], distillers=(*lessons[stage].distillers, kept))
    twice = plan.teaches.keys() & teaches.keys()
    if twice:
        raise UserError(f"--method {method}: {name} teaches {', '.join(sorted(twice))}, which another part teaches too")
    return plan._replace(
        lessons=tuple(lessons),
        teaches=plan.teaches | teaches,
        skipped=skips,
        features_only=plan.features_only and distiller.features_only,
        aligned=plan.aligned or not distiller.features_only,
        weighed=(*plan.weighed, *(teaches if part.weight == "auto" else ())),
    )


def _summary(name: str, distiller: Distiller, pair: Pair, stage: int) -> Summary:
    try:
        summary = distiller.summarize(pair.student, pair.teacher, stage)
    except ValueError as error:
        raise UserError(f"--method {name}: {error}") from None
    if not summary.teaches:
        raise UserError(f"--method {name} would teach nothing: {'; '.join(summary.skips)}; leave it out")
    return summary


def _schedule(part: Scheduled) -> str:
    """Weight and schedule of a distiller in words; empty if they are the default."""
    words = (
        [] if part.weight == 1 else [f"weight {part.weight}" if part.weight == "auto" else f"weight {part.weight:g}"]
    )
    words += [f"rising over {part.warmup:g} epochs"] if part.warmup else []
    words += [f"rising over the first {part.warmup_steps} steps"] if part.warmup_steps else []
    words += [f"until epoch {part.until:g}"] if part.until is not None else []
    return f" ({', '.join(words)})" if words else ""


def plan_for(
    method: str | Method,
    student: DetectorSpec,
    teacher: DetectorSpec | NetworkInfo | None = None,
    assigner: Assigner | None = None,
    criterion: Criterion | None = None,
) -> Plan:
    """Apply a method, or plain words such as ``lad+pkd``, to the published lessons of a detector.

    ``assigner`` and ``criterion`` replace those of the first stage.

    Examples:
        >>> from ladle.families import detector_spec
        >>> from ladle.methods import plan_for
        >>> student, teacher = (detector_spec(name, ["cat", "dog"]) for name in ("paa-tiny", "paa-small"))
        >>> list(plan_for("lad+pkd", student, teacher).teaches)
        ['pkd']
    """
    name = method if isinstance(method, str) else ""
    made = method_of_words(method) if isinstance(method, str) else method
    pair = pair_of(student, teacher) if teacher is not None else None
    return plan_of(made, lessons_of(student, assigner, criterion), pair, name)
