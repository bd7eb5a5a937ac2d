"""The AutoAssign detector (Zhu et al., 2020): FCOS's network with an objectness nobody teaches, and centre priors."""

from __future__ import annotations

from ladle.detectors.dense import DenseSpec
from ladle.detectors.postprocess import Inference
from ladle.detectors.priors import Anchors

__all__ = ["autoassign_head", "autoassign_inference"]


def autoassign_head(width: int, depth: int, scale: float) -> DenseSpec:
    """Points at the corners of the cells; the quality branch is the implicit objectness."""
    anchors = Anchors(scales=(scale,))
    return DenseSpec(width, depth, anchors, box="distances", class_prior=0.02, center_prior=True)


def autoassign_inference() -> Inference:
    """Class score times objectness, suppression at IoU 0.6."""
    return Inference(rule="product", nms=0.6)
