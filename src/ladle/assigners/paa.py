"""Probabilistic anchor assignment."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ladle.all_pairs import all_pairs
from ladle.assigners.max_iou import MaxIoU
from ladle.assigners.mixture import fit_two_gaussians
from ladle.assigners.protocol import Assigner, Evidence, full_precision
from ladle.assigners.rescue import rescued
from ladle.boxes import giou
from ladle.device import constants, may_look
from ladle.losses import class_focal_sum, object_focal
from ladle.overlaps import outside_crowds
from ladle.pairs import Pairs, leading, ranks
from ladle.types import Assignment, GroundTruth, Predictions, Priors

__all__ = ["PAA"]

_SLACK = 1e-5
"""Relative margin by which an upper bound is raised, so that it stays valid under rounding."""


@dataclass(frozen=True)
class PAA:
    """A mixture of two Gaussians separates good from bad candidates by their costs (Kim & Lee, ECCV 2020).

    Each candidate has as cost its training loss for the object, ``focal + box_weight * (1 - GIoU)``. The mixture is
    fitted to the ``topk`` candidates of lowest cost per level, and the members of the component of lower cost learn the
    object. So the number of positives adapts to the object.

    Args:
        pool: the assigner whose positives are the candidates of each object.
        topk: candidates kept per object and level.
        box_weight: weight of the box term in the cost: 1.3 in mmdetection and LAD, 1.0 in the authors' code.
        cut: ``"component"`` keeps the members of the better component up to the one of highest likelihood, and no
            candidate of an object with a single one (mmdetection, LAD). ``"prefix"`` keeps *all* candidates up to that
            one, all candidates if the better component is empty, and a single candidate (the authors' code).
        crowd: a prior with more than this share of its area inside a crowd region is not background.
        rescue: whether an object without a positive is given the nearest prior that learns nothing
            (:func:`ladle.assigners.rescue.nearest_for_unserved`).

    Candidates whose cost is not finite are left out, so that a bad prediction affects only its own prior.

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
    rescue: bool = False

    @full_precision
    def __call__(self, predictions: Predictions, priors: Priors, truth: GroundTruth) -> Assignment:
        """Assign by the predicted scores and boxes; the same as :meth:`weigh` and :meth:`select`, with less work."""
        return self.select(self._weigh(predictions, priors, truth, everything=False), priors, truth)

    @full_precision
    def weigh(self, predictions: Predictions, priors: Priors, truth: GroundTruth) -> Evidence:
        """The cost of every candidate: its training loss for the object (paper, eq. 3; mmdetection's loss weights)."""
        return self._weigh(predictions, priors, truth, everything=True)

    def _weigh(self, predictions: Predictions, priors: Priors, truth: GroundTruth, everything: bool) -> Evidence:
        pool = self.pool(predictions, priors, truth)
        if not truth.labels.shape[1]:
            return Evidence(pool.index, torch.full_like(pool.background, torch.inf), pool.positive)
        if not may_look(pool.background):
            return self._weigh_all(pool.index, pool.positive, predictions, truth)
        pairs = Pairs.chosen(pool.index, pool.positive)
        box_cost = self.box_weight * (1 - giou(pairs.of_prior(predictions.boxes), pairs.of_object(truth.boxes)))
        if everything:
            costs = _class_cost(pairs, predictions, truth) + box_cost
        else:
            costs = self._costs_of_best(pairs, box_cost, predictions, priors, truth)
        no_cost = torch.full_like(pool.background, torch.inf).flatten()
        cost = no_cost.scatter(0, pairs.image * pool.index.shape[1] + pairs.prior, costs).view(pool.index.shape)
        candidate = pool.positive & cost.isfinite()
        return Evidence(pool.index, torch.where(candidate, cost, 0.0), candidate)

    def _weigh_all(
        self, index: Int[Tensor, "B P"], positive: Bool[Tensor, "B P"], predictions: Predictions, truth: GroundTruth
    ) -> Evidence:
        """The cost of every prior for its object, then the candidates."""
        boxes, labels = truth.at(index)
        cost = class_focal_sum(predictions.logits, labels * positive)
        cost = cost + self.box_weight * (1 - giou(predictions.boxes, boxes))
        candidate = positive & (cost.abs() < torch.inf)
        return Evidence(index, torch.where(candidate, cost, 0.0), candidate)

    def _costs_of_best(
        self, pairs: Pairs, box_cost: Float[Tensor, " N"], predictions: Predictions, priors: Priors, truth: GroundTruth
    ) -> Float[Tensor, " N"]:
        """The costs of all pairs that can be among the ``topk`` of their object and level; infinite for all others.

        The loss of a class is never negative. So box cost plus the loss of the object's class alone is a lower bound of
        the cost, and it avoids the sum over classes. The full cost is first computed for the ``topk`` pairs of lowest
        bound; the highest of these costs is an upper bound for the ``topk`` lowest costs. Then it is computed for the
        other pairs whose lower bound does not exceed that upper bound.
        """
        least = box_cost + object_focal(pairs.of_label(predictions.logits, truth.labels))  # (N,), the lower bounds
        levels = len(priors.counts)
        group = pairs.object * levels + priors.level.index_select(0, pairs.prior)
        group_id = pairs.image * (truth.labels.shape[1] * levels) + group
        _, positions = leading(pairs.replaced(object=group), least, self.topk)
        first_costs = _class_cost(pairs.at(positions), predictions, truth) + box_cost.index_select(0, positions)
        costs = torch.full_like(box_cost, torch.inf).scatter_(0, positions, first_costs)

        first_groups = group_id.index_select(0, positions)
        none = first_costs.new_full((truth.labels.numel() * levels,), -torch.inf)  # (B * G * L,)
        upper = none.scatter_reduce(0, first_groups, first_costs.nan_to_num(torch.inf), "amax")
        few = torch.zeros_like(none).index_add_(0, first_groups, torch.ones_like(first_costs)) < self.topk
        below = least <= upper.mul_(1 + _SLACK).masked_fill_(few, torch.inf).index_select(0, group_id)
        rest = (below & (costs == torch.inf)).nonzero().squeeze(1)
        rest_costs = _class_cost(pairs.at(rest), predictions, truth) + box_cost.index_select(0, rest)
        return costs.index_copy_(0, rest, rest_costs)

    @torch.no_grad()
    def select(self, evidence: Evidence, priors: Priors, truth: GroundTruth) -> Assignment:
        """Keep the ``topk`` per level, fit the mixture per object and cut (paper fig. 3c)."""
        free = outside_crowds(priors, truth, self.crowd)
        if not truth.labels.shape[1]:
            return Assignment.empty(free)
        kept = self._select_listed if may_look(evidence.cost) else self._select_from_matrices
        plan = Assignment.hard(evidence.index, kept(evidence, priors, truth), free)
        return rescued(plan, priors, truth) if self.rescue else plan

    def _select_from_matrices(self, evidence: Evidence, priors: Priors, truth: GroundTruth) -> Bool[Tensor, "B P"]:
        """The priors that are kept, by one matrix of costs (B, g, P) for each part of the objects."""
        candidate_cost = evidence.cost.masked_fill(~evidence.candidate, torch.inf)
        costs, indices = [], []
        for pairs in all_pairs(priors, truth):
            number = torch.arange(pairs.part.start, pairs.part.stop, device=candidate_cost.device).view(1, -1, 1)
            here = torch.where(pairs.of_prior(evidence.index) == number, pairs.of_prior(candidate_cost), torch.inf)
            best = [level.topk(min(self.topk, level.shape[2]), largest=False) for level in here.split(priors.counts, 2)]
            costs.append(torch.cat([level.values for level in best], dim=-1))
            indices.append(torch.cat([level.indices for level in best], dim=-1))
        cost, order = _joined(costs).sort(dim=-1)  # (B, G, W)
        starts = [sum(priors.counts[:level]) for level in range(len(priors.counts))]
        first = [float(start) for start, n in zip(starts, priors.counts, strict=True) for _ in range(min(self.topk, n))]
        prior = (_joined(indices) + constants((tuple(first),), cost.device)).long().gather(-1, order)
        kept = self._cut(cost.flatten(0, 1), cost.flatten(0, 1) < torch.inf)
        times = torch.zeros_like(evidence.index)
        return times.scatter_add(1, prior.flatten(1), kept.long().view(len(times), -1)) > 0

    def _select_listed(self, evidence: Evidence, priors: Priors, truth: GroundTruth) -> Bool[Tensor, "B P"]:
        """The priors that are kept, by a list of candidates."""
        batch, objects = truth.labels.shape
        levels = len(priors.counts)
        by_level = Pairs.chosen(evidence.index * levels + priors.level, evidence.candidate)
        best, _ = leading(by_level, by_level.of_prior(evidence.cost), self.topk)
        pairs = best.replaced(object=best.object // levels)
        cost = torch.where(pairs.real, pairs.of_prior(evidence.cost), torch.inf)

        # A table with one row per object, its candidates by ascending cost. Padding goes to an extra last entry.
        width = levels * self.topk
        slot = (pairs.image * objects + pairs.object) * width + ranks(pairs, cost)
        slot = torch.where(pairs.real, slot, batch * objects * width)
        table = cost.new_full((batch * objects * width + 1,), torch.inf).scatter(0, slot, cost)[:-1].view(-1, width)
        kept = self._cut(table, table.isfinite()).flatten()
        learns = pairs.real & torch.cat([kept, kept.new_zeros(1)]).index_select(0, slot)

        flat_prior = pairs.image * evidence.index.shape[1] + pairs.prior
        times = torch.zeros_like(evidence.index).view(-1).index_add(0, flat_prior, learns.long())
        return times.view_as(evidence.index) > 0

    def _cut(self, cost: Float[Tensor, "N K"], valid: Bool[Tensor, "N K"]) -> Bool[Tensor, "N K"]:
        """The candidates to keep in each row of ascending costs."""
        mixture = fit_two_gaussians(cost, valid)
        likeliest = mixture.likelihood.masked_fill(~mixture.low, -torch.inf).argmax(-1, keepdim=True)
        upto = torch.arange(cost.shape[-1], device=cost.device) <= likeliest
        several = valid.sum(-1, keepdim=True) >= 2
        if self.cut == "component":
            return several & mixture.low & upto
        split = several & mixture.low.any(-1, keepdim=True)
        return valid & (upto | ~split)


def _joined(parts: list[Tensor]) -> Tensor:
    """The parts of the objects, in one operation less where there is one part."""
    return torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]


def _class_cost(pairs: Pairs, predictions: Predictions, truth: GroundTruth) -> Float[Tensor, " N"]:
    return class_focal_sum(pairs.of_prior(predictions.logits), pairs.of_object(truth.labels))
