"""OTA has no implementation that can be installed: a plain loop over images, and POT's solver in its place.

Costs follow Ge et al. 2021 as their released code has it: focal loss, 1.5 times the logarithm of the IoU, a wall around
the center square of 2.5 strides; 50 iterations of entropic transport at 0.1.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from peers.case import Case, Ready
from torch import Tensor

WALL = 1e6
EPSILON = torch.finfo(torch.float32).eps
Solver = Callable[[Tensor, Tensor], Tensor]


def _focal(logits: Tensor, target: float) -> Tensor:
    prob = logits.sigmoid()
    right = prob if target else 1 - prob
    cross = F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, target), reduction="none")
    return (0.25 if target else 0.75) * cross * (1 - right) ** 2


def _costs(case: Case, row: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Costs (G+1, P) with the background last, and how many points each of these rows supplies (G+1,)."""
    objects, labels = case.objects[row]
    points, stride, objects, said, logits = (
        x.to(dtype) for x in (torch.cat(case.points), case.stride, objects, case.boxes[row], case.logits[row])
    )
    low, high = objects[:, None, :2], objects[:, None, 2:]
    middle, radius = (low + high) / 2, 2.5 * stride[:, None]
    in_box = torch.cat([points - low, high - points], -1).amin(-1) > 0.01
    in_square = (points - (middle - radius).maximum(low)).amin(-1) > 0
    in_square &= ((middle + radius).minimum(high) - points).amin(-1) > 0
    inside = in_box & in_square
    nothing, everything = _focal(logits, 0.0), _focal(logits, 1.0)
    background = nothing.sum(1)
    classes = background + (everything - nothing).t()[labels]
    sides = said[:, 2:].minimum(high) - said[:, :2].maximum(low)
    overlap = sides.clamp(min=0).prod(-1)
    union = (high - low).prod(-1) + (said[:, 2:] - said[:, :2]).clamp(min=0).prod(-1) - overlap
    iou = overlap / union.clamp(min=EPSILON)
    cost = classes - 1.5 * iou.clamp(min=EPSILON).log() + WALL * ~inside
    supply = (iou * inside).topk(min(20, len(points)), dim=1).values.sum(1).int().clamp(min=1).to(dtype)
    rest = len(points) - supply.sum()
    return torch.cat([cost, background[None]]), torch.cat([supply, rest[None]])


def _loop(cost: Tensor, supply: Tensor) -> Tensor:
    """Sinkhorn's iterations on logarithms, as the released code orders them."""
    u, v = torch.zeros_like(supply), torch.zeros_like(cost[0])
    for _ in range(50):
        v = -0.1 * torch.logsumexp((u[:, None] - cost) / 0.1, 0)
        u = 0.1 * (supply.log() - torch.logsumexp((v - cost) / 0.1, 1))
    return ((u[:, None] + v - cost) / 0.1).exp()


def _pot(cost: Tensor, supply: Tensor) -> Tensor:
    from ot.bregman import sinkhorn_log

    demand = torch.ones_like(cost[0])
    return sinkhorn_log(supply, demand, cost, reg=0.1, numItermax=50, stopThr=0.0, warn=False)


def _pot_in_numpy(cost: Tensor, supply: Tensor) -> Tensor:
    from ot.bregman import sinkhorn_log

    demand = torch.ones_like(cost[0]).cpu().numpy()
    cost, supply = cost.cpu().numpy(), supply.cpu().numpy()
    return torch.from_numpy(sinkhorn_log(supply, demand, cost, reg=0.1, numItermax=50, stopThr=0.0, warn=False))


def _choose(plan: Tensor) -> Tensor:
    share = (plan / plan.amax(1, keepdim=True)).argmax(0)
    return torch.where(share == len(plan) - 1, 0, share + 1)


def _solved_by(solve: Solver, dtype: torch.dtype) -> Callable[[Case], Ready]:
    def prepare(case: Case) -> Ready:
        solve(torch.zeros(2, 3), torch.tensor([1.0, 2.0]))  # says at once whether the solver can be imported
        rows = range(case.images)
        return Ready(lambda: [_choose(solve(*_costs(case, row, dtype))) for row in rows], torch.stack)

    return prepare


loop32 = _solved_by(_loop, torch.float32)
loop64 = _solved_by(_loop, torch.float64)
pot32 = _solved_by(_pot, torch.float32)
pot64 = _solved_by(_pot_in_numpy, torch.float64)
