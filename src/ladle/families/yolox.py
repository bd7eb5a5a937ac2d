"""YOLOX (Ge et al., 2021): points, a box and an objectness in each cell, SimOTA."""

from __future__ import annotations

from ladle.assigners import SimOTA
from ladle.criteria import DenseCriterion
from ladle.detectors import PAN, Anchors, ConvSpec, DenseSpec, Inference, LightSpec
from ladle.families.family import Family
from ladle.families.sizes import Network, Size

__all__ = ["YOLOX"]


def head(size: Size) -> DenseSpec:
    """The common head with distances; the initial objectness is 0.01, since nearly all priors are background."""
    anchors = Anchors(scales=(size.scale,), offset=0.5)
    return DenseSpec(size.width, size.depth, anchors, box="distances", quality_prior=0.01)


def network(size: str, width: int, blocks: int, imgsz: int, depthwise: bool = False) -> Network:
    """A network of published size: a head with convolutions of its own for each level."""
    conv = ConvSpec(eps=1e-3, momentum=0.03, depthwise=depthwise)
    light = LightSpec(conv, shared=False)
    anchors = Anchors(offset=0.5)
    head = DenseSpec(width, 2, anchors, level_scale=False, box="cell", quality_prior=0.01, light=light)
    return Network(f"cspdarknet_{size}", head, PAN("darknet", blocks, conv, last=1), imgsz=imgsz)


YOLOX = Family(
    name="yolox",
    head=head,
    inference=Inference(rule="product", nms=0.65),
    assigner=SimOTA(),
    criterion=DenseCriterion(
        classes="overlap", box="iou2", box_weight=5.0, share="count", quality="objectness", quality_weight=1.0
    ),
    quality="objectness",
    closing_l1=1.0,
    sizes={
        "n": network("n", 64, 1, 416, depthwise=True),
        "t": network("t", 96, 1, 416),
        "s": network("s", 128, 1, 640),
        "m": network("m", 192, 2, 640),
    },
)
"""Cross entropy with IoU, 5 x (1 - IoU^2) and objectness, each divided by the number of positives.

The sizes are the published networks Nano, Tiny, S and M. In the closing epochs, without mosaics, L1 is added.
"""
