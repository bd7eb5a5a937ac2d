"""Choosing the best few of many, per object and level, without a matrix of priors by objects."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

__all__ = ["cheapest_per_group"]


def cheapest_per_group(
    cost: Float[Tensor, "B P"], group: Int[Tensor, "B P"], candidate: Bool[Tensor, "B P"], groups: int, k: int
) -> tuple[Int[Tensor, "B N K"], Bool[Tensor, "B N K"]]:
    """The ``k`` cheapest candidates of each group, cheapest first, and which of these entries exist.

    Each prior belongs to one group, so one sort by cost and a stable one by group put every group's candidates side
    by side: O(P log P) however many groups there are. On equal cost the earlier prior comes first.
    """
    batch, priors = cost.shape
    home = torch.where(candidate, group, groups)
    by_cost = cost.argsort(dim=1, stable=True)
    by_group = home.gather(1, by_cost).argsort(dim=1, stable=True)
    order = by_cost.gather(1, by_group)
    home = home.gather(1, order)

    members = torch.zeros(batch, groups + 1, dtype=torch.long, device=cost.device)
    members = members.scatter_add(1, home, torch.ones_like(home))
    first = members.cumsum(1) - members
    rank = torch.arange(priors, device=cost.device) - first.gather(1, home)

    kept = (rank < k) & (home < groups)
    slot = torch.where(kept, home * k + rank, groups * k)
    table = torch.zeros(batch, groups * k + 1, dtype=torch.long, device=cost.device).scatter(1, slot, order)
    filled = torch.zeros_like(table, dtype=torch.bool).scatter(1, slot, kept)
    return table[:, :-1].view(batch, groups, k), filled[:, :-1].view(batch, groups, k)
