"""The FCOS detector (Tian et al., ICCV 2019): a point a location, distances to the edges, a centerness branch."""

from __future__ import annotations

from ladle.detectors.dense import DenseSpec
from ladle.detectors.postprocess import Inference
from ladle.detectors.priors import Anchors

__all__ = ["fcos_head", "fcos_inference"]


def fcos_head(width: int, depth: int, scale: float) -> DenseSpec:
    """Points in the middles of the cells; the centerness branch stands on the box tower, as in later releases."""
    return DenseSpec(width, depth, Anchors(scales=(scale,), offset=0.5), box="distances")


def fcos_inference() -> Inference:
    """Class score times centerness, suppression at IoU 0.6 (authors' code; mmdetection takes 0.5)."""
    return Inference(rule="product", nms=0.6)
