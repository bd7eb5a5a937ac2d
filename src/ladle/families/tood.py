"""TOOD (Feng et al., ICCV 2021): the task-aligned head, task-aligned assignment and loss."""

from __future__ import annotations

from ladle.assigners import TaskAligned
from ladle.criteria import DenseCriterion
from ladle.detectors import Anchors, DenseSpec, Inference
from ladle.families.family import Family
from ladle.families.sizes import Size

__all__ = ["TOOD"]

_DEPTH = 6


def head(size: Size) -> DenseSpec:
    """Points in the middles of the cells, without a quality branch (authors' code: points at the corners).

    The head of published width is the paper's, smaller ones are the common head.
    """
    anchors = Anchors(scales=(size.scale,), offset=0.5)
    if size.width < Size().width:
        return DenseSpec(size.width, size.depth, anchors, quality=False, box="distances")
    return DenseSpec(size.width, _DEPTH, anchors, quality=False, box="distances", distance="exp", aligned=True)


TOOD = Family(
    name="tood",
    head=head,
    inference=Inference(rule="class", nms=0.6),
    assigner=TaskAligned(),
    criterion=DenseCriterion(classes="aligned", box_weight=2.0, share="count", quality=None),
)
"""Task-aligned loss and 2 x GIoU, both divided by the sum of the soft targets."""
