"""Methods by name: the words, what each teaches, their weights and times.

A method is a word, or several joined by ``+``: ``lad+ld+pkd``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from difflib import get_close_matches

from ladle.detectors import DenseSpec, DetectorSpec
from ladle.distillers import (
    CWD,
    FGD,
    MGD,
    PKD,
    CrossKD,
    DeFeat,
    FineGrained,
    FitNet,
    GeneralInstance,
    LocalizationDistillation,
    Outlined,
    SoftLabels,
)
from ladle.errors import UserError
from ladle.families import family_of

__all__ = ["DISTILLERS", "JUDGED", "METHODS", "RISES", "Times", "distiller_of", "parts_of", "times_of"]

_LARGE = ("r50", "r101")
"""The backbones with which GFL's localization distillation was tuned at two images a device instead of three."""


def _localization(student: DetectorSpec, teacher: DetectorSpec) -> LocalizationDistillation:
    """The family's settings; one softmax for a whole box asks for the same bins, which any two heads need not have."""
    small = LocalizationDistillation(images=2.0 if student.backbone.name in _LARGE else 3.0)
    published = family_of(student).setting(LocalizationDistillation) or small
    heads = student.head, teacher.head
    bins = {head.bins for head in heads if isinstance(head, DenseSpec)}
    return published if len(bins) == 1 else replace(published, rows="edge")


def _cross(student: DetectorSpec, teacher: DetectorSpec) -> CrossKD:
    published = family_of(teacher).teacher_setting(CrossKD) or CrossKD()
    return published if teacher.head.depth >= (published.after or 0) else replace(published, after=None)


def _fgd(student: DetectorSpec, teacher: DetectorSpec) -> FGD:
    """The family's settings; those for two stages leave out the pooled level."""
    published = family_of(student).setting(FGD) or FGD()
    return replace(published, finest=_convolved(student)) if student.regions else published


def _mgd(student: DetectorSpec, teacher: DetectorSpec) -> MGD:
    published = family_of(student).setting(MGD) or MGD()
    return replace(published, finest=_convolved(student)) if student.regions else published


def _convolved(student: DetectorSpec) -> int:
    """How many levels of a pyramid are not just pooled."""
    return len(student.strides) - student.extra


def _pkd(student: DetectorSpec, teacher: DetectorSpec) -> PKD:
    return PKD(weight=6.0 if teacher.regions else 10.0)


_Choice = Callable[[DetectorSpec, DetectorSpec], Outlined]

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
    "fgd": ("feature maps where the teacher attends, and relations", _fgd),
    "cwd": ("where every channel of the feature maps looks", lambda own, guide: CWD()),
    "mgd": ("feature maps, made up from what is left of them", _mgd),
    "pkd": ("feature maps up to their scale", _pkd),
}
"""What the teacher may teach besides judging, by the word for it: what that is, and the distiller for two detectors."""

METHODS: dict[str, str] = {
    "plain": "ground truth, assigned by the student",
    "lad": "ground truth, assigned by the teacher",
    "lad-rpn": "the same in the proposal network of two stages alone",
    "lad-roi": "the same in the region heads alone",
    "solad": "ground truth, assigned by the teacher, and its soft labels",
    "soft-only": "the teacher's soft labels alone, without ground truth",
} | {word: what for word, (what, _) in DISTILLERS.items()}
"""Every word of a method and what it teaches."""

_ALONE = ("plain", "soft-only")

JUDGED = {"lad": ("rpn", "roi"), "lad-rpn": ("rpn",), "lad-roi": ("roi",)}
"""The words by which a teacher judges, and of which stages where there are several."""

RISES = {"fine-grained": 400}
"""The words whose weight rises over so many steps, unless a warm-up is asked for: the release is silent for as many."""

Times = Mapping[str, Mapping[str, float]]
"""For the word of a distiller its ``weight``, its ``warmup`` and its end, ``until``, in epochs."""


def parts_of(method: str) -> tuple[str, ...]:
    """The words of a method; raises :class:`UserError` for one that is none, and for words that exclude each other."""
    words = tuple(word for part in method.split("+") for word in (("lad", "soft") if part == "solad" else (part,)))
    for word in words:
        if word not in METHODS:
            close = get_close_matches(word, METHODS, n=1)
            hint = f"did you mean {close[0]}?" if close else f"take one or more of {', '.join(METHODS)}"
            raise UserError(f"--method {method}: no method is called {word!r}; {hint}")
    twice = sorted({word for word in words if words.count(word) > 1})
    judged = [word for word in words if word in JUDGED]
    twice += judged[:1] if len(judged) > 1 else []
    alone = [word for word in words if word in _ALONE and len(words) > 1]
    if twice or alone:
        reason = f"{twice[0]} is given twice" if twice else f"{alone[0]} stands alone"
        raise UserError(f"--method {method}: {reason}")
    return words


def distiller_of(word: str, student: DetectorSpec, teacher: DetectorSpec) -> Outlined:
    """The distiller that a word of a method stands for, with the settings that were released for these two."""
    return SoftLabels(weight=10.0, least=0.1) if word == "soft-only" else DISTILLERS[word][1](student, teacher)


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
