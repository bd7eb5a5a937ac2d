"""The PAA detector (Kim & Lee, ECCV 2020): ATSS's network with a branch that predicts the IoU."""

from __future__ import annotations

from ladle.detectors.dense import DenseSpec
from ladle.detectors.postprocess import Inference
from ladle.detectors.priors import Anchors

__all__ = ["paa_head", "paa_inference"]


def paa_head(width: int, depth: int, scale: float) -> DenseSpec:
    """One square anchor of ``scale`` strides (8 in the paper)."""
    return DenseSpec(width, depth, Anchors(scales=(scale,)))


def paa_inference() -> Inference:
    """The root of class score times predicted IoU, suppression at IoU 0.6, score voting."""
    return Inference(rule="root", nms=0.6, voting=True)
