"""Assignment by overlap with the prior's own box (Faster R-CNN, RetinaNet)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from ladle.assigners.protocol import full_precision
from ladle.overlaps import best_overlaps, outside_crowds, rescuers
from ladle.types import Assignment, GroundTruth, Predictions, Priors

__all__ = ["MaxIoU"]


@dataclass(frozen=True)
class MaxIoU:
    """A prior learns the object it overlaps most, if it overlaps it enough (Ren et al. 2015; Lin et al. 2017).

    Args:
        positive: least IoU that makes a prior an object.
        negative: IoU below which it is background; in between it is ignored.
        rescue: least IoU at which an object may still claim the priors that overlap it best of all ("low-quality
            matches"); None never rescues. Objects that touch no prior claim none, where the reference code gives such
            an object *every* prior it does not touch when this is 0.
        rescued: whom a claimed prior learns: the claiming ``"object"`` (the last one listed, mmdetection) or the object
            the ``"prior"`` itself overlaps most (torchvision).
        crowd: a prior with more than this share inside a crowd region is not background.
    """

    positive: float = 0.5
    negative: float = 0.4
    rescue: float | None = 0.0
    rescued: Literal["object", "prior"] = "object"
    crowd: float = 0.5

    @full_precision
    def __call__(self, predictions: Predictions, priors: Priors, truth: GroundTruth) -> Assignment:
        """Assign by the priors' boxes alone; the predictions are not looked at."""
        overlaps = best_overlaps(priors.boxes, priors.valid, truth)
        positive, index = overlaps.iou >= self.positive, overlaps.index
        background = (overlaps.iou < self.negative) & outside_crowds(priors, truth, self.crowd)
        if self.rescue is not None:
            claimed, claimant = rescuers(priors, truth, overlaps.peak, self.rescue)
            positive = positive | claimed
            index = torch.where(claimed, claimant, index) if self.rescued == "object" else index
        return Assignment.hard(index, positive, background)
