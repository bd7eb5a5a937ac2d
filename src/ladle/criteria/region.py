"""The losses of detectors in two stages, under a plan of sampled priors."""

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
    """Cross entropy on classes and a loss on the boxes of objects, both by the number of sampled priors (torchvision).

    Classes that are exclusive share one softmax with background; a proposal network's objectness is on its own.

    Args:
        box: ``smooth_l1`` on deltas, or ``giou`` on boxes.
        box_weight: weight of the box loss: 1; 10 with ``giou`` (mmdetection).
        beta: where smooth L1 turns from a parabola into a line.
        stds: scales of the deltas of shift and stretch, those of the stage.
        weight: of both losses: later looks of Cascade R-CNN count less.

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
        """Terms ``class`` and ``box``; ignored priors cost nothing."""
        said, weight = output.predictions, assignment.weight
        target, label = truth.at(assignment.index)
        sampled = (weight + assignment.background).sum()
        nothing = torch.zeros_like(sampled)
        boxes = self._boxes(_learnt_boxes(said, label), target, output.priors.boxes)
        return {
            "class": Term(self.weight * _classes(said, label, assignment), sampled, nothing),
            "box": Term(self.weight * self.box_weight * (weight * boxes).sum(), sampled, nothing),
        }

    def _boxes(self, boxes: Tensor, target: Tensor, priors: Tensor) -> Float[Tensor, "B P"]:
        if self.box == "giou":
            return 1 - giou(boxes, target)
        found, wanted = (encode_deltas(priors, some, self.stds) for some in (boxes, target))
        return F.smooth_l1_loss(found, wanted, reduction="none", beta=self.beta).sum(-1)


def _learnt_boxes(said: Predictions, label: Tensor) -> Float[Tensor, "B P 4"]:
    """The box of the class that a prior learns, where each has one."""
    if said.class_boxes is None:
        return at_least_float32(said.boxes)
    place = label[..., None, None].expand(-1, -1, 1, 4)
    return at_least_float32(said.class_boxes).gather(2, place)[:, :, 0]


def _classes(said: Predictions, label: Tensor, plan: Assignment) -> Float[Tensor, ""]:
    logits, weight = at_least_float32(said.logits), plan.weight
    if said.exclusive:
        chances = F.pad(logits, (0, 1)).log_softmax(-1)
        learnt = chances.gather(-1, label.unsqueeze(-1))[..., 0]
        return -(weight * learnt + plan.background * chances[..., -1]).sum()
    off = F.softplus(logits).sum(-1)
    on = off - logits.gather(-1, label.unsqueeze(-1))[..., 0]
    return (weight * on + plan.background * off).sum()
