"""Assignment by the IoU of priors and objects (Faster R-CNN, RetinaNet)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from ladle.assigners.judged import class_factors, count_per_object, fill_unmatched, keep_counts, rejected_ignored
from ladle.assigners.protocol import full_precision
from ladle.overlaps import Overlaps, best_overlaps, outside_crowds
from ladle.similarity import SimD
from ladle.types import Assignment, GroundTruth, Predictions, Priors

__all__ = ["MaxIoU"]


@dataclass(frozen=True)
class MaxIoU:
    """A prior learns the object of highest IoU, if the IoU is high enough (Ren et al. 2015; Lin et al. 2017).

    Args:
        positive: lowest IoU of a positive prior.
        negative: priors of lower IoU are background; those in between are ignored.
        rescue: every object of at least this IoU with any prior is also given the priors of its highest IoU
            ("low-quality matches"); None disables it. An object of IoU 0 with all priors gets none. The reference code
            gives such an object *all* priors of IoU 0 when this is 0.
        rescued: the object that a rescued prior learns: the ``"object"`` that rescues it, the last one listed if there
            are several (mmdetection), or the object of highest IoU with the ``"prior"`` (torchvision).
        crowd: a prior with more than this share of its area inside a crowd region is not background.
        boxes: the boxes that are compared with objects: those of the ``priors`` (the papers), or the ``predictions`` at
            them, which lets a teacher judge. An object that gets no prior by predicted boxes keeps those of the papers'
            rule.
        keep_count: with ``predictions``, each object has as many positive and as many ignored priors as by the papers'
            rule, those of highest overlap, without thresholds.
        class_power: with ``predictions``, overlaps are multiplied by this power of the judge's score for the object's
            class; 0 does not change them.
        ignore_rejected: with ``predictions``, a prior that is positive by the papers' rule but not by predicted boxes
            is ignored instead of background.
        overlap: the ``"iou"``, or a :class:`~ladle.assigners.SimD` in its place, for tiny objects that overlap no prior
            well; thresholds apply to it unchanged.

    Examples:
        >>> from ladle.assigners import MaxIoU
        >>> from ladle.testing import example_scene
        >>> predictions, priors, truth = example_scene()
        >>> plan = MaxIoU(positive=0.5, negative=0.4)(predictions, priors, truth)
        >>> plan.positive.sum(1)  # priors that learn an object, in each of two images
        tensor([102,  88])
        >>> (~plan.positive & (plan.background == 0)).sum(1)  # those in between, which are ignored
        tensor([ 0, 25])
    """

    positive: float = 0.5
    negative: float = 0.4
    rescue: float | None = 0.0
    rescued: Literal["object", "prior"] = "object"
    crowd: float = 0.5
    boxes: Literal["priors", "predictions"] = "priors"
    keep_count: bool = False
    class_power: float = 0.0
    ignore_rejected: bool = False
    overlap: Literal["iou"] | SimD = "iou"

    def judged_by_teacher(self, keep_count: bool, class_power: float, ignore_rejected: bool) -> MaxIoU:
        """The form in which a teacher's boxes replace the boxes of the priors."""
        return replace(
            self,
            boxes="predictions",
            keep_count=keep_count,
            class_power=class_power,
            ignore_rejected=ignore_rejected,
        )

    @full_precision
    def __call__(self, predictions: Predictions, priors: Priors, truth: GroundTruth) -> Assignment:
        """Assign by overlaps; predictions are used only if ``boxes`` is ``"predictions"``."""
        measure = self.overlap if isinstance(self.overlap, SimD) else None
        overlaps = best_overlaps(priors.boxes, priors.valid, truth, self.rescue, priors.grids, measure=measure)
        plan = self._decide(overlaps)
        if self.boxes == "predictions":
            judged = best_overlaps(
                predictions.boxes.nan_to_num(),
                priors.valid,
                truth,
                self.rescue,
                trust=class_factors(predictions, self.class_power),
                measure=measure,
            )
            objects = truth.labels.shape[1]
            chosen = self._as_many(judged, plan, overlaps, objects) if self.keep_count else self._decide(judged)
            final = fill_unmatched(chosen, plan, objects)
            plan = rejected_ignored(final, plan) if self.ignore_rejected else final
        return plan.limited_to(outside_crowds(priors, truth, self.crowd))

    def _decide(self, overlaps: Overlaps) -> Assignment:
        rescued = overlaps.claimant > 0
        return Assignment.hard(
            self._learnt(overlaps, rescued), (overlaps.iou >= self.positive) | rescued, overlaps.iou < self.negative
        )

    def _learnt(self, overlaps: Overlaps, rescued: Bool[Tensor, "B P"]) -> Int[Tensor, "B P"]:
        if self.rescue is None or self.rescued == "prior":
            return overlaps.index
        return torch.where(rescued, overlaps.claimant - 1, overlaps.index)

    def _as_many(self, judged: Overlaps, plan: Assignment, overlaps: Overlaps, objects: int) -> Assignment:
        """As many positive and ignored priors per object as in ``plan``, by judged overlaps; rescued ones first."""
        positives = count_per_object(plan.index, plan.positive, objects)
        ignored = count_per_object(overlaps.index, ~plan.positive & (plan.background == 0), objects)
        rescued = judged.claimant > 0
        return keep_counts(
            self._learnt(judged, rescued), judged.iou + rescued, (judged.iou > 0) | rescued, positives, ignored
        )
