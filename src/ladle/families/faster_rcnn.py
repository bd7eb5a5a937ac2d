"""Faster R-CNN (Ren et al. 2015; with a pyramid, Lin et al. 2017)."""

from __future__ import annotations

from ladle.assigners import MaxIoU, RandomSampler
from ladle.boxes import STDS
from ladle.criteria import RegionCriterion
from ladle.detectors import PLAIN_STDS, Anchors, Inference, ProposalSpec, RegionSpec
from ladle.distillers import FGD, MGD
from ladle.families.family import Family, Region
from ladle.families.sizes import Size

__all__ = ["FASTER_RCNN", "PUBLISHED_WIDTH", "proposal_head", "region_head"]

PUBLISHED_WIDTH = 256
"""Width of the pyramid of the published networks."""


def proposal_head(size: Size) -> ProposalSpec:
    """Torchvision's proposal network; small networks have one square anchor at each location and fewer proposals.

    ATSS, PAA and GFL have the same square anchor, so such a detector can be the teacher of the proposal network.
    """
    if size.width >= PUBLISHED_WIDTH:
        return ProposalSpec(size.width, anchors=Anchors((size.scale,), (0.5, 1.0, 2.0), rounded=True))
    return ProposalSpec(size.width, anchors=Anchors((size.scale,)), candidates=(500, 300), keep=(500, 200))


def region_head(
    proposals: ProposalSpec, agnostic: bool = False, stds: tuple[float, float] = STDS, first: bool = True
) -> RegionSpec:
    """A region head of two fully connected layers; the ``first`` one selects the proposals."""
    large = proposals.width >= PUBLISHED_WIDTH
    return RegionSpec(
        width=proposals.width,
        hidden=1024 if large else 4 * proposals.width,
        pool=7 if large else 5,
        levels=4 if large else 3,
        agnostic=agnostic,
        stds=stds,
        proposals=proposals if first else None,
    )


FASTER_RCNN = Family(
    name="fasterrcnn",
    head=proposal_head,
    inference=Inference(rule="class", nms=0.5, least=1e-2),
    assigner=MaxIoU(0.7, 0.3, rescued="prior"),
    criterion=RegionCriterion(stds=PLAIN_STDS),
    sampler=RandomSampler(256, 0.5),
    regions=(Region(region_head, MaxIoU(0.5, 0.5, rescue=None)),),
    distillers=(
        FGD(foreground=5e-5, background=2.5e-5, attention=5e-5, relation=5e-7),
        MGD(weight=5e-7, erased=0.45),
    ),
)
"""One region head with a box for each class; cross entropy and smooth L1, as in torchvision.

An anchor that is rescued is assigned to the object with which it has the largest IoU, as in torchvision.
"""
