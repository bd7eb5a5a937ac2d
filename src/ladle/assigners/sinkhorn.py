"""Entropic optimal transport between objects, a background and priors, on a sparse list of pairs.

Objects and the background supply labels, and every prior receives exactly one. The plan is found by Sinkhorn iterations
as in OTA (Ge et al., CVPR 2021, algorithm 1, and the order of the authors' code: first the columns of the priors, then
the rows of the objects, starting from u = 0), but without early stopping and without the 1e-8 that the authors add
inside logarithms. Three identities reduce the work and leave the result unchanged:

* A constant added to all costs of one prior cancels in the scaling of its column. So costs are measured relative to the
  cost of the prior as background. The background's kernel is then 1 everywhere, and of a focal loss summed over classes
  only the term of the object's class remains.
* All scalings of an image may be divided by the scaling of the background. A prior without a pair then has scaling 1.
* After the priors' step each prior receives exactly 1. So the background ships the number of priors minus what the
  objects ship, and no sum over all priors is needed.

There is no exponential inside the loop. Each object's row is scaled by its lowest cost, which keeps float64 in range.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ladle.device import fused, may_look
from ladle.types import Record

__all__ = ["TransportPlan", "TransportProblem", "sinkhorn"]

_REACH = 600.0
"""Largest exponent: cost differences above this times epsilon are clamped to it."""
_LEAST, _MOST = 1e-290, 1e290
"""Lower bound of sums and upper bound of scalings, so that products stay finite for any predictions."""
_LIMITS = (_REACH, _LEAST, _MOST)


@dataclass(frozen=True)
class TransportProblem(Record):
    """The transport problems of a batch: N pairs of an object and a prior with nonzero flow, sorted by object.

    Attributes:
        object: index of the pair's object among the R = B * G objects of the batch.
        column: index of the pair's prior among those that are in any pair.
        cost: cost of the pair minus the cost of the prior as background.
        real: False for padding, which has no flow.
        supply: number of labels of each object.
        rest: number of labels of each image's background.
        priors: number of priors of each image, in a pair or not; each demands 1 label.
        columns: number of priors that are in any pair.
        width: number of entries of each object, if it is the same for all.
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

    def lowest_cost(self) -> Float[Tensor, " R"]:
        """The lowest cost of each object's pairs; infinite for an object without pairs."""
        none = self.cost.new_full((self.supply.numel(),), torch.inf)
        return none.scatter_reduce(0, self.object, torch.where(self.real, self.cost, torch.inf), "amin")


@dataclass(frozen=True)
class TransportPlan(Record):
    """The transport plan.

    Attributes:
        pairs: the flow of each pair.
        background: the flow from the background to each prior that is in a pair.
        others: the flow from the background to each other prior of an image.
    """

    pairs: Float[Tensor, " N"]
    background: Float[Tensor, " columns"]
    others: Float[Tensor, " B"]


def sinkhorn(
    problem: TransportProblem, image: Int[Tensor, " columns"], epsilon: float = 0.1, iterations: int = 50
) -> TransportPlan:
    """The transport plan after a fixed number of iterations, in float64.

    The objects' step comes last. So each object ships exactly its supply, and the column of a prior sums to 1 up to the
    error of convergence.

    Args:
        problem: costs, supplies and demands.
        image: the image of each prior that is in a pair.
        epsilon: weight of the entropy; the larger, the softer the plan.
        iterations: number of iterations.
    """
    if may_look(problem.cost) or not problem.width:
        return _iterated(problem, image, epsilon, iterations)
    width, columns = problem.width, problem.columns
    demands = (problem.supply, problem.rest, problem.priors)
    return TransportPlan(
        *_TRANSPORT(problem.column, problem.cost, problem.real, *demands, columns, width, epsilon, iterations, _LIMITS)
    )


def _iterated(
    problem: TransportProblem, image: Int[Tensor, " columns"], epsilon: float, iterations: int
) -> TransportPlan:
    """:func:`sinkhorn` in plain operations."""
    batch, objects = problem.supply.shape
    lowest = problem.lowest_cost().double()  # (R,)
    lowest = torch.where(lowest.isfinite(), lowest, 0.0)
    exponent = (lowest.index_select(0, problem.object) - problem.cost.double()) / epsilon
    kernel = torch.where(problem.real, exponent.clamp(-_REACH, 0.0).exp(), 0.0)  # (N,), at most 1
    scale = (-lowest / epsilon).clamp(-_REACH, _REACH).exp()  # (R,), row scalings relative to the background's
    supply, rest, priors = problem.supply.double(), problem.rest.double(), problem.priors.double()
    ratio = supply / rest.unsqueeze(1)  # (B, G), an object's supply relative to the background's
    # index_select is faster with 32-bit indices; scatter accepts 64-bit ones only.
    row, column = problem.object.int(), problem.column.int()
    lengths = None if problem.width else torch.bincount(problem.object, minlength=batch * objects)
    # Two buffers are reused by all iterations: allocating memory would take longer than the arithmetic.
    flow, inverse, remaining = torch.empty_like(kernel), kernel.new_empty(problem.columns), priors
    for _ in range(iterations):
        # Columns: 1 is the background's entry, since its kernel and its scaling are 1.
        torch.index_select(scale, 0, row, out=flow).mul_(kernel)
        inverse.fill_(1.0).scatter_add_(0, problem.column, flow).reciprocal_()  # (columns,), column scalings
        # Rows: what the objects do not ship to the priors of an image, the background does.
        torch.index_select(inverse, 0, column, out=flow).mul_(kernel)
        received = _sums(flow, lengths, problem.width).clamp_(min=_LEAST)  # (R,)
        remaining = (priors - (scale * received).view(batch, objects).sum(1)).clamp_(min=_LEAST)  # (B,)
        scale = (ratio * remaining.unsqueeze(1)).flatten().div_(received).clamp_(max=_MOST)
    # Undo the division by the background's scaling, which is rest / remaining.
    factor = rest / remaining
    background = inverse * factor.index_select(0, image)
    shipped = flow * scale.index_select(0, row) * factor.index_select(0, problem.object // max(objects, 1))
    return TransportPlan(shipped, background, factor)


def _sums(values: Tensor, lengths: Tensor | None, width: int | None) -> Tensor:
    """The sum of each object's entries (N,) -> (R,)."""
    if lengths is None or width:
        return values.view(-1, width or 1).sum(1)
    return torch.segment_reduce(values, "sum", lengths=lengths, unsafe=True)


def _transport(
    column: Tensor, cost: Tensor, real: Tensor, supply: Tensor, rest: Tensor, priors: Tensor, columns: int, width: int,
    epsilon: float, iterations: int, limits: Sequence[float],
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """:func:`sinkhorn` of plain tensors: a table of ``width`` pairs for each object, and every prior a column.

    ``limits`` is for kernels, which have no constants of this module.
    """
    row = torch.arange(supply.numel(), device=cost.device).repeat_interleave(width)
    image = torch.arange(len(rest), device=cost.device).repeat_interleave(columns // max(len(rest), 1))
    problem = TransportProblem(row, column, cost, real, supply, rest, priors, columns, width)
    plan = _iterated(problem, image, epsilon, iterations)
    return plan.pairs, plan.background, plan.others


_TRANSPORT = fused(
    "transport(Tensor column, Tensor cost, Tensor real, Tensor supply, Tensor rest, Tensor priors, int columns, "
    "int width, float epsilon, int iterations, float[] limits) -> (Tensor, Tensor, Tensor)",
    _transport,
    module="sinkhorn",
    launches=1,
)
