"""Probabilistic anchor assignment."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ladle.assigners.candidates import cheapest_per_group
from ladle.assigners.max_iou import MaxIoU
from ladle.assigners.mixture import fit_two_gaussians
from ladle.assigners.protocol import Assigner, Evidence, full_precision
from ladle.boxes import giou
from ladle.losses import class_focal_sum
from ladle.overlaps import outside_crowds
from ladle.types import Assignment, GroundTruth, Predictions, Priors

__all__ = ["PAA"]


@dataclass(frozen=True)
class PAA:
    """The priors that serve an object well, told from those that do not by a mixture of two (Kim & Lee, ECCV 2020).

    Each prior of ``pool`` is priced by the loss it would suffer for its object, ``focal + box_weight * (1 - GIoU)``. Of
    the ``topk`` cheapest per level the ones that belong to the better of two Gaussians learn the object; the number
    of positives adapts to it.

    Args:
        pool: which priors compete for which object; its positives are the candidates.
        topk: candidates kept per object and level.
        box_weight: weight of the box term in the price: 1.3 in mmdetection and LAD, 1.0 in the authors' code.
        cut: ``"component"`` keeps the better component's members up to its likeliest one and drops an object with a
            single candidate (mmdetection, LAD); ``"prefix"`` keeps *all* candidates up to there, all of them where the
            better component is empty, and a single candidate (the authors' code).
        crowd: a prior with more than this share inside a crowd region is not background.

    Candidates whose price is not finite are passed over, so that one bad prediction spoils one prior.
    """

    pool: Assigner = field(default_factory=lambda: MaxIoU(positive=0.1, negative=0.1))
    topk: int = 9
    box_weight: float = 1.3
    cut: Literal["component", "prefix"] = "component"
    crowd: float = 0.5

    def __call__(self, predictions: Predictions, priors: Priors, truth: GroundTruth) -> Assignment:
        """Weigh, then select."""
        return self.select(self.weigh(predictions, priors, truth), priors, truth)

    @full_precision
    def weigh(self, predictions: Predictions, priors: Priors, truth: GroundTruth) -> Evidence:
        """Price every prior of the pool by the loss it would suffer (paper eq. 3; mmdetection's loss weights)."""
        pool = self.pool(predictions, priors, truth)
        target, label = truth.at(pool.index)
        cost = class_focal_sum(predictions.logits, label) + self.box_weight * (1 - giou(predictions.boxes, target))
        candidate = pool.positive & cost.isfinite()
        return Evidence(pool.index, torch.where(candidate, cost, 0.0), candidate)

    @torch.no_grad()
    def select(self, evidence: Evidence, priors: Priors, truth: GroundTruth) -> Assignment:
        """Keep the ``topk`` per level, fit the mixture per object and cut (paper fig. 3c)."""
        batch, objects = truth.labels.shape
        levels = len(priors.counts)
        group = evidence.index * levels + priors.level
        table, filled = cheapest_per_group(evidence.cost, group, evidence.candidate, objects * levels, self.topk)
        width = levels * self.topk
        table, filled = table.reshape(batch * objects, width), filled.reshape(batch * objects, width)

        rows = torch.arange(batch, device=table.device).repeat_interleave(objects, output_size=batch * objects)
        cost = torch.where(filled, evidence.cost[rows.unsqueeze(-1), table], torch.inf)
        cost, order = cost.sort(dim=-1, stable=True)
        kept = self._cut(cost, cost.isfinite())

        prior = table.gather(1, order).reshape(batch, objects * width)
        chosen = torch.zeros_like(evidence.index).scatter_add(1, prior, kept.reshape(batch, objects * width).long()) > 0
        return Assignment.hard(evidence.index, chosen, outside_crowds(priors, truth, self.crowd))

    def _cut(self, cost: Float[Tensor, "N K"], valid: Bool[Tensor, "N K"]) -> Bool[Tensor, "N K"]:
        mixture = fit_two_gaussians(cost, valid)
        likeliest = mixture.likelihood.masked_fill(~mixture.low, -torch.inf).argmax(-1, keepdim=True)
        upto = torch.arange(cost.shape[-1], device=cost.device) <= likeliest
        several = valid.sum(-1, keepdim=True) >= 2
        if self.cut == "component":
            return several & mixture.low & upto
        split = several & mixture.low.any(-1, keepdim=True)
        return valid & (upto | ~split)
