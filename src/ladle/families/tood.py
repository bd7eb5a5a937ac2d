"""TOOD's way of learning (Feng et al., ICCV 2021) on the common head; the paper's task-aligned head is left out."""

from __future__ import annotations

from ladle.assigners import TaskAligned
from ladle.criteria import DenseCriterion
from ladle.detectors import Anchors, DenseSpec, Inference
from ladle.families.family import Family
from ladle.families.sizes import Size

__all__ = ["TOOD"]


def head(size: Size) -> DenseSpec:
    """Points in the middles of the cells, without a quality branch (authors' code: points at the corners)."""
    return DenseSpec(size.width, size.depth, Anchors(scales=(size.scale,), offset=0.5), quality=False, box="distances")


TOOD = Family(
    name="tood",
    head=head,
    inference=Inference(rule="class", nms=0.6),
    assigner=TaskAligned(),
    criterion=DenseCriterion(classes="aligned", box_weight=2.0, share="count", quality=None),
)
"""Task-aligned loss and 2 x GIoU, both divided by the sum of the soft targets."""
