"""Ready-made detectors by name: ``<family>-<backbone>``, from ``paa-tiny`` to ``retinanet-r101``.

A family may be given another head: ``atss+dist-r50`` says its boxes as distributions, ``paa+cop-r101`` scores by COP.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any, Literal

from ladle.detectors.atss import atss_head, atss_inference
from ladle.detectors.autoassign import autoassign_head, autoassign_inference
from ladle.detectors.backbones import RESNETS, SMALL, BackboneSpec, NeckNorm, Norm, color_statistics
from ladle.detectors.dense import DenseSpec
from ladle.detectors.detector import DetectorSpec
from ladle.detectors.faster_rcnn import cascade_regions, faster_rcnn_regions, proposal_head, region_inference
from ladle.detectors.fcos import fcos_head, fcos_inference
from ladle.detectors.gfl import gfl_head, gfl_inference
from ladle.detectors.ota import ota_head, ota_inference
from ladle.detectors.paa import paa_head, paa_inference
from ladle.detectors.retinanet import retinanet_head, retinanet_inference
from ladle.detectors.rtmdet import rtmdet_head, rtmdet_inference
from ladle.detectors.tood import tood_head, tood_inference
from ladle.detectors.yolox import yolox_head, yolox_inference
from ladle.errors import UserError

__all__ = ["FAMILIES", "HEADS", "READY_MADE", "REGION_FAMILIES", "Start", "detector_spec"]

FAMILIES = {
    "retinanet": (retinanet_head, retinanet_inference),
    "atss": (atss_head, atss_inference),
    "paa": (paa_head, paa_inference),
    "gfl": (gfl_head, gfl_inference),
    "fcos": (fcos_head, fcos_inference),
    "ota": (ota_head, ota_inference),
    "autoassign": (autoassign_head, autoassign_inference),
    "tood": (tood_head, tood_inference),
    "yolox": (yolox_head, yolox_inference),
    "rtmdet": (rtmdet_head, rtmdet_inference),
}
"""A family's head and how its predictions are read."""

REGION_FAMILIES = {"fasterrcnn": faster_rcnn_regions, "cascade": cascade_regions}
"""The families in several stages: what comes after a proposal network."""

HEADS: dict[str, dict[str, Any]] = {
    "dist": {"box": "distribution"},
    "cop": {"objectness": "conditional"},
    "io": {"objectness": "implicit"},
}
"""What may be put behind a family with a plus: fields of its head."""

READY_MADE = tuple(
    f"{family}-{backbone}" for family in (*FAMILIES, *REGION_FAMILIES) for backbone in (*SMALL, *RESNETS)
)
"""The names that come with settings of their own; any timm model works behind the dash as well."""


@dataclass(frozen=True)
class _Size:
    width: int
    depth: int
    scale: float
    extra: int
    imgsz: int


_SIZES = {
    "tiny": _Size(48, 1, 4.0, 0, 160),
    "mini": _Size(64, 2, 4.0, 0, 160),
    "small": _Size(96, 2, 4.0, 0, 160),
}
_PAPER = _Size(256, 4, 8.0, 2, 640)


@dataclass(frozen=True)
class Start:
    """What the backbone starts from, and how it and the neck are normalised.

    ``norm`` None means frozen with given weights, batch normalisation without.
    """

    pretrained: bool = False
    weights: str | None = None
    norm: Norm | None = None
    neck_norm: NeckNorm = "none"


def detector_spec(
    name: str,
    classes: Sequence[str],
    category_ids: Sequence[int] | None = None,
    imgsz: int | None = None,
    start: Start = Start(),
) -> DetectorSpec:
    """Look up ``<family>-<backbone>``, or ``<family>+<head>-<backbone>``, for a set of classes.

    Examples:
        >>> from ladle.detectors import detector_spec
        >>> spec = detector_spec("atss+dist-small", ("cat", "dog"), imgsz=320)
        >>> spec.family, spec.head.box, spec.strides, spec.imgsz
        ('atss', 'distribution', (8, 16, 32), 320)
        >>> detector = spec.build()  # with random weights
    """
    kind, _, backbone = name.partition("-")
    family, *heads = kind.split("+")
    if family not in {*FAMILIES, *REGION_FAMILIES} or not backbone:
        close = get_close_matches(name, READY_MADE, n=1)
        hint = f"did you mean {close[0]}?" if close else "`ladle models` lists them"
        raise UserError(f"no detector is called {name!r}: expected <family>-<backbone> such as paa-r18; {hint}")
    size = _SIZES.get(backbone, _PAPER)
    norm: Norm = start.norm or ("frozen" if start.pretrained or start.weights else "batch")
    mean, std = color_statistics(backbone)
    finest: Literal[4, 8] = 4 if family in REGION_FAMILIES and size is _PAPER else 8
    spec = DetectorSpec(
        name=name,
        family=family,
        classes=tuple(classes),
        category_ids=tuple(category_ids) if category_ids is not None else tuple(range(1, len(classes) + 1)),
        backbone=BackboneSpec(backbone, norm, start.pretrained, start.weights, finest),
        head=DenseSpec(),
        extra=size.extra,
        imgsz=size.imgsz if imgsz is None else imgsz,
        neck_norm=start.neck_norm,
        mean=mean,
        std=std,
    )
    return _in_stages(spec, size, heads) if family in REGION_FAMILIES else _dense(spec, size, heads)


def _dense(spec: DetectorSpec, size: _Size, options: Sequence[str]) -> DetectorSpec:
    head, inference = FAMILIES[spec.family]
    return replace(
        spec, head=_with(head(size.width, size.depth, size.scale), options, spec.name), inference=inference()
    )


def _in_stages(spec: DetectorSpec, size: _Size, options: Sequence[str]) -> DetectorSpec:
    if options:
        raise UserError(f"{spec.name}: +{options[0]} is a dense head, and {spec.family} has none; leave it out")
    head = proposal_head(size.width, size.scale)
    regions = REGION_FAMILIES[spec.family](head)
    return replace(spec, head=head, regions=regions, inference=region_inference(), extra=min(size.extra, 1))


def _with(head: DenseSpec, options: Sequence[str], name: str) -> DenseSpec:
    """The head with what was put behind its family."""
    for option in options:
        if option not in HEADS:
            raise UserError(f"{name}: no head is called {option!r}; expected one of {', '.join(HEADS)}")
        if "objectness" in HEADS[option] and head.anchors.per_location > 1:
            raise UserError(
                f"{name}: {option} makes one score of a location and its neighbours, but this family has "
                f"{head.anchors.per_location} anchors at each; take another, such as paa+{option}"
            )
        head = replace(head, **HEADS[option])
    return head
