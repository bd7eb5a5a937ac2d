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
    Sample,
    SimOTA,
    TaskAligned,
)
from ladle.criteria import CRITERIA, BagCriterion, RegionCriterion, with_edges
from ladle.detectors import PLAIN_STDS, DenseSpec, DetectorSpec, RegionSpec
from ladle.errors import UserError
from ladle.objectives import Lesson

__all__ = ["ASSIGNERS", "HOME", "judged_by_teacher", "lesson_of", "lessons_of"]

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

RPN = MaxIoU(0.7, 0.3, rescued="prior")
"""The rule of proposal networks (Ren et al. 2015), by which rescued anchors learn what they overlap most, as in
torchvision."""
REGION_THRESHOLDS = {"fasterrcnn": ((0.5, 1.0),), "cascade": ((0.5, 1.0), (0.6, 0.5), (0.7, 0.25))}
"""For each look at proposals the least IoU of an object and the weight of the losses (mmdetection)."""
_LARGE = 256
"""From this width on networks are those of the papers, which learn from 512 proposals of a picture."""

_POINTS = ("FCOS", "PseudoIoU")
"""The assigners that choose among points: several anchors at one point are all the same to them."""


def lesson_of(family: str, assigner: str | None = None, edges: bool = False) -> Lesson:
    """The published lesson of a family, or the same losses under another assigner.

    With ``edges`` the losses are those for a head that says its boxes as distributions.

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
    return Lesson(rule, with_edges(family, criterion) if edges else criterion)


def lessons_of(student: DetectorSpec, assigner: str | None = None) -> tuple[Lesson, ...]:
    """The published lessons of a detector, one for each stage; another assigner is that of its first."""
    head = student.head
    if isinstance(head, DenseSpec):
        return (lesson_of(student.family, assigner, edges=head.box == "distribution"),)
    return (_proposing(assigner), *map(_looking, student.regions, REGION_THRESHOLDS[student.family]))


def _proposing(assigner: str | None) -> Lesson:
    """That of a proposal network, as torchvision has it."""
    rule = RPN if assigner is None else ASSIGNERS[_spelled(assigner)]
    if isinstance(rule, AutoAssign):
        raise UserError("--assigner AutoAssign weighs bags of priors, of which a proposal network cannot draw a sample")
    return Lesson(rule, RegionCriterion(stds=PLAIN_STDS), sample=Sample(256, 0.5))


def _looking(region: RegionSpec, stage: tuple[float, float]) -> Lesson:
    """That of a region head: the IoU from which on a proposal is an object, and the weight of its losses."""
    least, weight = stage
    count = 512 if region.width >= _LARGE else 128
    criterion = RegionCriterion(weight=weight, stds=region.stds)
    return Lesson(MaxIoU(least, least, rescue=None), criterion, sample=Sample(count, 0.25))


def _spelled(assigner: str) -> str:
    """The name as it is written here, however it is capitalised or hyphenated."""
    known = {name.lower(): name for name in ASSIGNERS}
    plain = assigner.replace("-", "").replace("_", "").lower()
    if plain in known:
        return known[plain]
    close = get_close_matches(plain, known, n=1)
    hint = f"did you mean {known[close[0]]}?" if close else f"take one of {', '.join(ASSIGNERS)}"
    raise UserError(f"--assigner {assigner}: no assigner is called that; {hint}")


def judged_by_teacher(
    rule: Assigner, keep_count: bool = True, class_power: float = 0.0, spare: bool = False
) -> Assigner:
    """The form of an assigner in which a teacher's predictions decide.

    Most look at predictions anyway. To rules of overlap the teacher's boxes stand in for the priors, with each object's
    number of positives kept: refined boxes overlap far better than priors, and fixed thresholds would take them all.
    FCOS keeps it always. ``class_power`` has the teacher's score for the object's class count too. ``spare``, of MaxIoU
    alone, ignores what the teacher turns down of the rule's own positives.
    """
    if isinstance(rule, MaxIoU):
        rule = replace(rule, spare=spare)
    if isinstance(rule, MaxIoU | ATSS | PseudoIoU):
        return replace(rule, boxes="predictions", keep_count=keep_count, class_power=class_power)
    if isinstance(rule, FCOS):
        return replace(rule, boxes="predictions", class_power=class_power)
    return rule
