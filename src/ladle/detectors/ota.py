"""The OTA detector (Ge et al., CVPR 2021): FCOS's network with a branch that predicts the IoU."""

from __future__ import annotations

from ladle.detectors.dense import DenseSpec
from ladle.detectors.postprocess import Inference
from ladle.detectors.priors import Anchors

__all__ = ["ota_head", "ota_inference"]


def ota_head(width: int, depth: int, scale: float) -> DenseSpec:
    """Points in the middles of the cells, so that FCOS and OTA can judge for one another (authors' code: corners)."""
    return DenseSpec(width, depth, Anchors(scales=(scale,), offset=0.5), box="distances")


def ota_inference() -> Inference:
    """The root of class score times predicted IoU, suppression at IoU 0.6."""
    return Inference(rule="root", nms=0.6)
