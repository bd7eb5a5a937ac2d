"""TOOD's way of learning (Feng et al., ICCV 2021) on the common head; the paper's task-aligned head is left out."""

from __future__ import annotations

from ladle.detectors.dense import DenseSpec
from ladle.detectors.postprocess import Inference
from ladle.detectors.priors import Anchors

__all__ = ["tood_head", "tood_inference"]


def tood_head(width: int, depth: int, scale: float) -> DenseSpec:
    """Points in the middles of the cells, without a quality branch (authors' code: points at the corners)."""
    return DenseSpec(width, depth, Anchors(scales=(scale,), offset=0.5), quality=False, box="distances")


def tood_inference() -> Inference:
    """Class scores, which are the quality already; suppression at IoU 0.6."""
    return Inference(rule="class", nms=0.6)
