"""Which detectors there are."""

from __future__ import annotations

from ladle.detectors import READY_MADE, detector_spec
from ladle.recipes.console import say, table

__all__ = ["models"]


def models(timm: str | None = None) -> list[str]:
    """List the ready-made detectors, or the timm backbones that match a pattern.

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
                "quality": "yes" if spec.head.quality else "no",
                "imgsz": str(spec.imgsz),
            }
        )
    say(table("Detectors (behind the dash any timm model works too)", rows))
    return list(READY_MADE)
