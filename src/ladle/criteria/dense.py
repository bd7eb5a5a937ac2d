"""The losses of a dense head under a plan."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ladle.boxes import iou
from ladle.criteria.classes import Classes, class_total
from ladle.criteria.regression import Boxes, box_cost, centerness, edge_cost
from ladle.types import Assignment, GroundTruth, Output, Predictions, Term

__all__ = ["DenseCriterion"]


@dataclass(frozen=True)
class DenseCriterion:
    """A loss on classes, a loss on the boxes of positives, and what a head's further branches learn.

    Args:
        classes: what a class is taught. ``focal``: 1 where it is learnt (RetinaNet, FCOS, ATSS, PAA, OTA). ``quality``:
            the IoU of the prior's own box, by quality focal loss (GFL, RTMDet). ``aligned``: the plan's affinity, by
            the same loss (TOOD). ``overlap``: the IoU of the own box at positives alone, by cross entropy (YOLOX).
        class_count: what the class loss is divided by: the number of ``positives``, or the sum of the ``overlaps``
            that they are taught (RTMDet).
        box: ``giou`` (1 - GIoU of decoded boxes), ``iou2`` (1 - IoU^2, YOLOX) or ``l1`` on the anchor deltas
            (RetinaNet).
        box_weight: weight of the box loss.
        share: how the box loss is shared among positives, and by whose sum it is divided: ``count`` gives each its
            affinity, the same under a hard plan (RetinaNet, LAD, OTA, YOLOX), its soft target under a soft one (TOOD);
            ``quality`` weighs each by its quality target as well (PAA's and RTMDet's IoU, centerness of ATSS and FCOS),
            ``score`` by its highest class probability (GFL).
        edges_weight: weight of the distribution focal loss on box edges (GFL 0.25), shared as the box loss; 0 is none.
        quality: what the quality branch learns: at positives the predicted box's ``iou`` or the prior's
            ``centerness``; ``objectness``, whether a prior is positive, at all that count (YOLOX); or nothing.
        quality_weight: weight of that loss.
        floor: what keeps the class and objectness losses of empty images in bounds: a count of at least one per image
            on average over the ``batch`` (PAA, LAD) or in each ``image`` (ATSS, GFL, RetinaNet in mmdetection).

    The affinity of a soft plan weighs a positive in every term, but where it is the target itself (``aligned``).
    mmdetection's LAD divides the box loss by the number of positives where its PAA weighs by IoU and divides by the sum
    of IoUs: take ``share="count"`` to follow it. Where reference codes floor the sum that divides a box loss at one,
    here it is the plain weighted mean, as in the release of GFL.

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
    quality: Literal["iou", "centerness", "objectness"] | None = "iou"
    quality_weight: float = 0.5
    floor: Literal["batch", "image"] = "batch"

    def __call__(self, output: Output, truth: GroundTruth, assignment: Assignment) -> dict[str, Term]:
        """Terms ``class``, ``box``, with an edge loss ``edges``, and with a quality branch ``quality``.

        Ignored priors cost nothing. Raises ValueError where the detector lacks the branch that is to be taught.
        """
        said, priors = output.predictions, output.priors
        self._check(said)
        target, _ = truth.at(assignment.index)
        boxes = said.boxes.float()
        overlap = iou(boxes.detach(), target)
        merit = centerness(priors.centers, target) if self.quality == "centerness" else overlap
        shares = self._shares(said, merit, assignment.weight)
        nothing = torch.zeros_like(shares.sum())

        terms = {"class": self._classes(said.logits.float(), overlap, truth, assignment)}
        costs = box_cost(self.box, boxes, target, priors)
        terms["box"] = Term(self.box_weight * (shares * costs).sum(), shares.sum(), nothing)
        if self.edges_weight and said.edges is not None:
            costs = edge_cost(said.edges, target, priors)
            terms["edges"] = Term(self.edges_weight * (shares * costs).sum(), shares.sum(), nothing)
        if self.quality is not None and said.quality is not None:
            terms["quality"] = self._quality(said.quality.float(), merit, assignment)
        return terms

    def _check(self, said: Predictions) -> None:
        if self.quality is not None and said.quality is None:
            raise ValueError(f"the criterion teaches {self.quality}, but this detector has no quality branch")
        if self.edges_weight and said.edges is None:
            raise ValueError("the criterion teaches distributions of box edges, but this detector says none")

    def _shares(self, said: Predictions, merit: Tensor, weight: Tensor) -> Float[Tensor, "B P"]:
        if self.share == "quality":
            return weight * merit.clamp(min=1e-12)
        if self.share == "score":
            return weight * said.logits.detach().float().amax(-1).sigmoid()
        return weight

    def _classes(self, logits: Tensor, overlap: Tensor, truth: GroundTruth, plan: Assignment) -> Term:
        batch, priors, many = plan.objects.shape
        _, labels = truth.at(plan.objects.reshape(batch, -1))
        total = class_total(self.classes, logits, labels.view(batch, priors, many), plan, overlap)
        return self._per_object(total, plan.weight * (overlap if self.class_count == "overlaps" else 1.0))

    def _quality(self, logits: Tensor, merit: Tensor, plan: Assignment) -> Term:
        if self.quality == "objectness":
            costs = F.binary_cross_entropy_with_logits(logits, plan.positive.float(), reduction="none")
            counted = plan.background + plan.weight
            return self._per_object(self.quality_weight * (counted * costs).sum(), plan.weight)
        costs = F.binary_cross_entropy_with_logits(logits, merit, reduction="none")
        weight = plan.weight
        return Term(self.quality_weight * (weight * costs).sum(), weight.sum(), torch.zeros_like(weight.sum()))

    def _per_object(self, total: Tensor, objects: Float[Tensor, "B P"]) -> Term:
        """A loss that images without objects pay as well, counted by positives with this criterion's floor."""
        count = objects.sum(-1)
        if self.floor == "image":
            return Term(total, count.clamp(min=1).sum(), torch.zeros_like(count.sum()))
        return Term(total, count.sum(), count.new_tensor(float(len(count))))
