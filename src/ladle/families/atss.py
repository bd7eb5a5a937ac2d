"""ATSS (Zhang et al., CVPR 2020): one square anchor at each location and a centerness branch."""

from __future__ import annotations

from ladle.assigners import ATSS as ATSS_ASSIGNER
from ladle.criteria import DenseCriterion
from ladle.detectors import Anchors, DenseSpec, Inference
from ladle.distillers import LocalizationDistillation
from ladle.families.family import Family
from ladle.families.sizes import Size

__all__ = ["ATSS"]


def head(size: Size) -> DenseSpec:
    """One anchor of ``size.scale`` strides (8 in the paper)."""
    return DenseSpec(size.width, size.depth, Anchors(scales=(size.scale,)))


ATSS = Family(
    name="atss",
    head=head,
    inference=Inference(rule="product", nms=0.6),
    assigner=ATSS_ASSIGNER(),
    criterion=DenseCriterion(box_weight=2.0, quality="centerness", quality_weight=1.0, floor="image"),
    quality="centerness",
    edges_weight=0.0,
    distillers=(LocalizationDistillation(ring_weight=0.0375, images=2.0),),
)
"""FCOS's losses with twice the box weight; the score is class score times centerness, NMS at IoU 0.6."""
