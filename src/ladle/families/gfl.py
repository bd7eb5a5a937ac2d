"""GFL (Li et al., NeurIPS 2020): class scores that predict IoU, and box edges as distributions."""

from __future__ import annotations

from ladle.assigners import ATSS
from ladle.criteria import DenseCriterion
from ladle.detectors import Anchors, DenseSpec, Inference
from ladle.families.family import Family
from ladle.families.sizes import Size

__all__ = ["GFL"]


def head(size: Size) -> DenseSpec:
    """ATSS's anchors (8 strides in the paper); distances from their centers over 0 to 16 strides."""
    return DenseSpec(size.width, size.depth, Anchors(scales=(size.scale,)), quality=False, box="distribution")


GFL = Family(
    name="gfl",
    head=head,
    inference=Inference(rule="class", nms=0.6),
    assigner=ATSS(),
    criterion=DenseCriterion(
        classes="quality", box_weight=2.0, share="score", edges_weight=0.25, quality=None, floor="image"
    ),
)
"""Quality focal loss, 2 x GIoU and 0.25 x distribution focal loss, both weighted by the score."""
