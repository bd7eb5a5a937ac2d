"""YOLOX's assigner and losses (Ge et al., 2021) with the common dense head: points, distances, an objectness branch."""

from __future__ import annotations

from ladle.assigners import SimOTA
from ladle.criteria import DenseCriterion
from ladle.detectors import Anchors, DenseSpec, Inference
from ladle.families.family import Family, Size

__all__ = ["YOLOX"]


def head(size: Size) -> DenseSpec:
    """Points at the centers of the cells; the initial objectness is 0.01, since nearly all priors are background."""
    anchors = Anchors(scales=(size.scale,), offset=0.5)
    return DenseSpec(size.width, size.depth, anchors, box="distances", quality_prior=0.01)


YOLOX = Family(
    name="yolox",
    head=head,
    inference=Inference(rule="product", nms=0.65),
    assigner=SimOTA(),
    criterion=DenseCriterion(
        classes="overlap", box="iou2", box_weight=5.0, share="count", quality="objectness", quality_weight=1.0
    ),
    quality="objectness",
)
"""Cross entropy with IoU, 5 x (1 - IoU^2) and objectness, each divided by the number of positives.

The L1 term of the last 15 epochs is left out.
"""
