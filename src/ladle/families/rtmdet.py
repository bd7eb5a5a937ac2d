"""RTMDet's assigner and losses (Lyu et al., 2022) with the common dense head: points, distances, no quality branch."""

from __future__ import annotations

from ladle.assigners import DynamicSoftLabel
from ladle.criteria import DenseCriterion
from ladle.detectors import Anchors, DenseSpec, Inference
from ladle.families.family import Family, Size

__all__ = ["RTMDET"]


def head(size: Size) -> DenseSpec:
    """Points at the centers of the cells, without a quality branch (mmdetection: points at the corners)."""
    return DenseSpec(size.width, size.depth, Anchors(scales=(size.scale,), offset=0.5), quality=False, box="distances")


RTMDET = Family(
    name="rtmdet",
    head=head,
    inference=Inference(rule="class", nms=0.65),
    assigner=DynamicSoftLabel(),
    criterion=DenseCriterion(classes="quality", class_count="overlaps", box_weight=2.0, share="quality", quality=None),
)
"""Quality focal loss and 2 x GIoU weighted by IoU, both divided by the sum of IoUs (mmdetection)."""
