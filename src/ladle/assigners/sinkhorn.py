"""Entropic optimal transport between objects, a background and priors, on the pairs that can carry anything.

Sinkhorn's scaling as OTA runs it (Ge et al., CVPR 2021, algorithm 1 and the authors' order: priors first, objects
last, from u = 0), without early stop and without the 1e-8 that the authors add inside logarithms. Three identities make
it cheap and change nothing:

* What a prior adds to all its costs cancels in its own scaling. So costs count from the background's, whose kernel is 1
  everywhere, and of the focal loss only the object's own class is left.
* All scalings of an image may be divided by the background's. Then a prior without a pair is scaled by exactly 1.
* After the priors' step each prior receives exactly 1, so what the background ships is the number of priors less what
  the objects ship: no sum over priors.

Nothing is exponentiated inside the loop. Rows are scaled by their cheapest cost, which keeps float64 in range.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ladle.types import Record

__all__ = ["TransportPlan", "TransportProblem", "sinkhorn"]

_REACH = 600.0
"""Largest exponent: costs further than this times epsilon above an object's cheapest count as just so far."""
_LEAST, _MOST = 1e-290, 1e290
"""What a sum is taken to be at least and a scaling at most, so that products stay finite whatever is predicted."""


@dataclass(frozen=True)
class TransportProblem(Record):
    """N pairs of an object and a prior that may trade, ordered by object; the images of a batch side by side.

    ``object`` counts over all images, ``column`` over the priors in play, of which there are ``columns``. ``cost`` is
    what the pair costs more than the prior as background; entries that are not ``real`` carry nothing. ``supply`` is
    what each object gives away, ``rest`` what the background does, ``priors`` how many each image has, in play or not.
    Each wants 1. ``width`` is set if every object has that many entries.
    """

    object: Int[Tensor, " N"]
    column: Int[Tensor, " N"]
    cost: Float[Tensor, " N"]
    real: Bool[Tensor, " N"]
    supply: Float[Tensor, "B G"]
    rest: Float[Tensor, " B"]
    priors: Float[Tensor, " B"]
    columns: int
    width: int | None = None

    def cheapest(self) -> Float[Tensor, " R"]:
        """The least cost of each object's pairs, inf where it has none."""
        none = self.cost.new_full((self.supply.numel(),), torch.inf)
        return none.scatter_reduce(0, self.object, torch.where(self.real, self.cost, torch.inf), "amin")


@dataclass(frozen=True)
class TransportPlan(Record):
    """The plan: what each pair carries, and what the background ships to each prior in play and to any other."""

    pairs: Float[Tensor, " N"]
    background: Float[Tensor, " columns"]
    others: Float[Tensor, " B"]


def sinkhorn(
    market: TransportProblem, image: Int[Tensor, " columns"], epsilon: float = 0.1, iterations: int = 50
) -> TransportPlan:
    """The plan after so many iterations, in float64; ``image`` says whose each prior in play is.

    The objects' step comes last: each has shipped its supply exactly, a prior's column sums to 1 but for what has not
    converged.
    """
    batch, objects = market.supply.shape
    cheapest = market.cheapest().double()
    cheapest = torch.where(cheapest.isfinite(), cheapest, 0.0)
    above = (cheapest.index_select(0, market.object) - market.cost.double()) / epsilon
    kernel = torch.where(market.real, above.clamp(-_REACH, 0.0).exp(), 0.0)
    scale = (-cheapest / epsilon).clamp(-_REACH, _REACH).exp()
    supply, rest, priors = market.supply.double(), market.rest.double(), market.priors.double()
    wanted = supply / rest.unsqueeze(1)
    # 32-bit numbers are read faster; a scatter does not take them.
    row, column = market.object.int(), market.column.int()
    lengths = None if market.width else torch.bincount(market.object, minlength=batch * objects)
    # Two buffers serve all iterations: fresh memory would cost more than the arithmetic.
    flow, inverse, left = torch.empty_like(kernel), kernel.new_empty(market.columns), priors
    for _ in range(iterations):
        torch.index_select(scale, 0, row, out=flow).mul_(kernel)
        inverse.fill_(1.0).scatter_add_(0, market.column, flow).reciprocal_()
        torch.index_select(inverse, 0, column, out=flow).mul_(kernel)
        received = _sums(flow, lengths, market.width).clamp_(min=_LEAST)
        left = (priors - (scale * received).view(batch, objects).sum(1)).clamp_(min=_LEAST)
        scale = (wanted * left.unsqueeze(1)).flatten().div_(received).clamp_(max=_MOST)
    share = rest / left
    background = inverse * share.index_select(0, image)
    carried = flow * scale.index_select(0, row) * share.index_select(0, market.object // max(objects, 1))
    return TransportPlan(carried, background, share)


def _sums(values: Tensor, lengths: Tensor | None, width: int | None) -> Tensor:
    """The sum of each object's entries."""
    if lengths is None or width:
        return values.view(-1, width or 1).sum(1)
    return torch.segment_reduce(values, "sum", lengths=lengths, unsafe=True)
