"""PAA (Kim & Lee, ECCV 2020): ATSS's network with a branch that predicts the IoU."""

from __future__ import annotations

from ladle.assigners import PAA as PAA_ASSIGNER
from ladle.criteria import DenseCriterion
from ladle.detectors import Anchors, DenseSpec, Inference
from ladle.families.family import Family
from ladle.families.sizes import Size

__all__ = ["PAA"]


def head(size: Size) -> DenseSpec:
    """One square anchor of ``size.scale`` strides (8 in the paper)."""
    return DenseSpec(size.width, size.depth, Anchors(scales=(size.scale,)))


PAA = Family(
    name="paa",
    head=head,
    inference=Inference(rule="root", nms=0.6, voting=True),
    assigner=PAA_ASSIGNER(),
    criterion=DenseCriterion(),
    judged_share="count",
    quality="iou",
)
"""Focal loss, 1.3 x GIoU weighted by IoU, and 0.5 x IoU.

If a teacher judges, all positives have the same weight in the box loss, as in mmdetection's LAD. The score is the root
of class score times predicted IoU, with NMS at IoU 0.6 and score voting.
"""
