"""RTMDet's way of learning (Lyu et al., 2022) on the common head: points, distances, scores that mean quality."""

from __future__ import annotations

from ladle.detectors.dense import DenseSpec
from ladle.detectors.postprocess import Inference
from ladle.detectors.priors import Anchors

__all__ = ["rtmdet_head", "rtmdet_inference"]


def rtmdet_head(width: int, depth: int, scale: float) -> DenseSpec:
    """Points in the middles of the cells, without a quality branch (mmdetection: points at the corners)."""
    return DenseSpec(width, depth, Anchors(scales=(scale,), offset=0.5), quality=False, box="distances")


def rtmdet_inference() -> Inference:
    """Class scores, which are the quality already; suppression at IoU 0.65."""
    return Inference(rule="class", nms=0.65)
