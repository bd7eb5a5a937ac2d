"""Assignment by overlap with the prior's own box (Faster R-CNN, RetinaNet)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Int
from torch import Tensor

from ladle.assigners.judged import class_trust, count_per_object, fill_unmatched, keep_counts, rejected_ignored
from ladle.assigners.protocol import full_precision
from ladle.overlaps import Overlaps, best_overlaps, outside_crowds
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
        boxes: whose boxes overlap the objects: the ``priors`` themselves (the papers) or the ``predictions`` at them,
            which lets a teacher judge. An object that would be left without a prior keeps those of the papers' rule.
        keep_count: with ``predictions``, each object takes as many priors as by the papers' rule, and spares as many,
            those whose predictions overlap it most, whatever the thresholds.
        class_power: with ``predictions``, overlaps are multiplied by this power of the judge's score for the object's
            class; 0 leaves them alone.
        ignore_rejected: with ``predictions``, a prior that is positive by the papers' rule and that the judge rejects
            is ignored, where it would else be background.

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

    def judged_by_teacher(self, keep_count: bool, class_power: float, ignore_rejected: bool) -> MaxIoU:
        """The form in which a teacher's boxes take the place of the priors."""
        return replace(
            self,
            boxes="predictions",
            keep_count=keep_count,
            class_power=class_power,
            ignore_rejected=ignore_rejected,
        )

    @full_precision
    def __call__(self, predictions: Predictions, priors: Priors, truth: GroundTruth) -> Assignment:
        """Assign by overlaps; the predictions are looked at only if their boxes are asked for."""
        overlaps = best_overlaps(priors.boxes, priors.valid, truth, self.rescue, priors.grids)
        plan = self._decide(overlaps)
        if self.boxes == "predictions":
            judged = best_overlaps(
                predictions.boxes.nan_to_num(),
                priors.valid,
                truth,
                self.rescue,
                trust=class_trust(predictions, self.class_power),
            )
            objects = truth.labels.shape[1]
            chosen = self._as_many(judged, plan, overlaps, objects) if self.keep_count else self._decide(judged)
            final = fill_unmatched(chosen, plan, objects)
            plan = rejected_ignored(final, plan) if self.ignore_rejected else final
        return replace(plan, background=plan.background * outside_crowds(priors, truth, self.crowd))

    def _decide(self, overlaps: Overlaps) -> Assignment:
        claimed = overlaps.claimant > 0
        return Assignment.hard(
            self._learnt(overlaps), (overlaps.iou >= self.positive) | claimed, overlaps.iou < self.negative
        )

    def _learnt(self, overlaps: Overlaps) -> Int[Tensor, "B P"]:
        if self.rescue is None or self.rescued == "prior":
            return overlaps.index
        return torch.where(overlaps.claimant > 0, overlaps.claimant - 1, overlaps.index)

    def _as_many(self, judged: Overlaps, plan: Assignment, overlaps: Overlaps, objects: int) -> Assignment:
        """As many positive and ignored priors an object as in ``plan``, the judge's claimed ones before all others."""
        positives = count_per_object(plan.index, plan.positive, objects)
        ignored = count_per_object(overlaps.index, ~plan.positive & (plan.background == 0), objects)
        claimed = judged.claimant > 0
        return keep_counts(self._learnt(judged), judged.iou + claimed, (judged.iou > 0) | claimed, positives, ignored)
