"""RetinaNet (Lin et al., ICCV 2017): nine anchors at each location, no quality branch."""

from __future__ import annotations

from ladle.assigners import MaxIoU
from ladle.criteria import DenseCriterion
from ladle.detectors import Anchors, DenseSpec, Inference
from ladle.distillers import LocalizationDistillation
from ladle.families.family import Family
from ladle.families.sizes import Size

__all__ = ["RETINANET"]


def head(size: Size) -> DenseSpec:
    """Three scales by three ratios; the finest anchor's side is ``size.scale / 2`` strides (4 in the paper)."""
    octaves = tuple(size.scale / 2 * 2 ** (step / 3) for step in range(3))
    anchors = Anchors(scales=octaves, ratios=(0.5, 1.0, 2.0))
    return DenseSpec(size.width, size.depth, anchors, quality=False, norm=False, level_scale=False)


RETINANET = Family(
    name="retinanet",
    head=head,
    inference=Inference(rule="class", nms=0.5),
    assigner=MaxIoU(),
    criterion=DenseCriterion(box="l1", box_weight=1.0, share="count", quality=None, floor="image"),
    edges_weight=0.0,
    distillers=(
        LocalizationDistillation(
            weight=5.0, ring_weight=0.15, class_temperature=8.0, shared=False, rows="box", images=2.0
        ),
    ),
)
"""Focal loss and L1 on deltas, each divided by the number of positives (mmdetection); NMS at IoU 0.5."""
