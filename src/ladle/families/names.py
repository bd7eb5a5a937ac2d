"""Detectors by name: ``<family>-<backbone>``, or with other heads ``<family>+<head>-<backbone>``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from importlib import import_module

from ladle.assigners import Assigner
from ladle.detectors import DenseSpec, DetectorSpec
from ladle.detectors.backbones import RESNETS, SMALL
from ladle.errors import UserError
from ladle.families.family import Family, Start
from ladle.lessons import Criterion, Lesson
from ladle.networks import NetworkInfo, StageInfo

__all__ = ["detector_spec", "families", "family_of", "lessons_of", "network_info", "ready_made"]


def families() -> Mapping[str, Family]:
    """Every family of ``ladle.families`` by its name."""
    return {one.name: one for one in vars(import_module("ladle.families")).values() if isinstance(one, Family)}


def ready_made() -> tuple[str, ...]:
    """The names of detectors with Ladle's or torchvision's backbones and of those of published sizes.

    Any timm model may follow the dash as well.
    """
    return tuple(f"{name}-{size}" for name, family in families().items() for size in (*SMALL, *RESNETS, *family.sizes))


def detector_spec(
    name: str,
    classes: Sequence[str],
    category_ids: Sequence[int] | None = None,
    imgsz: int | None = None,
    start: Start = Start(),
) -> DetectorSpec:
    """The detector ``<family>-<backbone>``, or ``<family>+<head>-<backbone>``, for a set of classes.

    Raises:
        UserError: for an unknown name.

    Examples:
        >>> from ladle.families import detector_spec
        >>> detector_spec("atss+dist-tiny", ["cat", "dog"]).head.box
        'distribution'
    """
    kind, _, backbone = name.partition("-")
    family, *heads = kind.split("+")
    if family not in families() or not backbone:
        close = get_close_matches(name, ready_made(), n=1)
        hint = f"did you mean {close[0]}?" if close else "`ladle models` lists them"
        raise UserError(f"no detector is called {name!r}: expected <family>-<backbone> such as paa-r18; {hint}")
    return families()[family].spec(backbone, classes, category_ids, imgsz, start, heads)


def family_of(spec: DetectorSpec) -> Family:
    """The family of a detector; raises :class:`UserError` for one that is not of ``ladle.families``."""
    if spec.family not in families():
        raise UserError(
            f"{spec.name}: there is no family {spec.family!r}; give its lessons yourself, or a spec of one of "
            f"{', '.join(families())}"
        )
    return families()[spec.family]


def lessons_of(
    spec: DetectorSpec, assigner: Assigner | None = None, criterion: Criterion | None = None
) -> tuple[Lesson, ...]:
    """The published lessons of a detector, one per stage; ``assigner`` and ``criterion`` replace those of the first."""
    return family_of(spec).lessons(spec, assigner, criterion)


def network_info(spec: DetectorSpec) -> NetworkInfo:
    """The description of a detector from which methods are planned.

    Examples:
        >>> from ladle.families import detector_spec, network_info
        >>> network_info(detector_spec("gfl-tiny", ["cat", "dog"])).stage(0).bins
        17
    """
    regions = tuple(StageInfo(len(spec.classes)) for _ in spec.regions)
    return NetworkInfo(spec.name, spec.classes, spec.pyramid, (_first_stage(spec), *regions))


def _first_stage(spec: DetectorSpec) -> StageInfo:
    head, family = spec.head, families().get(spec.family)
    if not isinstance(head, DenseSpec):
        return StageInfo(1, head.anchors)
    return StageInfo(
        classes=len(spec.classes),
        priors=head.anchors,
        bins=head.bins if head.box == "distribution" else 0,
        quality=family.quality if family is not None and head.quality else None,
        tower_depth=0 if head.aligned else head.depth,
        tower_width=0 if head.aligned else head.width,
    )
