"""Pseudo-IoU: the IoU of an object and a box of the same size centered at a point."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from ladle.assigners.fcos import FCOS
from ladle.assigners.judged import count_per_object, fill_unmatched, keep_counts
from ladle.assigners.protocol import Assigner, full_precision
from ladle.assigners.rescue import rescued
from ladle.boxes import iou
from ladle.overlaps import outside_crowds
from ladle.types import Assignment, GroundTruth, Predictions, Priors

__all__ = ["PseudoIoU", "pseudo_iou"]


@dataclass(frozen=True)
class PseudoIoU:
    """Points matched to an object learn it if their pseudo-IoU is high enough (Li et al. 2021, section 3).

    A point below the threshold is background, with full weight, and is not matched to another object.

    Args:
        threshold: pseudo-IoU that a point must exceed. It is 1 at the object's center, 1/3 at the middle of a side and
            1/7 at a corner.
        match: the assigner that matches points to objects: FCOS without center sampling in the paper.
        crowd: a prior with more than this share of its area inside a crowd region is not background.
        boxes: the box that is compared with the object: one of the object's size at the point (``priors``, the paper),
            or the box predicted there (``predictions``), which lets a teacher judge. An object that gets no point by
            predicted boxes keeps those of the paper's rule.
        keep_count: with ``predictions``, each object takes as many points as by the paper's rule, without a threshold.
        class_power: with ``predictions``, overlaps are multiplied by this power of the judge's score for the object's
            class; 0 does not change them.
        rescue: whether an object without a positive is given the nearest point that learns nothing
            (:func:`ladle.assigners.rescue.nearest_for_unserved`).

    Examples:
        >>> from ladle.assigners import PseudoIoU
        >>> from ladle.testing import example_scene
        >>> predictions, priors, truth = example_scene()
        >>> plan = PseudoIoU()(predictions, priors, truth)
        >>> plan.positive.sum(1)  # priors that learn an object, in each of two images
        tensor([28, 80])
    """

    threshold: float = 0.4
    match: Assigner = field(default_factory=lambda: FCOS(radius=None))
    crowd: float = 0.5
    boxes: Literal["priors", "predictions"] = "priors"
    keep_count: bool = False
    class_power: float = 0.0
    rescue: bool = False

    by_points: ClassVar[bool] = True
    """All anchors at one location are the same point."""

    def judged_by_teacher(self, keep_count: bool, class_power: float, ignore_rejected: bool) -> PseudoIoU:
        """The form in which a teacher's boxes are compared with objects."""
        if ignore_rejected:
            raise ValueError("PseudoIoU cannot ignore what the teacher rejects: leave out ignore_rejected")
        return replace(self, boxes="predictions", keep_count=keep_count, class_power=class_power)

    @full_precision
    def __call__(self, predictions: Predictions, priors: Priors, truth: GroundTruth) -> Assignment:
        """Assign by geometry; predictions are used only if ``boxes`` is ``"predictions"``."""
        matched = self.match(predictions, priors, truth)
        target, label = truth.at(matched.index)
        plan = self._above(matched, pseudo_iou(priors.centers, target))
        if self.boxes == "predictions":
            objects = truth.labels.shape[1]
            overlap = iou(predictions.boxes, target).nan_to_num(0.0)
            if self.class_power:
                score = predictions.scores.nan_to_num(0.0).gather(-1, label.unsqueeze(-1))[..., 0]
                overlap = overlap * score.pow(self.class_power)
            if self.keep_count:
                counts = count_per_object(plan.index, plan.positive, objects)
                plan = keep_counts(matched.index, overlap, matched.positive, counts, torch.zeros_like(counts))
            else:
                plan = fill_unmatched(self._above(matched, overlap), plan, objects)
        plan = plan.limited_to(outside_crowds(priors, truth, self.crowd))
        return rescued(plan, priors, truth) if self.rescue else plan

    def _above(self, matched: Assignment, overlap: Float[Tensor, "B P"]) -> Assignment:
        return Assignment.hard(matched.index, matched.positive & (overlap > self.threshold), overlap == overlap)


def pseudo_iou(points: Float[Tensor, "#*b 2"], boxes: Float[Tensor, "*b 4"]) -> Float[Tensor, "*b"]:
    """IoU of each box with a box of the same size centered at a point; 0 if the point lies outside the box."""
    near, far = points - boxes[..., :2], boxes[..., 2:] - points
    half = (boxes[..., 2:] - boxes[..., :2]) / 2
    shared = (near.minimum(half) + far.minimum(half)).prod(-1)
    whole = 4 * half.prod(-1)
    inside = torch.minimum(near, far).amin(-1) > 0
    return torch.where(inside, shared / (2 * whole - shared).clamp(min=1e-12), 0.0)
