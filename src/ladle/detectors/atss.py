"""The ATSS detector (Zhang et al., CVPR 2020): one square anchor a location and a centerness branch."""

from __future__ import annotations

from ladle.detectors.dense import DenseSpec
from ladle.detectors.postprocess import Inference
from ladle.detectors.priors import Anchors

__all__ = ["atss_head", "atss_inference"]


def atss_head(width: int, depth: int, scale: float) -> DenseSpec:
    """One square anchor of ``scale`` strides (8 in the paper)."""
    return DenseSpec(width, depth, Anchors(scales=(scale,)))


def atss_inference() -> Inference:
    """Class score times centerness, suppression at IoU 0.6."""
    return Inference(rule="product", nms=0.6)
