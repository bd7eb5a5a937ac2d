"""Methods by name: what a student is taught, and who judges.

A method is a word, or several joined by ``+``: ``lad+ld+pkd``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from difflib import get_close_matches
from typing import Literal, NamedTuple

from ladle.criteria import CRITERIA, DenseCriterion
from ladle.detectors import DetectorSpec
from ladle.distillers import (
    CWD,
    FGD,
    MGD,
    PKD,
    CrossKD,
    DeFeat,
    Distiller,
    DistillerSpec,
    FineGrained,
    FitNet,
    GeneralInstance,
    LocalizationDistillation,
    Outline,
    SoftLabels,
    Voice,
)
from ladle.errors import UserError
from ladle.objectives import Lesson, Timed
from ladle.recipes.lessons import judged_by_teacher, lesson_of

__all__ = ["DISTILLERS", "METHODS", "Plan", "Times", "distiller_of", "parts_of", "plan_of", "times_of"]

_LD = {
    "atss": LocalizationDistillation(ring=0.0375),
    "fcos": LocalizationDistillation(region="inside"),
    "retinanet": LocalizationDistillation(weight=5.0, ring=0.15, class_temperature=8.0, shared=False, rows="box"),
}
"""The released settings of localization distillation; GFL's are the defaults."""
_FGD = {"fcos": FGD(foreground=1.6e-3, background=8e-4, attention=8e-4, relation=8e-6, temperature=0.8)}
_CROSS = {"fcos": CrossKD(classes=0.4, boxes=0.75, after=2)}


def _localization(student: DetectorSpec, teacher: DetectorSpec) -> LocalizationDistillation:
    """The family's settings; one softmax for a whole box asks for the same bins, which any two heads need not have."""
    published = _LD.get(student.family, LocalizationDistillation())
    return published if student.head.bins == teacher.head.bins else replace(published, rows="edge")


def _cross(student: DetectorSpec, teacher: DetectorSpec) -> CrossKD:
    published = _CROSS.get(teacher.family, CrossKD())
    return published if teacher.head.depth >= (published.after or 0) else replace(published, after=None)


_Choice = Callable[[DetectorSpec, DetectorSpec], Distiller | DistillerSpec]

DISTILLERS: dict[str, tuple[str, _Choice]] = {
    "soft": ("the teacher's scores, qualities and boxes as soft labels", lambda own, guide: SoftLabels()),
    "classes": ("of the soft labels the scores alone", lambda own, guide: SoftLabels(quality=0.0, box=0.0)),
    "boxes": ("of the soft labels the boxes alone", lambda own, guide: SoftLabels(weight=0.0, quality=0.0)),
    "quality": ("of the soft labels the qualities alone", lambda own, guide: SoftLabels(weight=0.0, box=0.0)),
    "kl": (
        "scores by KL divergence, softened",
        lambda own, guide: SoftLabels(quality=0.0, box=0.0, gamma=0.0, temperature=2.0),
    ),
    "ld": ("box edges at positives and around them, classes at positives", _localization),
    "ld-main": (
        "of these the edges at positives alone",
        lambda own, guide: replace(_localization(own, guide), ring=0.0, classes=0.0),
    ),
    "ld-edges": (
        "of these all edges, but no classes",
        lambda own, guide: replace(_localization(own, guide), classes=0.0),
    ),
    "cross": ("the student's features, judged by the teacher's head", _cross),
    "fitnet": ("feature maps, everywhere alike", lambda own, guide: FitNet()),
    "fine-grained": ("feature maps near objects", lambda own, guide: FineGrained()),
    "gi": ("feature maps where the two disagree most", lambda own, guide: GeneralInstance()),
    "defeat": ("feature maps of objects and of background, apart", lambda own, guide: DeFeat()),
    "fgd": ("feature maps where the teacher attends, and relations", lambda own, guide: _FGD.get(own.family, FGD())),
    "cwd": ("where every channel of the feature maps looks", lambda own, guide: CWD()),
    "mgd": ("feature maps, made up from what is left of them", lambda own, guide: MGD()),
    "pkd": ("feature maps up to their scale", lambda own, guide: PKD()),
}
"""What the teacher may teach besides judging, by the word for it: what that is, and the distiller for two detectors."""

METHODS: dict[str, str] = {
    "plain": "ground truth, assigned by the student",
    "lad": "ground truth, assigned by the teacher",
    "solad": "ground truth, assigned by the teacher, and its soft labels",
    "soft-only": "the teacher's soft labels alone, without ground truth",
} | {word: what for word, (what, _) in DISTILLERS.items()}
"""Every word of a method and what it teaches."""

_ALONE = ("plain", "soft-only")

Times = Mapping[str, Mapping[str, float]]
"""For the word of a distiller its ``weight``, its ``warmup`` and its end, ``until``, in epochs."""


class Plan(NamedTuple):
    """What a student is taught, who judges, what that means term by term, and what is left out and why.

    ``features_only`` says that nothing but the teacher's feature maps is needed.
    """

    lesson: Lesson
    judge: Literal["student", "teacher"]
    teaches: dict[str, str]
    skipped: tuple[str, ...] = ()
    features_only: bool = False


def parts_of(method: str) -> tuple[str, ...]:
    """The words of a method; raises :class:`UserError` for one that is none, and for words that exclude each other."""
    words = tuple(word for part in method.split("+") for word in (("lad", "soft") if part == "solad" else (part,)))
    for word in words:
        if word not in METHODS:
            close = get_close_matches(word, METHODS, n=1)
            hint = f"did you mean {close[0]}?" if close else f"take one or more of {', '.join(METHODS)}"
            raise UserError(f"--method {method}: no method is called {word!r}; {hint}")
    twice = sorted({word for word in words if words.count(word) > 1})
    alone = [word for word in words if word in _ALONE and len(words) > 1]
    if twice or alone:
        reason = f"{twice[0]} is given twice" if twice else f"{alone[0]} stands alone"
        raise UserError(f"--method {method}: {reason}")
    return words


def plan_of(
    method: str,
    student: DetectorSpec,
    teacher: DetectorSpec | None = None,
    assigner: str | None = None,
    times: Times | None = None,
) -> Plan:
    """The published form of ``method`` for a student, or that form under another assigner.

    LAD shares PAA's box loss equally among positives, as its reference code does, where plain PAA weighs it by IoU;
    other detectors keep their losses. Soft labels alone use the weights of the released configuration without ground
    truth. Distillers take the settings that were released for the student's family.

    Raises :class:`UserError` for a method or an assigner that there is not, or that cannot work with these two.
    """
    words = parts_of(method)
    home = lesson_of(student.family, assigner, edges=student.head.box == "distribution")
    if words == ("plain",):
        return Plan(home, "student", {})
    if teacher is None:
        raise UserError(f"--method {method} needs a teacher: give --teacher runs/train/NAME/weights/best.safetensors")
    criterion = None if words == ("soft-only",) else home.criterion
    rule = home.assign
    if "lad" in words:
        rule = judged_by_teacher(rule)
        if student.family == "paa" and isinstance(criterion, DenseCriterion):
            criterion = replace(criterion, share="count")

    timed: list[Timed] = []
    teaches: dict[str, str] = {}
    skipped: tuple[str, ...] = ()
    features_only = "lad" not in words
    for word in words:
        if word == "lad":
            continue
        distil = distiller_of(word, student, teacher)
        outline, distil = _outlined(word, distil, student, teacher)
        twice = teaches.keys() & outline.teaches.keys()
        if twice:
            raise UserError(
                f"--method {method}: {word} teaches {', '.join(sorted(twice))}, which another part teaches too"
            )
        one = Timed(distil, **(times or {}).get(word, {}))
        timed.append(one)
        teaches |= {name: what + _when(one) for name, what in outline.teaches.items()}
        skipped += outline.skips
        features_only = features_only and getattr(distil, "features_only", False)
    lesson = Lesson(rule, criterion, tuple(one.distil if one == Timed(one.distil) else one for one in timed))
    return Plan(lesson, "teacher" if "lad" in words else "student", teaches, skipped, features_only)


def distiller_of(word: str, student: DetectorSpec, teacher: DetectorSpec) -> Distiller | DistillerSpec:
    """The distiller that a word of a method stands for, with the settings that were released for these two."""
    return SoftLabels(weight=10.0, least=0.1) if word == "soft-only" else DISTILLERS[word][1](student, teacher)


def _outlined(
    word: str, distil: Distiller | DistillerSpec, student: DetectorSpec, teacher: DetectorSpec
) -> tuple[Outline, Distiller | DistillerSpec]:
    """What a distiller will teach; qualities of different meaning are left out of it."""
    skips: tuple[str, ...] = ()
    if isinstance(distil, SoftLabels) and distil.quality and _quality(student) != _quality(teacher):
        distil = replace(distil, quality=0.0)
        skips = (f"soft_quality: the student's branch means {_quality(student)}, the teacher's {_quality(teacher)}",)
    try:
        outline: Outline = distil.outline(_voice(student), _voice(teacher))  # type: ignore[union-attr]
    except ValueError as error:
        raise UserError(f"--method {word}: {error}") from None
    if not outline.teaches:
        reason = "; ".join(skips + outline.skips)
        raise UserError(f"--method {word} would teach nothing: {reason}; leave it out")
    return Outline(outline.teaches, skips + outline.skips), distil


def times_of(method: str, weight: str | None, warm: str | None, until: str | None) -> Times:
    """What the flags say of each distiller: a number for all of them, or ``pkd=2,ld=0.5``.

    Raises :class:`UserError` for what is neither, and for a word that the method does not have.
    """
    words = [word for word in parts_of(method) if word in DISTILLERS or word == "soft-only"]
    times: dict[str, dict[str, float]] = {word: {} for word in words}
    for flag, field, text in (("weight", "weight", weight), ("warm", "warmup", warm), ("until", "until", until)):
        for word, number in _numbers(flag, text, words):
            times[word][field] = number
    return times


def _numbers(flag: str, text: str | None, words: list[str]) -> list[tuple[str, float]]:
    if text is None:
        return []
    said = [part.partition("=") for part in str(text).split(",")]
    if len(said) == 1 and not said[0][1]:
        said = [(word, "=", said[0][0]) for word in words]
    found = []
    for word, _, number in said:
        if word not in words:
            expected = f"one of {', '.join(words)}" if words else "a method with a distiller"
            raise UserError(f"--{flag} {text}: {word!r} is no part of this --method; expected {expected}")
        try:
            value = float(number)
        except ValueError:
            value = -1.0
        if not 0 <= value < float("inf"):
            raise UserError(f"--{flag} {text}: expected a number of 0 or more for {word}, found {number!r}")
        found.append((word, value))
    return found


def _when(one: Timed) -> str:
    """The weight and the time of a distiller in words; nothing where they are the usual."""
    said = [f"weight {one.weight:g}"] if one.weight != 1 else []
    said += [f"rising over {one.warmup:g} epochs"] if one.warmup else []
    said += [f"until epoch {one.until:g}"] if one.until is not None else []
    return f" ({', '.join(said)})" if said else ""


def _quality(spec: DetectorSpec) -> str:
    """What the quality branch of a detector means."""
    if not spec.head.quality:
        return "nothing, there is none"
    criterion = CRITERIA.get(spec.family)
    return str(criterion.quality) if criterion is not None else "an objectness that nobody teaches"


def _voice(spec: DetectorSpec) -> Voice:
    head = spec.head
    return Voice(
        pyramid=spec.pyramid,
        classes=len(spec.classes),
        bins=head.bins if head.box == "distribution" else 0,
        quality=head.quality,
        depth=head.depth,
        width=head.width,
    )
