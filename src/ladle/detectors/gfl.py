"""The GFL detector (Li et al., NeurIPS 2020): scores that mean quality, and box edges as distributions."""

from __future__ import annotations

from ladle.detectors.dense import DenseSpec
from ladle.detectors.postprocess import Inference
from ladle.detectors.priors import Anchors

__all__ = ["gfl_head", "gfl_inference"]


def gfl_head(width: int, depth: int, scale: float) -> DenseSpec:
    """ATSS's anchors of ``scale`` strides (8 in the paper); distances from their centres over 0 ... 16 strides."""
    return DenseSpec(width, depth, Anchors(scales=(scale,)), quality=False, box="distribution")


def gfl_inference() -> Inference:
    """Class scores, which are the quality already; suppression at IoU 0.6."""
    return Inference(rule="class", nms=0.6)
