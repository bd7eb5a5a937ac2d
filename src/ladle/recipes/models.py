"""Which detectors there are."""

from __future__ import annotations

from collections.abc import Iterable

from ladle.detectors import READY_MADE, DenseSpec, detector_spec
from ladle.detectors.backbones import RESNETS, SMALL
from ladle.detectors.ready_made import FAMILIES, HEADS, REGION_FAMILIES
from ladle.recipes.console import say, table
from ladle.recipes.lessons import ASSIGNERS, HOME
from ladle.recipes.methods import METHODS

__all__ = ["models"]

_HEADS = {
    "dist": "says box edges as distributions, which ld compares",
    "cop": "shares class scores with a conditional objectness",
    "io": "shares class scores with an implicit objectness",
}
"""What each head adds to its family."""

_RULES = {
    "MaxIoU": "A prior learns the object it overlaps most and enough.",
    "ATSS": "Each object sets its own threshold of overlap.",
    "FCOS": "A point learns the object whose middle and size suit it.",
    "PseudoIoU": "FCOS's points, as far as boxes centred there fit.",
    "PAA": "Losses tell an object's good priors from its bad ones.",
    "OTA": "Optimal transport shares the priors among all objects.",
    "SimOTA": "Each object takes the few priors that cost it least.",
    "TaskAligned": "Class score and box together rank an object's priors.",
    "DynamicSoftLabel": "SimOTA with soft labels and a centre without border.",
    "AutoAssign": "All priors inside an object learn it, by learnt weights.",
    "Hungarian": "One prior for each object, one object for a prior.",
}
"""What each assigner does, short enough for a line of a terminal of 80 columns."""


def models(timm: str | None = None) -> list[str]:
    """List detectors, heads, methods and assigners, or the timm backbones that match a pattern.

    Returns the names of the ready-made detectors, or of those backbones.

    Args:
        timm: a pattern such as ``mobilenetv3*``; any of these serves as ``paa-NAME``.
    """
    if timm is not None:
        from timm import list_models

        names: list[str] = list_models(timm)
        say("\n".join(names) or f"no timm model matches {timm!r}")
        return names
    say(
        table(
            "Detectors: <family>-<backbone>, such as paa-tiny or fcos-r50",
            [_row(family) for family in (*FAMILIES, *REGION_FAMILIES)],
        )
    )
    say(f"Backbones: {_listed(SMALL)} train on a CPU, at 160 pixels;")
    say(f"{_listed(RESNETS)} take 640 pixels; so does any timm model with maps")
    say("of stride 8, 16 and 32.\n")
    heads = [{"behind the family": f"+{name}", "what its head does": _HEADS[name]} for name in HEADS]
    say(table("Heads: <family>+<head>-<backbone>, such as atss+dist-r50", heads))
    methods = [{"name": name, "what the teacher does": what} for name, what in METHODS.items() if name != "plain"]
    say(table("Methods (--method; several are joined, such as lad+ld+pkd)", methods))
    rules = [{"name": name, "which prior learns which object": _RULES[name]} for name in ASSIGNERS]
    say(table("Assigners (--assigner; by default the detector's own)", rules))
    return list(READY_MADE)


def _row(family: str) -> dict[str, object]:
    """What all detectors of a family have in common."""
    head = detector_spec(f"{family}-r18", ("object",)).head
    row: dict[str, object] = {"family": family, "anchors": head.anchors.per_location}
    if isinstance(head, DenseSpec):
        quality = "yes" if head.quality else "no"
        return row | {"boxes said as": head.box, "quality branch": quality, "assigner": HOME[family]}
    return row | {"boxes said as": "deltas, in stages", "quality branch": "no", "assigner": "MaxIoU"}


def _listed(names: Iterable[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} and {last}"
