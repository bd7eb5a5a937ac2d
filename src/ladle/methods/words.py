"""Methods by words, as the command line has them: ``lad+ld+pkd``.

A word stands for the settings that were published for the given student and teacher.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import partial
from typing import Any, NamedTuple, TypeVar

from ladle.detectors import DetectorSpec
from ladle.distillers import (
    BCKD,
    CWD,
    FGD,
    MGD,
    PKD,
    CrossKD,
    DeFeat,
    Distiller,
    FineGrained,
    FitNet,
    GeneralInstance,
    Joinable,
    LocalizationDistillation,
    Method,
    SoftLabels,
)
from ladle.errors import UserError
from ladle.families import Family, families, network_info
from ladle.lessons import Scheduled
from ladle.methods.lad import LAD, TeacherOnly
from ladle.networks import NetworkInfo
from ladle.values import Kind, with_fields

__all__ = [
    "JUDGING",
    "WORDS",
    "Pair",
    "Published",
    "Word",
    "check_words",
    "method_of_words",
    "pair_of",
    "part_name",
    "pieces_of",
    "published",
    "unscheduled",
]

D = TypeVar("D")

_LARGE = ("r50", "r101")
"""The backbones with which GFL's localization distillation was tuned at two images a device instead of three."""


class Pair(NamedTuple):
    """A student and its teacher: all on which published settings depend.

    Attributes:
        student: description of the student.
        teacher: description of the teacher.
        family: the student's; None for a network that is not Ladle's.
        teacher_family: the teacher's, likewise.
        large: whether the student's backbone is ResNet-50 or larger.
        convolved: number of levels of the student's pyramid that are not a pooled coarser one.
    """

    student: NetworkInfo
    teacher: NetworkInfo
    family: Family | None = None
    teacher_family: Family | None = None
    large: bool = False
    convolved: int | None = None


class Word(NamedTuple):
    """A word of a method: its meaning, and the parts that it stands for."""

    meaning: str
    parts: Callable[[Pair], Method]


@dataclass(frozen=True)
class Published(Joinable):
    """A word of a method; it stands for published settings, which depend on student and teacher.

    Args:
        word: one of :data:`WORDS`.
        fields: an expression that replaces published values of its distiller's fields, such as ``(weight=2.0)``.
        changes: the same as values, for :class:`LAD`.
        schedule: fields of :class:`~ladle.lessons.Scheduled` that differ: ``weight``, ``warmup`` and ``until``.

    Examples:
        >>> from ladle.methods import LAD, Published
        >>> method = LAD() + Published("pkd")
    """

    word: str
    fields: str = ""
    changes: Mapping[str, Any] | None = None
    schedule: Mapping[str, float | str] | None = None


def pair_of(student: DetectorSpec, teacher: DetectorSpec | NetworkInfo) -> Pair:
    """The pair of a detector and its teacher, which is a detector or any described network."""
    family, convolved = families().get(student.family), len(student.strides) - student.extra
    large = student.backbone.name in _LARGE
    if isinstance(teacher, NetworkInfo):
        return Pair(network_info(student), teacher, family, None, large, convolved)
    other = families().get(teacher.family)
    return Pair(network_info(student), network_info(teacher), family, other, large, convolved)


def _setting(pair: Pair, kind: type[D]) -> D | None:
    return pair.family.setting(kind) if pair.family is not None else None


def _localization(pair: Pair) -> LocalizationDistillation:
    """The family's settings, else GFL's; one softmax for a whole box needs the same bins in both heads."""
    # GFL was tuned with two images a device for large backbones, with three for small ones.
    small = LocalizationDistillation(images=2.0 if pair.large else 3.0)
    published = _setting(pair, LocalizationDistillation) or small
    bins = {info.stage(0).bins for info in (pair.student, pair.teacher)} - {0}
    return published if len(bins) == 1 else replace(published, rows="edge")


def _cross(pair: Pair) -> CrossKD:
    published = (pair.teacher_family.teacher_setting(CrossKD) if pair.teacher_family is not None else None) or CrossKD()
    return published if pair.teacher.stage(0).tower_depth >= (published.after or 0) else replace(published, after=None)


def _of_convolved(kind: type[FGD] | type[MGD], pair: Pair) -> FGD | MGD:
    """The family's settings; for two-stage students without the pooled level."""
    published = _setting(pair, kind) or kind()
    return replace(published, finest=pair.convolved) if len(pair.student.stages) > 1 else published


def _pkd(pair: Pair) -> PKD:
    """Mmrazor's weights: 6 with a two-stage teacher, 10 with a one-stage one."""
    return PKD(weight=6.0 if len(pair.teacher.stages) > 1 else 10.0)


def _of(make: Callable[[Pair], Distiller | Scheduled]) -> Callable[[Pair], Method]:
    return lambda pair: Method((make(pair),))


WORDS: Mapping[str, Word] = {
    "plain": Word("ground truth, assigned by the student", lambda pair: Method()),
    "lad": Word("ground truth, assigned by the teacher", lambda pair: Method((LAD(),))),
    "lad-rpn": Word("the same in the proposal network of two stages alone", lambda pair: Method((LAD("rpn"),))),
    "lad-roi": Word("the same in the region heads alone", lambda pair: Method((LAD("roi"),))),
    "solad": Word("ground truth, assigned by the teacher, and its soft labels", lambda pair: LAD() + SoftLabels()),
    "soft-only": Word(
        "the teacher's soft labels alone, without ground truth",
        lambda pair: TeacherOnly() + SoftLabels(class_weight=10.0, least=0.1),
    ),
    "soft": Word("the teacher's scores, qualities and boxes as soft labels", _of(lambda pair: SoftLabels())),
    "classes": Word(
        "of the soft labels the scores alone", _of(lambda pair: SoftLabels(quality_weight=0.0, box_weight=0.0))
    ),
    "boxes": Word(
        "of the soft labels the boxes alone", _of(lambda pair: SoftLabels(class_weight=0.0, quality_weight=0.0))
    ),
    "quality": Word(
        "of the soft labels the qualities alone", _of(lambda pair: SoftLabels(class_weight=0.0, box_weight=0.0))
    ),
    "kl": Word(
        "scores by KL divergence at a temperature",
        _of(lambda pair: SoftLabels(quality_weight=0.0, box_weight=0.0, gamma=0.0, temperature=2.0)),
    ),
    "ld": Word("box edges at positives and around them, classes at positives", _of(_localization)),
    "ld-main": Word(
        "of these the edges at positives alone",
        _of(lambda pair: replace(_localization(pair), ring_weight=0.0, class_weight=0.0)),
    ),
    "ld-edges": Word(
        "of these all edges, but no classes", _of(lambda pair: replace(_localization(pair), class_weight=0.0))
    ),
    "bckd": Word(
        "class scores as binary problems, and boxes by IoU, where the scores differ", _of(lambda pair: BCKD())
    ),
    "cross": Word("the student's features, sent through the teacher's head", _of(_cross)),
    "fitnet": Word("feature maps, everywhere alike", _of(lambda pair: FitNet())),
    "fine-grained": Word(
        # The release adds it after 400 steps.
        "feature maps near objects",
        _of(lambda pair: Scheduled(FineGrained(), warmup_steps=400)),
    ),
    "gi": Word("feature maps where the two disagree most", _of(lambda pair: GeneralInstance())),
    "defeat": Word("feature maps of objects and of background, apart", _of(lambda pair: DeFeat())),
    "fgd": Word("feature maps where the teacher attends, and relations", _of(partial(_of_convolved, FGD))),
    "cwd": Word("where every channel of the feature maps is active", _of(lambda pair: CWD())),
    "mgd": Word("feature maps, restored from a part of them", _of(partial(_of_convolved, MGD))),
    "pkd": Word("feature maps up to their scale", _of(_pkd)),
}
"""Every word of a method."""

FIELDS = Kind("--method", "method", {}, "pkd(weight=2.0)")
"""Names for messages about the fields of a word."""
_ALONE = ("plain", "soft-only")
"""The words that cannot be combined with others."""
JUDGING = ("lad", "lad-rpn", "lad-roi")
"""The words by which the teacher assigns."""
_SUMS = {"plain": (), "solad": ("lad", "soft")}
"""The words that stand for other words."""


def check_words(text: str, words: list[str]) -> None:
    """Raise :class:`UserError` for an unknown word, and for words that exclude each other."""
    for word in words:
        if word not in WORDS:
            close = get_close_matches(word, WORDS, n=1)
            hint = f"did you mean {close[0]}?" if close else f"take one or more of {', '.join(WORDS)}"
            raise UserError(f"--method {text}: no method is called {word!r}; {hint}")
    each = [part for word in words for part in _SUMS.get(word) or (word,)]
    twice = sorted({word for word in each if each.count(word) > 1})
    judging = [word for word in each if word in JUDGING]
    twice += judging[:1] if len(judging) > 1 else []
    alone = [word for word in each if word in _ALONE and len(each) > 1]
    if twice or alone:
        raise UserError(f"--method {text}: {f'{twice[0]} is given twice' if twice else f'{alone[0]} stands alone'}")


def method_of_words(text: str) -> Method:
    """The method of plain words such as ``lad+pkd``; raises :class:`UserError` for an unknown word.

    Examples:
        >>> from ladle.methods import method_of_words
        >>> tuple(part.word for part in method_of_words("lad+pkd").parts)
        ('lad', 'pkd')
    """
    words = text.split("+")
    check_words(text, words)
    return Method(tuple(one for word in words for one in published(word)))


def published(word: str, fields: str = "") -> tuple[Published, ...]:
    """The parts of a method for one word: two for ``solad``, none for ``plain``; ``fields`` replace published ones."""
    return tuple(Published(one, fields) for one in _SUMS.get(word, (word,)))


def part_name(part: object) -> str:
    """The name of a part of a method: its word, or its class."""
    return part.word if isinstance(part, Published) else type(unscheduled(part)).__name__


def unscheduled(part: Any) -> Any:
    """A part of a method without its weight and schedule."""
    return part.distiller if isinstance(part, Scheduled) else part


def pieces_of(part: object, pair: Pair) -> tuple[object, ...]:
    """The parts of a word with the settings published for two networks; any other part as it is."""
    if not isinstance(part, Published):
        return (part,)
    return tuple(_changed(piece, part) for piece in WORDS[part.word].parts(pair).parts)


def _changed(part: Any, word: Published) -> object:
    """A part of a word with the fields and the schedule that its word replaces."""
    made = with_fields(FIELDS, unscheduled(part), word.fields, f"{word.word}{word.fields}")
    made = replace(made, **dict(word.changes or {}))
    if not isinstance(made, Distiller):
        return made
    schedule: dict[str, Any] = dict(word.schedule or {})
    usual = part if isinstance(part, Scheduled) else Scheduled(made)
    steps = 0 if "warmup" in schedule or schedule.get("weight") == "auto" else usual.warmup_steps
    scheduled = replace(usual, distiller=made, warmup_steps=steps, **schedule)
    return made if scheduled == Scheduled(made) else scheduled
