"""OTA: label assignment as optimal transport."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import reduce

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ladle.assigners.protocol import full_precision
from ladle.assigners.sinkhorn import TransportPlan, TransportProblem, sinkhorn
from ladle.boxes import iou
from ladle.losses.focal import softplus
from ladle.overlaps import may_look, outside_crowds
from ladle.pairs import Pairs, pairs_inside, settle, squares
from ladle.types import Assignment, GroundTruth, Predictions, Priors

__all__ = ["OTA"]

_MARGIN = 0.01
"""How many pixels inside an object a prior must lie."""


@dataclass(frozen=True)
class OTA:
    """Objects ship labels to priors as cheaply as all of them together can (Ge et al., CVPR 2021).

    A pair of a prior and an object costs the losses it would suffer. Each object has as many labels to give as its
    ``topk`` best IoUs sum up to, at least one; the background has the rest. Sinkhorn's plan is divided by each row's
    largest entry, and a prior learns the object, or is the background, that then ships most to it; on a tie the object
    listed first, and an object before the background.

    Args:
        radius: half the side of the square around an object's center in which its priors lie, in strides, cut off at
            the object's sides.
        box_weight: weight of the box term, ``-log IoU``, in the cost.
        topk: how many IoUs are summed for the number of labels.
        epsilon: weight of the entropy: the larger, the softer the plan.
        iterations: of Sinkhorn's scaling; there is no early stop.
        crowd: a prior with more than this share inside a crowd region is not background.

    The authors' code prices all other pairs at a million more, which no plan uses. Only an object without any prior
    to itself gets one label placed by rounding errors; here it has none to give. Pairs whose cost is not finite are
    passed over. If the objects ask for more priors than there are, the background still keeps one label.

    Examples:
        >>> from ladle.assigners import OTA
        >>> from ladle.testing import example_scene
        >>> predictions, priors, truth = example_scene()
        >>> plan = OTA()(predictions, priors, truth)
        >>> plan.positive.sum(1)  # priors that learn an object, in each of two images
        tensor([31, 47])
    """

    radius: float = 2.5
    box_weight: float = 1.5
    topk: int = 20
    epsilon: float = 0.1
    iterations: int = 50
    crowd: float = 0.5

    @full_precision
    def __call__(self, predictions: Predictions, priors: Priors, truth: GroundTruth) -> Assignment:
        """Assign by costs."""
        market, place = self.market(predictions, priors, truth)
        free = outside_crowds(priors, truth, self.crowd)
        if not len(market.cost):
            return Assignment.empty(free)
        batch, count = free.shape
        plan = sinkhorn(market, place // count, self.epsilon, self.iterations)
        positive, index = _shipped_most(market, plan, place, batch * count)
        return Assignment.hard(index.view(batch, count), positive.view(batch, count), free)

    @full_precision
    def market(
        self, predictions: Predictions, priors: Priors, truth: GroundTruth
    ) -> tuple[TransportProblem, Int[Tensor, " columns"]]:
        """What every pair costs and every object gives, and where the priors in play stand among those of all images.

        Costs count from what the prior costs as background.
        """
        pairs = self._candidates(priors, truth)
        batch, objects = truth.labels.shape
        overlap = iou(pairs.of_prior(predictions.boxes), pairs.of_object(truth.boxes))
        cost = self._class_cost(pairs, predictions, truth)
        cost = cost - self.box_weight * overlap.clamp(min=torch.finfo(torch.float32).eps).log()
        real = pairs.real & cost.isfinite()
        home = pairs.image * objects + pairs.object
        place, column = _in_play(pairs.image * priors.boxes.shape[1] + pairs.prior, batch * priors.boxes.shape[1])
        labels = self._labels(home, torch.where(real, overlap, 0.0), batch * objects, pairs.width)
        served = torch.zeros_like(labels).scatter_reduce(0, home, real.to(labels.dtype), "amax")
        supply = (labels.clamp(min=1) * served).view(batch, objects)
        many = priors.valid.expand(batch, -1).sum(1)
        rest = (many - supply.sum(1)).clamp(min=1)
        return TransportProblem(
            home, column, cost, real, supply, rest, many.to(rest.dtype), len(place), pairs.width
        ), place

    def _candidates(self, priors: Priors, truth: GroundTruth) -> Pairs:
        """The priors inside an object and its center square, ordered by image and object."""
        square, box = squares(priors, truth, self.radius), truth.boxes.unsqueeze(2)
        first, last = square[..., :2].maximum(box[..., :2] + _MARGIN), square[..., 2:].minimum(box[..., 2:] - _MARGIN)
        most = math.floor(2 * self.radius) + 1
        lists = list(pairs_inside(priors, torch.cat([first, last], dim=-1), truth.learnable, most=most))
        if len(lists) <= 1:
            return lists[0] if lists else Pairs.table(truth.labels.unsqueeze(-1), truth.valid.unsqueeze(-1))
        joined = reduce(Pairs.join, lists)
        order = (joined.image * truth.labels.shape[1] + joined.object).argsort(stable=True)
        return joined.at(order, joined.width)

    def _class_cost(self, pairs: Pairs, predictions: Predictions, truth: GroundTruth) -> Float[Tensor, " N"]:
        """What focal loss costs more with the object's class as target than with none; other classes cancel."""
        logit = pairs.of_label(predictions.logits, truth.labels)
        score, miss = logit.sigmoid(), softplus(logit)
        return 0.25 * (1 - score).square() * (miss - logit) - 0.75 * score.square() * miss

    def _labels(
        self, home: Int[Tensor, " N"], overlap: Float[Tensor, " N"], rows: int, width: int | None
    ) -> Float[Tensor, " R"]:
        """The whole part of the sum of each object's best IoUs."""
        if not len(home):
            return overlap.new_zeros(rows, dtype=torch.float64)
        if width:
            table = overlap.view(rows, width)
        else:
            lengths = torch.bincount(home, minlength=rows)
            width = int(lengths.max())
            slot = torch.arange(len(home)) + (torch.arange(rows) * width - lengths.cumsum(0) + lengths)[home]
            table = overlap.new_zeros(rows * width).scatter(0, slot, overlap).view(rows, width)
        return table.topk(min(self.topk, width), sorted=False).values.double().sum(1).floor()


def _in_play(places: Int[Tensor, " N"], total: int) -> tuple[Int[Tensor, " columns"], Int[Tensor, " N"]]:
    """The places that occur, and the number of each entry's among them; all of them where looking is not free."""
    if not may_look(places):
        return torch.arange(total, device=places.device), places
    occurs = torch.zeros(total, dtype=torch.bool).index_fill_(0, places, True)
    number = occurs.cumsum(0, dtype=torch.int32)
    column = number.index_select(0, places).long() - 1
    return torch.empty(int(number[-1]), dtype=torch.long).scatter_(0, column, places), column


def _shipped_most(
    market: TransportProblem, plan: TransportPlan, place: Int[Tensor, " columns"], total: int
) -> tuple[Bool[Tensor, " total"], Int[Tensor, " total"]]:
    """Which priors an object ships most to, every row measured by its largest entry, and which object."""
    objects = market.supply.shape[1]
    peak = plan.pairs.new_zeros(market.supply.numel()).scatter_reduce(0, market.object, plan.pairs, "amax")
    merit = plan.pairs / peak.index_select(0, market.object)
    image = place // (total // len(plan.others))
    bar = plan.background / _background_peak(market, plan, image).index_select(0, image)
    wins = market.real & (merit >= bar.index_select(0, market.column))
    claims = Pairs(torch.zeros_like(market.column), market.object % objects, market.column, wins)
    positive, index = settle(claims, merit, 1, market.columns)
    if market.columns == total:
        return positive[0], index[0]
    nobody = torch.zeros(total, dtype=torch.long)
    return nobody.bool().scatter(0, place, positive[0]), nobody.scatter(0, place, index[0])


def _background_peak(
    market: TransportProblem, plan: TransportPlan, image: Int[Tensor, " columns"]
) -> Float[Tensor, " B"]:
    """The most that the background ships to any valid prior of each image."""
    paired = plan.background.new_zeros(market.columns)
    paired = paired.scatter_reduce(0, market.column, market.real.to(paired.dtype), "amax")
    busy = torch.zeros_like(plan.others).index_add(0, image, paired)
    return torch.where(busy < market.priors, plan.others, 0.0).scatter_reduce(
        0, image, plan.background * paired, "amax"
    )
