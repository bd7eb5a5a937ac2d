"""Which lesson a detector is taught: its own published one, or with another assigner."""

from __future__ import annotations

from dataclasses import replace
from difflib import get_close_matches

from ladle.assigners import (
    ATSS,
    FCOS,
    OTA,
    PAA,
    Assigner,
    AutoAssign,
    DynamicSoftLabel,
    Hungarian,
    MaxIoU,
    PseudoIoU,
    SimOTA,
    TaskAligned,
)
from ladle.criteria import CRITERIA, BagCriterion, with_edges
from ladle.errors import UserError
from ladle.objectives import Lesson

__all__ = ["ASSIGNERS", "HOME", "judged_by_teacher", "lesson_of"]

ASSIGNERS: dict[str, Assigner] = {
    type(rule).__name__: rule
    for rule in (
        MaxIoU(),
        ATSS(),
        FCOS(),
        PseudoIoU(),
        PAA(),
        OTA(),
        SimOTA(),
        TaskAligned(),
        DynamicSoftLabel(),
        AutoAssign(),
        Hungarian(),
    )
}
"""Every assigner by name, as ``--assigner`` takes it, with the settings of its paper."""

HOME = {
    "retinanet": "MaxIoU",
    "atss": "ATSS",
    "paa": "PAA",
    "gfl": "ATSS",
    "fcos": "FCOS",
    "ota": "OTA",
    "autoassign": "AutoAssign",
    "tood": "TaskAligned",
    "yolox": "SimOTA",
    "rtmdet": "DynamicSoftLabel",
}
"""The assigner each family was published with."""

_POINTS = ("FCOS", "PseudoIoU")
"""The assigners that choose among points: several anchors at one point are all the same to them."""


def lesson_of(family: str, assigner: str | None = None, edges: bool = False) -> Lesson:
    """The published lesson of a family, or the same losses under another assigner.

    With ``edges``, for a head that says its boxes as distributions, the distributions are taught too.

    AutoAssign weighs bags of priors and brings its own losses, in which the quality branch is an implicit objectness.
    Under another assigner a detector of that family learns classes, boxes and IoU as OTA's does.

    Raises :class:`UserError` for a name that is none, and for a pair that cannot work.
    """
    name = HOME[family] if assigner is None else _spelled(assigner)
    if family == "retinanet" and name in _POINTS:
        raise UserError(
            f"--assigner {name}: it chooses among points, but retinanet has nine anchors at each, which would all "
            "learn the same; take fcos-*, or an assigner that tells anchors apart such as MaxIoU or ATSS"
        )
    rule = ASSIGNERS[name]
    if name == "AutoAssign":
        return Lesson(rule, BagCriterion())
    criterion = CRITERIA.get(family, CRITERIA["ota"])
    return Lesson(rule, with_edges(criterion) if edges else criterion)


def _spelled(assigner: str) -> str:
    """The name as it is written here, however it is capitalised or hyphenated."""
    known = {name.lower(): name for name in ASSIGNERS}
    plain = assigner.replace("-", "").replace("_", "").lower()
    if plain in known:
        return known[plain]
    close = get_close_matches(plain, known, n=1)
    hint = f"did you mean {known[close[0]]}?" if close else f"take one of {', '.join(ASSIGNERS)}"
    raise UserError(f"--assigner {assigner}: no assigner is called that; {hint}")


def judged_by_teacher(rule: Assigner) -> Assigner:
    """The form of an assigner in which a teacher's predictions decide.

    Most look at predictions anyway. To rules of overlap the teacher's boxes stand in for the priors, with each object's
    number of positives kept: refined boxes overlap far better than priors, and fixed thresholds would take them all.
    """
    if isinstance(rule, MaxIoU | ATSS | PseudoIoU):
        return replace(rule, boxes="predictions", keep_count=True)
    if isinstance(rule, FCOS):
        return replace(rule, boxes="predictions")
    return rule
