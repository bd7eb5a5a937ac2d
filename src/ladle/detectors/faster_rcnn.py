"""Faster R-CNN (Ren et al. 2015; with a pyramid, Lin et al. 2017) and Cascade R-CNN (Cai & Vasconcelos, CVPR 2018)."""

from __future__ import annotations

from ladle.boxes import STDS
from ladle.detectors.postprocess import Inference
from ladle.detectors.priors import Anchors
from ladle.detectors.proposals import ProposalSpec
from ladle.detectors.regions import RegionSpec

__all__ = ["cascade_regions", "faster_rcnn_regions", "proposal_head", "region_inference"]

_LARGE = 256
"""Width of the pyramid of the published networks."""
_CASCADE_STDS = (STDS, (0.05, 0.1), (0.033, 0.067))
"""The finer a stage's work, the smaller its deltas (mmdetection)."""


def proposal_head(width: int, scale: float) -> ProposalSpec:
    """Torchvision's proposal network; in small networks one square anchor a location and fewer proposals.

    That square is the prior of ATSS, PAA and GFL too: a one-stage detector can judge proposals.
    """
    if width >= _LARGE:
        return ProposalSpec(width, anchors=Anchors((scale,), (0.5, 1.0, 2.0), rounded=True))
    return ProposalSpec(width, anchors=Anchors((scale,)), candidates=(500, 300), keep=(500, 200))


def faster_rcnn_regions(proposals: ProposalSpec) -> tuple[RegionSpec, ...]:
    """One look, a box for each class."""
    return (_region(proposals, agnostic=False, stds=STDS, first=True),)


def cascade_regions(proposals: ProposalSpec) -> tuple[RegionSpec, ...]:
    """Three looks, each at the boxes of the one before, one box for all classes."""
    every = enumerate(_CASCADE_STDS)
    return tuple(_region(proposals, agnostic=True, stds=stds, first=not number) for number, stds in every)


def region_inference() -> Inference:
    """Class scores, suppression at IoU 0.5."""
    return Inference(rule="class", nms=0.5, least=1e-2)


def _region(proposals: ProposalSpec, agnostic: bool, stds: tuple[float, float], first: bool) -> RegionSpec:
    large = proposals.width >= _LARGE
    return RegionSpec(
        width=proposals.width,
        hidden=1024 if large else 4 * proposals.width,
        pool=7 if large else 5,
        levels=4 if large else 3,
        agnostic=agnostic,
        stds=stds,
        proposals=proposals if first else None,
    )
