"""The losses of a dense (one-stage) head under a plan."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ladle.boxes import iou
from ladle.criteria.classes import Classes, class_total
from ladle.criteria.regression import Boxes, box_cost, centerness, edge_cost, side_cost
from ladle.types import Assignment, GroundTruth, Output, Predictions, Term

__all__ = ["DenseCriterion"]


@dataclass(frozen=True)
class DenseCriterion:
    """Class loss, box loss on positives, and the losses of an optional quality branch and edge distributions.

    Args:
        classes: the class loss and its target at positives. ``focal``: focal loss, target 1 (RetinaNet, FCOS, ATSS,
            PAA, OTA). ``quality``: quality focal loss, target is the IoU of the predicted box (GFL, RTMDet).
            ``aligned``: quality focal loss, target is the plan's affinity (TOOD). ``overlap``: cross entropy at
            positives only, target is the IoU of the predicted box (YOLOX).
        class_count: the denominator of the class loss: the number of ``positives``, or the sum of their IoUs
            (``overlaps``, RTMDet).
        box: the box loss: ``giou`` (1 - GIoU of decoded boxes), ``iou2`` (1 - IoU^2, YOLOX) or ``l1`` on anchor deltas
            (RetinaNet).
        box_weight: weight of the box loss.
        share: the weight of each positive in the box loss, which is divided by the sum of these weights. ``count``: the
            affinity, which is 1 under a hard plan (RetinaNet, LAD, OTA, YOLOX) and the soft target under a soft one
            (TOOD). ``quality``: the affinity times the quality target (IoU in PAA and RTMDet, centerness in ATSS and
            FCOS). ``score``: the affinity times the highest class probability (GFL).
        edges_weight: weight of the distribution focal loss on box edges (0.25 in GFL), with the same weights of
            positives; 0 leaves it out.
        l1_weight: weight of a further box loss, L1 on centers and logarithms of sides in strides, with the same weights
            of positives (YOLOX in its last epochs); 0 leaves it out.
        quality: the target of the quality branch: at positives the ``iou`` of the predicted box or the ``centerness``
            of the prior; ``objectness``, whether a prior is positive, at all priors that are not ignored (YOLOX); or
            None without such a loss.
        quality_weight: weight of the quality loss.
        floor: lower bound of the denominator of the class and objectness losses: one per image on average over the
            ``batch`` (PAA, LAD), or one in each ``image`` (ATSS, GFL, RetinaNet in mmdetection).

    The affinity of a soft plan is the weight of a positive in every term, except where it is the target (``aligned``).
    mmdetection's PAA weights the box loss by IoU and divides it by the sum of IoUs, but its LAD divides it by the
    number of positives: use ``share="count"`` for LAD. Some reference codes clamp the denominator of the box loss to at
    least one; here it is the plain weighted mean, as in the release of GFL.

    Examples:
        >>> from ladle.criteria import DenseCriterion
        >>> from ladle.testing import example_output
        >>> output, truth, plan = example_output()
        >>> terms = DenseCriterion()(output, truth, plan)
        >>> sorted(terms)
        ['box', 'class', 'quality']
        >>> terms["class"].count == plan.positive.sum()
        tensor(True)
    """

    classes: Classes = "focal"
    class_count: Literal["positives", "overlaps"] = "positives"
    box: Boxes = "giou"
    box_weight: float = 1.3
    share: Literal["count", "quality", "score"] = "quality"
    edges_weight: float = 0.0
    l1_weight: float = 0.0
    quality: Literal["iou", "centerness", "objectness"] | None = "iou"
    quality_weight: float = 0.5
    floor: Literal["batch", "image"] = "batch"

    def __call__(self, output: Output, truth: GroundTruth, assignment: Assignment) -> dict[str, Term]:
        """Compute the terms ``class`` and ``box``, and ``l1``, ``edges`` and ``quality`` if there are such losses.

        Ignored priors have no loss.

        Raises:
            ValueError: if the detector has no branch for one of the losses.
        """
        predictions, priors = output.predictions, output.priors
        self._check(predictions)
        target, _ = truth.at(assignment.index)
        boxes = predictions.boxes.float()
        overlap = iou(boxes.detach(), target)
        quality_target = centerness(priors.centers, target) if self.quality == "centerness" else overlap
        shares = self._shares(predictions, quality_target, assignment.weight)
        zero = torch.zeros_like(shares.sum())

        terms = {"class": self._classes(predictions.logits.float(), overlap, truth, assignment)}
        costs = box_cost(self.box, boxes, target, priors)
        terms["box"] = Term(self.box_weight * (shares * costs).sum(), shares.sum(), zero)
        if self.l1_weight:
            costs = side_cost(boxes, target, priors)
            terms["l1"] = Term(self.l1_weight * (shares * costs).sum(), shares.sum(), zero)
        if self.edges_weight and predictions.edges is not None:
            costs = edge_cost(predictions.edges, target, priors)
            terms["edges"] = Term(self.edges_weight * (shares * costs).sum(), shares.sum(), zero)
        if self.quality is not None and predictions.quality is not None:
            terms["quality"] = self._quality(predictions.quality.float(), quality_target, assignment)
        return terms

    def _check(self, predictions: Predictions) -> None:
        if self.quality is not None and predictions.quality is None:
            raise ValueError(f"the criterion trains {self.quality}, but this detector has no quality branch")
        if self.edges_weight and predictions.edges is None:
            raise ValueError("the criterion trains distributions of box edges, but this detector predicts none")

    def _shares(self, predictions: Predictions, quality_target: Tensor, weight: Tensor) -> Float[Tensor, "B P"]:
        if self.share == "quality":
            return weight * quality_target.clamp(min=1e-12)
        if self.share == "score":
            return weight * predictions.logits.detach().float().amax(-1).sigmoid()
        return weight

    def _classes(self, logits: Tensor, overlap: Tensor, truth: GroundTruth, plan: Assignment) -> Term:
        batch, priors, many = plan.objects.shape
        _, labels = truth.at(plan.objects.reshape(batch, -1))
        total = class_total(self.classes, logits, labels.view(batch, priors, many), plan, overlap)
        return self._per_object(total, plan.weight * (overlap if self.class_count == "overlaps" else 1.0))

    def _quality(self, logits: Tensor, quality_target: Tensor, plan: Assignment) -> Term:
        if self.quality == "objectness":
            costs = F.binary_cross_entropy_with_logits(logits, plan.positive.float(), reduction="none")
            counted = plan.background + plan.weight
            return self._per_object(self.quality_weight * (counted * costs).sum(), plan.weight)
        costs = F.binary_cross_entropy_with_logits(logits, quality_target, reduction="none")
        weight = plan.weight
        return Term(self.quality_weight * (weight * costs).sum(), weight.sum(), torch.zeros_like(weight.sum()))

    def _per_object(self, total: Tensor, objects: Float[Tensor, "B P"]) -> Term:
        """A loss that also images without objects have, divided by ``objects`` with this criterion's ``floor``."""
        count = objects.sum(-1)
        if self.floor == "image":
            return Term(total, count.clamp(min=1).sum(), torch.zeros_like(count.sum()))
        return Term(total, count.sum(), count.new_full((), float(len(count))))
