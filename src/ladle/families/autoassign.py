"""AutoAssign (Zhu et al., arXiv 2007.03496): FCOS's network with center priors and an objectness without targets."""

from __future__ import annotations

from ladle.assigners import AutoAssign
from ladle.criteria import DenseCriterion
from ladle.detectors import Anchors, DenseSpec, Inference
from ladle.families.family import Family
from ladle.families.sizes import Size

__all__ = ["AUTOASSIGN"]


def head(size: Size) -> DenseSpec:
    """Points at the corners of the cells; the quality branch is the implicit objectness."""
    anchors = Anchors(scales=(size.scale,))
    return DenseSpec(size.width, size.depth, anchors, box="distances", class_prior=0.02, center_prior=True)


AUTOASSIGN = Family(
    name="autoassign",
    head=head,
    inference=Inference(rule="product", nms=0.6),
    assigner=AutoAssign(),
    criterion=DenseCriterion(box_weight=2.0, share="count"),
    quality="implicit objectness",
)
"""Its published assigner is soft; the losses are :class:`~ladle.criteria.BagCriterion`.

With another assigner the losses are those of OTA. The score is class score times objectness, NMS at IoU 0.6.
"""
