"""FCOS (Tian et al., ICCV 2019): one point at each location, distances to the edges, a centerness branch."""

from __future__ import annotations

from ladle.assigners import FCOS as FCOS_ASSIGNER
from ladle.criteria import DenseCriterion
from ladle.detectors import Anchors, DenseSpec, Inference
from ladle.distillers import FGD, CrossKD, LocalizationDistillation
from ladle.families.family import Family
from ladle.families.sizes import Size

__all__ = ["FCOS"]


def head(size: Size) -> DenseSpec:
    """Points at the centers of the cells; the centerness branch is on the box tower, as in later releases."""
    return DenseSpec(size.width, size.depth, Anchors(scales=(size.scale,), offset=0.5), box="distances")


FCOS = Family(
    name="fcos",
    head=head,
    inference=Inference(rule="product", nms=0.6),
    assigner=FCOS_ASSIGNER(),
    criterion=DenseCriterion(box_weight=1.0, quality="centerness", quality_weight=1.0),
    quality="centerness",
    edges_weight=0.0,
    distillers=(
        LocalizationDistillation(region="inside", images=2.0),
        FGD(foreground=1.6e-3, background=8e-4, attention=8e-4, relation=8e-6, temperature=0.8),
    ),
    as_teacher=(
        CrossKD(class_weight=0.4, box_weight=0.75, quality_weight=0.0, after=2, box_loss="iou", count="centerness"),
    ),
)
"""Focal loss, GIoU weighted by centerness (as in the authors' later code), and centerness.

The score is class score times centerness, NMS at IoU 0.6 (authors' code; mmdetection takes 0.5).
"""
