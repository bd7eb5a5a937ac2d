"""Probabilistic anchor assignment."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ladle.assigners.max_iou import MaxIoU
from ladle.assigners.mixture import fit_two_gaussians
from ladle.assigners.protocol import Assigner, Evidence, full_precision
from ladle.boxes import giou
from ladle.losses import class_focal_sum, object_focal
from ladle.overlaps import may_look, outside_crowds
from ladle.pairs import Pairs, leading, ranks
from ladle.types import Assignment, GroundTruth, Predictions, Priors

__all__ = ["PAA"]

_SLACK = 1e-5
"""Share by which a bound is loosened, so that rounding cannot make it rule out too much."""


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

    Examples:
        >>> from ladle.assigners import PAA
        >>> from ladle.testing import example_scene
        >>> predictions, priors, truth = example_scene()
        >>> plan = PAA()(predictions, priors, truth)
        >>> plan.positive.sum(1)  # priors that learn an object, in each of two images
        tensor([23, 39])
    """

    pool: Assigner = field(default_factory=lambda: MaxIoU(positive=0.1, negative=0.1))
    topk: int = 9
    box_weight: float = 1.3
    cut: Literal["component", "prefix"] = "component"
    crowd: float = 0.5

    @full_precision
    def __call__(self, predictions: Predictions, priors: Priors, truth: GroundTruth) -> Assignment:
        """Weigh, then select; what cannot be among the cheapest is not priced in full."""
        return self.select(self._weigh(predictions, priors, truth, everything=False), priors, truth)

    @full_precision
    def weigh(self, predictions: Predictions, priors: Priors, truth: GroundTruth) -> Evidence:
        """Price every prior of the pool by the loss it would suffer (paper eq. 3; mmdetection's loss weights)."""
        return self._weigh(predictions, priors, truth, everything=True)

    def _weigh(self, predictions: Predictions, priors: Priors, truth: GroundTruth, everything: bool) -> Evidence:
        pool = self.pool(predictions, priors, truth)
        unpriced = torch.full_like(pool.background, torch.inf).flatten()
        if not truth.labels.shape[1]:
            return Evidence(pool.index, unpriced.view_as(pool.index), pool.positive)
        pairs = Pairs.chosen(pool.index, pool.positive)
        boxes = self.box_weight * (1 - giou(pairs.of_prior(predictions.boxes), pairs.of_object(truth.boxes)))
        if everything or not may_look(boxes):
            price = _class_price(pairs, predictions, truth) + boxes
        else:
            price = self._promising(pairs, boxes, predictions, priors, truth)
        cost = unpriced.scatter(0, pairs.image * pool.index.shape[1] + pairs.prior, price).view(pool.index.shape)
        candidate = pool.positive & cost.isfinite()
        return Evidence(pool.index, torch.where(candidate, cost, 0.0), candidate)

    def _promising(
        self, pairs: Pairs, boxes: Float[Tensor, " N"], predictions: Predictions, priors: Priors, truth: GroundTruth
    ) -> Float[Tensor, " N"]:
        """Prices, but infinite for pairs that ``topk`` others of their object and level undercut with certainty.

        No class loss is negative, so a price is at least that of the box and of the object's own class. The dearest of
        the ``topk`` priors that are cheapest in these is a ceiling that the ``topk`` cheapest stay below.
        """
        least = boxes + object_focal(pairs.of_label(predictions.logits, truth.labels))
        levels = len(priors.counts)
        group = pairs.object * levels + priors.level.index_select(0, pairs.prior)
        home = pairs.image * (truth.labels.shape[1] * levels) + group
        _, places = leading(replace(pairs, object=group), least, self.topk)
        full = _class_price(pairs.at(places), predictions, truth) + boxes.index_select(0, places)
        price = torch.full_like(boxes, torch.inf).scatter_(0, places, full)

        here = home.index_select(0, places)
        none = full.new_full((truth.labels.numel() * levels,), -torch.inf)
        ceiling = none.scatter_reduce(0, here, full.nan_to_num(torch.inf), "amax")
        few = torch.zeros_like(none).index_add_(0, here, torch.ones_like(full)) < self.topk
        below = least <= ceiling.mul_(1 + _SLACK).masked_fill_(few, torch.inf).index_select(0, home)
        rest = (below & (price == torch.inf)).nonzero().squeeze(1)
        return price.index_copy_(
            0, rest, _class_price(pairs.at(rest), predictions, truth) + boxes.index_select(0, rest)
        )

    @torch.no_grad()
    def select(self, evidence: Evidence, priors: Priors, truth: GroundTruth) -> Assignment:
        """Keep the ``topk`` per level, fit the mixture per object and cut (paper fig. 3c)."""
        batch, objects = truth.labels.shape
        levels = len(priors.counts)
        by_level = Pairs.chosen(evidence.index * levels + priors.level, evidence.candidate)
        best, _ = leading(by_level, by_level.of_prior(evidence.cost), self.topk)
        pairs = replace(best, object=best.object // levels)
        cost = torch.where(pairs.real, pairs.of_prior(evidence.cost), torch.inf)

        # One row an object, its candidates in ascending order of cost; what is no candidate falls into a last column.
        width = levels * self.topk
        slot = (pairs.image * objects + pairs.object) * width + ranks(pairs, cost)
        slot = torch.where(pairs.real, slot, batch * objects * width)
        table = cost.new_full((batch * objects * width + 1,), torch.inf).scatter(0, slot, cost)[:-1].view(-1, width)
        kept = self._cut(table, table.isfinite()).flatten()
        learns = pairs.real & torch.cat([kept, kept.new_zeros(1)]).index_select(0, slot)

        place = pairs.image * evidence.index.shape[1] + pairs.prior
        chosen = (
            torch.zeros_like(evidence.index).view(-1).index_add(0, place, learns.long()).view_as(evidence.index) > 0
        )
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


def _class_price(pairs: Pairs, predictions: Predictions, truth: GroundTruth) -> Float[Tensor, " N"]:
    return class_focal_sum(pairs.of_prior(predictions.logits), pairs.of_object(truth.labels))
