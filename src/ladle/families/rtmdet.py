"""RTMDet (Lyu et al., 2022): points, distances without a quality branch, the dynamic soft label."""

from __future__ import annotations

from typing import Literal

from ladle.assigners import DynamicSoftLabel
from ladle.criteria import DenseCriterion
from ladle.detectors import PAN, Anchors, DenseSpec, Inference, LightSpec
from ladle.families.family import Family
from ladle.families.sizes import Network, Size

__all__ = ["RTMDET"]


def head(size: Size) -> DenseSpec:
    """The common head: points at the centers of the cells, without a quality branch."""
    return DenseSpec(size.width, size.depth, Anchors(scales=(size.scale,), offset=0.5), quality=False, box="distances")


def network(size: str, width: int, blocks: int, distance: Literal["linear", "exp"] = "linear") -> Network:
    """A network of published size: points at the corners of the cells, convolutions that all levels share."""
    head = DenseSpec(width, 2, quality=False, level_scale=False, box="distances", distance=distance, light=LightSpec())
    return Network(f"cspnext_{size}", head, PAN("cspnext", blocks))


RTMDET = Family(
    name="rtmdet",
    head=head,
    inference=Inference(rule="class", nms=0.65),
    assigner=DynamicSoftLabel(),
    criterion=DenseCriterion(classes="quality", class_count="overlaps", box_weight=2.0, share="quality", quality=None),
    sizes={
        "n": network("n", 64, 1),
        "t": network("t", 96, 1),
        "s": network("s", 128, 1),
        "m": network("m", 192, 2, "exp"),
    },
)
"""Quality focal loss and 2 x GIoU weighted by IoU, both divided by the sum of IoUs (mmdetection).

The sizes ``t``, ``s`` and ``m`` are the published networks; ``n`` has two thirds of the width of ``t``.
"""
