"""The losses of a dense head under a hard assignment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ladle.boxes import encode_deltas, giou, iou
from ladle.losses import background_focal, object_focal
from ladle.types import Assignment, GroundTruth, Output, Priors, Term

__all__ = ["DenseCriterion"]


@dataclass(frozen=True)
class DenseCriterion:
    """Focal loss on classes, a box loss on positives, and a loss on the localisation quality.

    Args:
        box: ``giou`` (1 - GIoU of decoded boxes) or ``l1`` on the anchor deltas (RetinaNet).
        box_weight: weight of the box loss.
        share: how the box loss is shared among positives: ``count`` gives each the same (RetinaNet, LAD), ``quality``
            weighs each by its quality target and divides by their sum (PAA's IoU, ATSS's centerness).
        quality: what the quality branch learns: the predicted box's ``iou``, the prior's ``centerness``, or nothing.
        quality_weight: weight of that loss.
        floor: what keeps the class loss of empty images in bounds: at least one positive per image on average over
            the ``batch`` (PAA, LAD) or in each ``image`` (ATSS, RetinaNet in mmdetection).

    mmdetection's LAD divides the box loss by the number of positives where its PAA weighs by IoU and divides by the sum
    of IoUs: take ``share="count"`` to follow it.
    """

    box: Literal["giou", "l1"] = "giou"
    box_weight: float = 1.3
    share: Literal["count", "quality"] = "quality"
    quality: Literal["iou", "centerness"] | None = "iou"
    quality_weight: float = 0.5
    floor: Literal["batch", "image"] = "batch"

    def __call__(self, output: Output, truth: GroundTruth, assignment: Assignment) -> dict[str, Term]:
        """Terms ``class``, ``box`` and, with a quality branch, ``quality``; ignored priors cost nothing."""
        said, weight = output.predictions, assignment.weight
        target, _ = truth.at(assignment.index)
        terms = {"class": self._classes(said.logits.float(), truth, assignment)}

        merit = self._merit(said.boxes.detach().float(), target, output.priors)
        per_box = self._boxes(said.boxes.float(), target, output.priors)
        shares = weight * merit.clamp(min=1e-12) if self.share == "quality" else weight
        nothing = torch.zeros_like(weight.sum())
        terms["box"] = Term(self.box_weight * (shares * per_box).sum(), shares.sum(), nothing)

        if self.quality is not None:
            if said.quality is None:
                raise ValueError(f"the criterion teaches {self.quality}, but this detector has no quality branch")
            per_prior = F.binary_cross_entropy_with_logits(said.quality.float(), merit, reduction="none")
            terms["quality"] = Term(self.quality_weight * (weight * per_prior).sum(), weight.sum(), nothing)
        return terms

    def _classes(self, logits: Float[Tensor, "B P C"], truth: GroundTruth, assignment: Assignment) -> Term:
        """Every class is background everywhere, then corrected at the classes that are objects; no one-hot matrix."""
        batch, priors, many = assignment.objects.shape
        _, labels = truth.at(assignment.objects.reshape(batch, -1))
        labels = labels.view(batch, priors, many)
        counted = assignment.background + assignment.weight
        chosen = logits.gather(-1, labels)
        correction = (assignment.affinity * (object_focal(chosen) - background_focal(chosen))).sum()
        total = (counted * background_focal(logits).sum(-1)).sum() + correction
        positives = assignment.weight.sum(-1)
        images = positives.new_tensor(float(batch)) if self.floor == "batch" else torch.zeros_like(positives.sum())
        count = positives.sum() if self.floor == "batch" else positives.clamp(min=1).sum()
        return Term(total, count, images)

    def _merit(self, boxes: Tensor, target: Tensor, priors: Priors) -> Float[Tensor, "B P"]:
        if self.quality == "centerness":
            return _centerness(priors.centers, target)
        return iou(boxes, target)

    def _boxes(self, boxes: Tensor, target: Tensor, priors: Priors) -> Float[Tensor, "B P"]:
        if self.box == "giou":
            return 1 - giou(boxes, target)
        return (encode_deltas(priors.boxes, boxes) - encode_deltas(priors.boxes, target)).abs().sum(-1)


def _centerness(points: Float[Tensor, "#B P 2"], boxes: Float[Tensor, "B P 4"]) -> Float[Tensor, "B P"]:
    """How central a point lies in its box, 1 in the middle and 0 at a side (Tian et al., ICCV 2019, eq. 3)."""
    near, far = (points - boxes[..., :2]).clamp(min=0), (boxes[..., 2:] - points).clamp(min=0)
    ratio = near.minimum(far) / near.maximum(far).clamp(min=1e-12)
    return ratio.prod(-1).sqrt()
