"""Which detectors there are."""

from __future__ import annotations

import inspect

from ladle.detectors import READY_MADE, detector_spec
from ladle.recipes.console import say, table
from ladle.recipes.lessons import ASSIGNERS, HOME

__all__ = ["models"]


def models(timm: str | None = None) -> list[str]:
    """List the ready-made detectors and the assigners, or the timm backbones that match a pattern.

    Args:
        timm: a pattern such as ``mobilenetv3*``; any of these serves as ``paa-NAME``.
    """
    if timm is not None:
        from timm import list_models

        names: list[str] = list_models(timm)
        say("\n".join(names) or f"no timm model matches {timm!r}")
        return names
    rows = []
    for name in READY_MADE:
        spec = detector_spec(name, ("object",))
        rows.append(
            {
                "name": name,
                "anchors": spec.head.anchors.per_location,
                "strides": ", ".join(map(str, spec.strides)),
                "boxes": spec.head.box,
                "quality": "yes" if spec.head.quality else "no",
                "assigner": HOME[spec.family],
                "imgsz": str(spec.imgsz),
            }
        )
    say(table("Detectors (behind the dash any timm model works too)", rows))
    meanings = [
        {"name": name, "which prior learns which object": str(inspect.getdoc(rule)).partition("(")[0].strip()}
        for name, rule in ASSIGNERS.items()
    ]
    say(table("Assigners (--assigner; by default the detector's own)", meanings))
    return list(READY_MADE)
