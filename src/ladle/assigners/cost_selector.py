"""Selection, for each object and level, between the costs of two networks (CoLAD)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ladle.assigners.mixture import RIDGE
from ladle.assigners.protocol import Evidence
from ladle.pairs import Pairs
from ladle.types import GroundTruth, Priors

__all__ = ["CostSelector", "Selection"]

_STEPS = 30
"""EM iterations for the Fisher score. PAA's fit has nearly always converged after so many."""
_TINY = 1e-12


class Selection(NamedTuple):
    """The selected costs, and which network they are from.

    Attributes:
        evidence: candidates with the costs of the selected network.
        decided: the objects and levels that have candidates.
        second: the objects and levels for which the second network was selected.

    Examples:
        >>> from ladle.assigners import PAA, CostSelector
        >>> from ladle.testing import example_scene
        >>> predictions, priors, truth = example_scene()
        >>> evidence = PAA().weigh(predictions, priors, truth)
        >>> selection = CostSelector()(evidence, evidence, priors, truth)
        >>> bool((selection.second <= selection.decided).all())
        True
    """

    evidence: Evidence
    decided: Bool[Tensor, "B G L"]
    second: Bool[Tensor, "B G L"]


@dataclass(frozen=True)
class CostSelector:
    """Select the network whose costs separate an object's good candidates from its bad ones more clearly.

    CoLAD (Nguyen et al., WACV 2022, section 3.3). The selection is made for each object and level, over all its
    candidates on that level, before any candidate is dropped.

    Args:
        by: ``"spread"``: the network with the larger ratio of standard deviation (unbiased) to mean of the costs; on a
            tie the second (released code). ``"fisher"``: the network with the larger Fisher score, the squared
            difference of the means over the sum of the variances of a mixture of two Gaussians (paper).

    With a single candidate the network with the lower cost is selected, on a tie the first. Nothing is decided for an
    image without objects, where the released code fails, or for an object without candidates. A candidate whose cost is
    not finite for one of the networks is left out.

    Examples:
        >>> from dataclasses import replace
        >>> from ladle.assigners import PAA, CostSelector
        >>> from ladle.testing import example_scene
        >>> predictions, priors, truth = example_scene()
        >>> uncertain = replace(predictions, logits=predictions.logits / 2)
        >>> first, second = (PAA().weigh(each, priors, truth) for each in (predictions, uncertain))
        >>> selection = CostSelector()(first, second, priors, truth)
        >>> plan = PAA().select(selection.evidence, priors, truth)  # of both networks
        >>> plan.positive.any(1)
        tensor([True, True])
    """

    by: Literal["spread", "fisher"] = "spread"

    @torch.no_grad()
    def __call__(self, first: Evidence, second: Evidence, priors: Priors, truth: GroundTruth) -> Selection:
        """Select between two networks' evidence on the same priors, computed with the same candidate rule.

        Args:
            first: the first network's costs.
            second: the second network's costs; its ``index`` must equal that of ``first``.
            priors: the priors of both networks.
            truth: the objects.
        """
        batch, objects = truth.labels.shape
        levels = len(priors.counts)
        candidate = first.candidate & second.candidate
        pairs = Pairs.chosen(first.index, candidate)
        # One group for each object and level: B * G * L groups, in which the N candidates are members.
        group = (pairs.image * objects + pairs.object) * levels + priors.level.index_select(0, pairs.prior)
        groups = _Groups(torch.where(pairs.real, group, batch * objects * levels), batch * objects * levels)
        costs = [pairs.of_prior(one.cost).double() for one in (first, second)]  # (N,) of each network
        means = [groups.mean(cost) for cost in costs]  # (groups,) of each network
        if self.by == "spread":
            score = [groups.variance(cost, mean).sqrt() / mean for cost, mean in zip(costs, means, strict=True)]
        else:
            score = [_fisher(groups, cost) for cost in costs]
        second_wins = torch.where(groups.count > 1, score[1] >= score[0], means[1] < means[0]) & (groups.count > 0)

        # The group of every prior (B, P), and the priors whose group takes the costs of the second network.
        cell = (torch.arange(batch, device=group.device)[:, None] * objects + first.index) * levels + priors.level
        from_second = candidate & (second_wins[cell] if len(second_wins) else torch.zeros_like(candidate))
        evidence = first.replaced(cost=torch.where(from_second, second.cost, first.cost), candidate=candidate)
        return Selection(
            evidence, (groups.count > 0).view(batch, objects, levels), second_wins.view(batch, objects, levels)
        )


class _Groups:
    """Statistics over the members of each group; members of no group are in an extra last one, which is dropped."""

    def __init__(self, member: Int[Tensor, " N"], number: int) -> None:
        self.member, self.number = member, number
        self.count = self.sum(torch.ones_like(member, dtype=torch.float64))

    def sum(self, values: Float[Tensor, " N"]) -> Float[Tensor, " groups"]:
        return values.new_zeros(self.number + 1).index_add(0, self.member, values)[:-1]

    def mean(self, values: Float[Tensor, " N"]) -> Float[Tensor, " groups"]:
        return self.sum(values) / self.count.clamp(min=1)

    def variance(self, values: Float[Tensor, " N"], mean: Float[Tensor, " groups"]) -> Float[Tensor, " groups"]:
        return self.sum((values - self.of(mean)).square()) / (self.count - 1).clamp(min=1)

    def of(self, values: Float[Tensor, " groups"]) -> Float[Tensor, " N"]:
        """Gather the value of each member's group; 0 for members of no group."""
        return torch.cat([values, values.new_zeros(1)])[self.member]

    def extremes(self, values: Float[Tensor, " N"]) -> tuple[Float[Tensor, " groups"], Float[Tensor, " groups"]]:
        none = values.new_zeros(self.number + 1)
        ends = [none.scatter_reduce(0, self.member, values, how, include_self=False)[:-1] for how in ("amin", "amax")]
        return ends[0], ends[1]


def _fisher(groups: _Groups, cost: Float[Tensor, " N"]) -> Float[Tensor, " groups"]:
    """The Fisher score of a mixture of two Gaussians fitted to each group, initialized as in PAA."""
    mean = torch.stack(groups.extremes(cost))  # (2, groups), as are variance and weight
    variance, weight = torch.ones_like(mean), torch.full_like(mean, 0.5)
    for _ in range(_STEPS):
        density = torch.stack(
            [
                groups.of(weight[k].log() - variance[k].log() / 2)
                - (cost - groups.of(mean[k])).square() / (2 * groups.of(variance[k]).clamp(min=RIDGE))
                for k in range(2)
            ]
        )
        responsibility = density.softmax(0)  # (2, N)
        mass = torch.stack([groups.sum(part) for part in responsibility]) + _TINY
        mean = torch.stack([groups.sum(part * cost) for part in responsibility]) / mass
        squares = [
            groups.sum(part * (cost - groups.of(center)).square())
            for part, center in zip(responsibility, mean, strict=True)
        ]
        variance = torch.stack(squares) / mass + RIDGE
        weight = mass / mass.sum(0)
    return (mean[0] - mean[1]).square() / variance.sum(0)
