"""The losses of two-stage detectors under a plan of sampled priors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ladle.boxes import STDS, encode_deltas, giou
from ladle.types import Assignment, GroundTruth, Output, Predictions, Term, at_least_float32

__all__ = ["RegionCriterion"]


@dataclass(frozen=True)
class RegionCriterion:
    """Cross entropy on classes and a box loss on positives, both divided by the number of sampled priors (torchvision).

    Exclusive classes share one softmax with background. Otherwise, as in a proposal network, each class has a sigmoid.

    Args:
        box: ``smooth_l1`` on deltas, or ``giou`` on boxes.
        box_weight: weight of the box loss; 10 with ``giou`` in mmdetection.
        beta: the error at which smooth L1 changes from quadratic to linear.
        stds: standard deviations of the deltas of shift and size in this stage.
        weight: weight of both losses; lower in later stages of Cascade R-CNN.

    Examples:
        >>> from ladle.criteria import RegionCriterion
        >>> from ladle.testing import example_output
        >>> output, truth, plan = example_output()
        >>> terms = RegionCriterion()(output, truth, plan)
        >>> sorted(terms)
        ['box', 'class']
    """

    box: Literal["smooth_l1", "giou"] = "smooth_l1"
    box_weight: float = 1.0
    beta: float = 1 / 9
    stds: tuple[float, float] = STDS
    weight: float = 1.0

    def __call__(self, output: Output, truth: GroundTruth, assignment: Assignment) -> dict[str, Term]:
        """Compute the terms ``class`` and ``box``; ignored priors have no loss."""
        predictions, weight = output.predictions, assignment.weight
        target, label = truth.at(assignment.index)
        sampled = (weight + assignment.background).sum()
        zero = torch.zeros_like(sampled)
        boxes = self._boxes(predictions.boxes_of(label), target, output.priors.boxes)
        return {
            "class": Term(self.weight * _classes(predictions, label, assignment), sampled, zero),
            "box": Term(self.weight * self.box_weight * (weight * boxes).sum(), sampled, zero),
        }

    def _boxes(self, boxes: Tensor, target: Tensor, priors: Tensor) -> Float[Tensor, "B P"]:
        if self.box == "giou":
            return 1 - giou(boxes, target)
        deltas, target_deltas = (encode_deltas(priors, each, self.stds) for each in (boxes, target))
        return F.smooth_l1_loss(deltas, target_deltas, reduction="none", beta=self.beta).sum(-1)


def _classes(predictions: Predictions, label: Tensor, plan: Assignment) -> Float[Tensor, ""]:
    logits, weight = at_least_float32(predictions.logits), plan.weight
    if predictions.exclusive:
        log_probs = F.pad(logits, (0, 1)).log_softmax(-1)
        learnt = log_probs.gather(-1, label.unsqueeze(-1))[..., 0]
        return -(weight * learnt + plan.background * log_probs[..., -1]).sum()
    negative = F.softplus(logits).sum(-1)
    positive = negative - logits.gather(-1, label.unsqueeze(-1))[..., 0]  # softplus(-z) = softplus(z) - z
    return (weight * positive + plan.background * negative).sum()
