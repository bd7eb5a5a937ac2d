"""RetinaNet (Lin et al., ICCV 2017): nine anchors a location, no quality branch."""

from __future__ import annotations

from ladle.detectors.dense import DenseSpec
from ladle.detectors.postprocess import Inference
from ladle.detectors.priors import Anchors

__all__ = ["retinanet_head", "retinanet_inference"]


def retinanet_head(width: int, depth: int, scale: float) -> DenseSpec:
    """Three scales by three ratios; the finest anchor's side is ``scale / 2`` strides (4 in the paper)."""
    octaves = tuple(scale / 2 * 2 ** (step / 3) for step in range(3))
    anchors = Anchors(scales=octaves, ratios=(0.5, 1.0, 2.0))
    return DenseSpec(width, depth, anchors, quality=False, norm=False, level_scale=False)


def retinanet_inference() -> Inference:
    """Class scores, suppression at IoU 0.5."""
    return Inference(rule="class", nms=0.5)
