"""OTA (Ge et al., CVPR 2021): FCOS's network with a branch that predicts the IoU."""

from __future__ import annotations

from ladle.assigners import OTA as OTA_ASSIGNER
from ladle.criteria import DenseCriterion
from ladle.detectors import Anchors, DenseSpec, Inference
from ladle.families.family import Family
from ladle.families.sizes import Size

__all__ = ["OTA"]


def head(size: Size) -> DenseSpec:
    """Points at the centers of the cells, as in FCOS, so that either can teach the other (authors' code: corners)."""
    return DenseSpec(size.width, size.depth, Anchors(scales=(size.scale,), offset=0.5), box="distances")


OTA = Family(
    name="ota",
    head=head,
    inference=Inference(rule="root", nms=0.6),
    assigner=OTA_ASSIGNER(),
    criterion=DenseCriterion(box_weight=2.0, share="count"),
    quality="iou",
)
"""Focal loss, 2 x GIoU and 0.5 x IoU, each divided by the number of positives (released configuration)."""
