"""YOLOX's way of learning (Ge et al., 2021) on the common head: points, distances and an objectness branch."""

from __future__ import annotations

from ladle.detectors.dense import DenseSpec
from ladle.detectors.postprocess import Inference
from ladle.detectors.priors import Anchors

__all__ = ["yolox_head", "yolox_inference"]


def yolox_head(width: int, depth: int, scale: float) -> DenseSpec:
    """Points in the middles of the cells; the objectness starts at 0.01, for all priors but a few are background."""
    return DenseSpec(width, depth, Anchors(scales=(scale,), offset=0.5), box="distances", quality_prior=0.01)


def yolox_inference() -> Inference:
    """Class score times objectness, suppression at IoU 0.65."""
    return Inference(rule="product", nms=0.65)
