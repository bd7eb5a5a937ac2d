"""Soft labels: the student imitates the teacher's scores, qualities and boxes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from ladle.boxes import clip, giou
from ladle.distillers.joining import Joinable
from ladle.distillers.protocol import Network, Summary
from ladle.losses import focal_kl
from ladle.networks import NetworkInfo
from ladle.overlaps import best_overlaps
from ladle.types import Assignment, GroundTruth, Output, Term

__all__ = ["SoftLabels"]


@dataclass(frozen=True)
class SoftLabels(Joinable):
    """Imitate the teacher with the focal KL divergence (Nguyen et al., WACV 2022; released code of CoLAD).

    Classes are imitated at every valid prior; qualities and boxes only at priors where the teacher's box has an IoU
    above ``least`` with an object. All three losses are divided by the sum of these IoUs.

    Args:
        class_weight: loss weight of the classes: 2 with ground truth (SoLAD), 10 without.
        quality_weight: loss weight of the quality branch; the term is left out if one of the detectors has none.
        box_weight: loss weight of the boxes.
        least: IoU above which boxes and qualities are imitated: 0.5 in SoLAD, 0.1 in the release without ground truth.
        gamma: exponent of the focal factor: 0 gives the plain KL divergence.
        temperature: divides the class logits of both networks (Hinton et al. 2015); the loss is multiplied by its
            square.

    A term whose weight is 0 is left out.

    The released code divides by zero for a batch in which no box of the teacher overlaps an object enough; here the
    divisor is at least one per image. The released code also distils in the padding of an image; here that is left out.

    Examples:
        >>> from ladle.distillers import SoftLabels
        >>> from ladle.testing import example_output
        >>> student, truth, plan = example_output(seed=0)
        >>> teacher, _, _ = example_output(seed=1)
        >>> sorted(SoftLabels()(student, teacher, truth, plan))
        ['soft_box', 'soft_class', 'soft_quality']
    """

    features_only: ClassVar[bool] = False
    every_stage: ClassVar[bool] = True

    class_weight: float = 2.0
    quality_weight: float = 10.0
    box_weight: float = 1.3
    least: float = 0.5
    gamma: float = 0.5
    temperature: float = 1.0

    def summarize(self, student: NetworkInfo, teacher: NetworkInfo, stage: int) -> Summary:
        """What each term imitates, and which terms are left out."""
        of, by = student.stage(stage), teacher.stage(stage)
        where = f"where the teacher's box overlaps an object by more than {self.least}"
        scores = f"{of.classes} class scores" if of.classes > 1 else "the score of the only class"
        teaches = {
            "soft_class": (self.class_weight, f"{scores} at every prior"),
            "soft_box": (self.box_weight, f"boxes {where}"),
            "soft_quality": (self.quality_weight, f"the quality branch {where}"),
        }
        skips: tuple[str, ...] = ()
        lacking = [name for name, one in (("student", of), ("teacher", by)) if one.quality is None]
        if self.quality_weight and lacking:
            skips = (f"soft_quality: the {lacking[0]} has no quality branch",)
        elif self.quality_weight and of.quality != by.quality:
            skips = (f"soft_quality: the student's branch means {of.quality}, the teacher's {by.quality}",)
        instead = replace(self, quality_weight=0.0) if skips and of.quality != by.quality else None
        if skips:
            del teaches["soft_quality"]
        return Summary({name: what for name, (weight, what) in teaches.items() if weight}, skips, instead)

    def build(self, student: Network, teacher: Network) -> SoftLabels:
        """The loss itself: it needs nothing of the two networks."""
        return self

    def __call__(self, student: Output, teacher: Output, truth: GroundTruth, assignment: Assignment) -> dict[str, Term]:
        """Terms ``soft_class``, ``soft_box`` and, where both have the branch, ``soft_quality``."""
        pred, target = student.predictions, teacher.predictions.detach()
        valid = student.priors.valid
        # Where each class has a box of its own, the student's is that of the class that the teacher takes.
        told = pred.boxes_of(target.logits.argmax(-1))
        boxes, target_boxes = _clipped(told, student.sizes), _clipped(target.boxes, student.sizes)
        overlap = best_overlaps(target_boxes, valid, truth).iou
        near = overlap > self.least
        weight = torch.where(near, overlap, 0.0)
        count, images = weight.sum(), weight.new_full((), float(len(weight)))

        terms: dict[str, Term] = {}
        if self.class_weight:
            logits, targets = pred.log_odds / self.temperature, target.log_odds / self.temperature
            loss = self.temperature**2 * focal_kl(logits, targets, self.gamma).sum(-1)
            terms["soft_class"] = Term(self.class_weight * (loss * valid).sum(), count, images)
        if self.box_weight:
            terms["soft_box"] = Term(self.box_weight * (weight * (1 - giou(boxes, target_boxes))).sum(), count, images)
        if self.quality_weight and pred.quality is not None and target.quality is not None:
            loss = focal_kl(pred.quality.float(), target.quality.float(), self.gamma)
            terms["soft_quality"] = Term(self.quality_weight * (loss * near).sum(), count, images)
        return terms


def _clipped(boxes: Float[Tensor, "B P 4"], sizes: Tensor | None) -> Float[Tensor, "B P 4"]:
    return boxes.float() if sizes is None else clip(boxes.float(), sizes)
