"""Which of two networks tells an object's good priors from its bad ones more clearly."""

from __future__ import annotations

from dataclasses import dataclass, replace
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
"""Steps of the mixture of the Fisher score; the fit of PAA has nearly always ended by then."""
_TINY = 1e-12


class Selection(NamedTuple):
    """The evidence of the surer network, object by object and level by level, and who that was.

    ``decided`` is where there was anything to decide, ``second`` where the second network was the surer one.

    Examples:
        >>> from ladle.assigners import PAA, CostSelector
        >>> from ladle.testing import example_scene
        >>> predictions, priors, truth = example_scene()
        >>> evidence = PAA().weigh(predictions, priors, truth)
        >>> verdict = CostSelector()(evidence, evidence, priors, truth)
        >>> bool((verdict.second <= verdict.decided).all())
        True
    """

    evidence: Evidence
    decided: Bool[Tensor, "B G L"]
    second: Bool[Tensor, "B G L"]


@dataclass(frozen=True)
class CostSelector:
    """Compare two networks' costs of the same candidates (CoLAD: Nguyen et al., WACV 2022, section 3.3; released code).

    For each object and level, over all its candidates there and before any of them is dropped:

    Args:
        by: ``spread``, the standard deviation (unbiased) over the mean of the costs, the larger one is surer, on a tie
            the second network (released code); or ``fisher``, the squared distance of the means over the sum of the
            variances of a mixture of two Gaussians (paper).

    Of a single candidate there is no deviation: there the network that finds it cheaper is surer, on a tie the first.
    An image without objects, or an object without candidates, asks for no decision; the released code fails on the
    first. Candidates whose cost is not finite for either network are passed over.

    Examples:
        >>> from dataclasses import replace
        >>> from ladle.assigners import PAA, CostSelector
        >>> from ladle.testing import example_scene
        >>> predictions, priors, truth = example_scene()
        >>> vaguer = replace(predictions, logits=predictions.logits / 2)
        >>> first, second = (PAA().weigh(said, priors, truth) for said in (predictions, vaguer))
        >>> verdict = CostSelector()(first, second, priors, truth)
        >>> plan = PAA().select(verdict.evidence, priors, truth)  # of both networks
        >>> plan.positive.any(1)
        tensor([True, True])
    """

    by: Literal["spread", "fisher"] = "spread"

    @torch.no_grad()
    def __call__(self, first: Evidence, second: Evidence, priors: Priors, truth: GroundTruth) -> Selection:
        """The surer network's costs; both must have weighed the same candidates for the same objects."""
        batch, objects = truth.labels.shape
        levels = len(priors.counts)
        candidate = first.candidate & second.candidate
        pairs = Pairs.chosen(first.index, candidate)
        group = (pairs.image * objects + pairs.object) * levels + priors.level.index_select(0, pairs.prior)
        groups = _Groups(torch.where(pairs.real, group, batch * objects * levels), batch * objects * levels)
        costs = [pairs.of_prior(one.cost).double() for one in (first, second)]
        means = [groups.mean(cost) for cost in costs]
        if self.by == "spread":
            clear = [groups.variance(cost, mean).sqrt() / mean for cost, mean in zip(costs, means, strict=True)]
        else:
            clear = [_fisher(groups, cost) for cost in costs]
        surer = torch.where(groups.count > 1, clear[1] >= clear[0], means[1] < means[0]) & (groups.count > 0)

        cell = (torch.arange(batch, device=group.device)[:, None] * objects + first.index) * levels + priors.level
        takes = candidate & (surer[cell] if len(surer) else torch.zeros_like(candidate))
        evidence = replace(first, cost=torch.where(takes, second.cost, first.cost), candidate=candidate)
        return Selection(evidence, (groups.count > 0).view(batch, objects, levels), surer.view(batch, objects, levels))


class _Groups:
    """Sums over the members of each group; a last group holds what belongs to none."""

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
        """What each member's group has of ``values``."""
        return torch.cat([values, values.new_zeros(1)])[self.member]

    def extremes(self, values: Float[Tensor, " N"]) -> tuple[Float[Tensor, " groups"], Float[Tensor, " groups"]]:
        none = values.new_zeros(self.number + 1)
        ends = [none.scatter_reduce(0, self.member, values, how, include_self=False)[:-1] for how in ("amin", "amax")]
        return ends[0], ends[1]


def _fisher(groups: _Groups, cost: Float[Tensor, " N"]) -> Float[Tensor, " groups"]:
    """How far apart two Gaussians are that are fitted to each group, started as PAA starts its mixture."""
    mean = torch.stack(groups.extremes(cost))
    variance, weight = torch.ones_like(mean), torch.full_like(mean, 0.5)
    for _ in range(_STEPS):
        density = torch.stack(
            [
                groups.of(weight[k].log() - variance[k].log() / 2)
                - (cost - groups.of(mean[k])).square() / (2 * groups.of(variance[k]).clamp(min=RIDGE))
                for k in range(2)
            ]
        )
        share = density.softmax(0)
        mass = torch.stack([groups.sum(part) for part in share]) + _TINY
        mean = torch.stack([groups.sum(part * cost) for part in share]) / mass
        spread = [
            groups.sum(part * (cost - groups.of(middle)).square()) for part, middle in zip(share, mean, strict=True)
        ]
        variance = torch.stack(spread) / mass + RIDGE
        weight = mass / mass.sum(0)
    return (mean[0] - mean[1]).square() / variance.sum(0)
