"""The one place where losses are divided by their counts."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from jaxtyping import Float
from lightning_fabric import Fabric
from torch import Tensor

from ladle.types import Term

__all__ = ["normalize", "normalize_apart"]


def normalize(terms: Mapping[str, Term], fabric: Fabric) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
    """Divide each term by ``max(count, floor)`` over all ranks; give the loss to differentiate and each term's value.

    The loss is this rank's share, scaled so that averaging gradients over ranks gives exactly the gradient of the sum
    of global_total / max(global_count, global_floor); the values are global and detached. Where the denominator is 0
    so is the term. Costs one all-reduce and no device sync.
    """
    parts, values = _parts(terms, fabric)
    return parts.sum() * fabric.world_size, values


def normalize_apart(
    terms: Mapping[str, Term], given: Collection[str], fabric: Fabric
) -> tuple[Float[Tensor, ""], Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
    """Like :func:`normalize`, with two losses: of all other terms and of the ``given`` ones, both not empty."""
    parts, values = _parts(terms, fabric)
    other, selected = (
        torch.stack([part for name, part in zip(terms, parts.unbind(), strict=True) if (name in given) == chosen]).sum()
        for chosen in (False, True)
    )
    return other * fabric.world_size, selected * fabric.world_size, values


def _parts(terms: Mapping[str, Term], fabric: Fabric) -> tuple[Float[Tensor, " n"], dict[str, Float[Tensor, ""]]]:
    """Each term's share on this rank, to be differentiated, and its value over all ranks."""
    totals = torch.stack([term.total.float() for term in terms.values()])
    counts = torch.stack([term.count.float() for term in terms.values()])
    floors = torch.stack([term.floor.float() for term in terms.values()])
    summed = fabric.all_reduce(torch.stack([totals, counts, floors]).detach(), reduce_op="sum")
    denominator = summed[1].maximum(summed[2])
    # A factor, not a division inside where(): the gradient of x / 0 would be NaN even where it is masked.
    share = torch.where(denominator > 0, 1 / denominator, 0)
    values = (summed[0] * share).unbind()
    return totals * share, dict(zip(terms, values, strict=True))
