"""Cascade R-CNN (Cai & Vasconcelos, CVPR 2018): three region heads in a row."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from ladle.assigners import MaxIoU
from ladle.boxes import STDS
from ladle.families.family import Region
from ladle.families.faster_rcnn import FASTER_RCNN, region_head

__all__ = ["CASCADE"]

_STAGES = ((0.5, 1.0, STDS), (0.6, 0.5, (0.05, 0.1)), (0.7, 0.25, (0.033, 0.067)))
"""For each region head: lowest IoU of a positive, weight of its losses, scales of its deltas (mmdetection)."""

CASCADE = replace(
    FASTER_RCNN,
    name="cascade",
    regions=tuple(
        Region(
            partial(region_head, agnostic=True, stds=stds, first=number == 0),
            MaxIoU(least, least, rescue=None),
            weight,
        )
        for number, (least, weight, stds) in enumerate(_STAGES)
    ),
)
"""Faster R-CNN with three region heads, each at the refined boxes of the previous one, with one box for all classes."""
