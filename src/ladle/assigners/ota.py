"""OTA: label assignment as optimal transport."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import reduce

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ladle.assigners.protocol import full_precision
from ladle.assigners.rescue import candidate_boxes, rescued
from ladle.assigners.sinkhorn import TransportPlan, TransportProblem, sinkhorn
from ladle.boxes import iou
from ladle.device import may_look
from ladle.losses.focal import softplus
from ladle.overlaps import outside_crowds
from ladle.pairs import Pairs, pairs_inside, resolve_conflicts
from ladle.types import Assignment, GroundTruth, Predictions, Priors
from ladle.windows import squares

__all__ = ["OTA"]

_MARGIN = 0.01
"""Least distance, in pixels, between the center of a candidate and the sides of its object."""


@dataclass(frozen=True)
class OTA:
    """Priors are assigned by an optimal transport plan of lowest total cost (Ge et al., CVPR 2021).

    The cost of a pair is the training loss of the prior for the object. Each object supplies as many labels as the sum
    of its ``topk`` highest IoUs, rounded down, at least one; the background supplies the rest; each prior receives one.
    The plan of the Sinkhorn iterations is divided by the largest entry of each row. A prior then learns the object, or
    is background, whose entry for it is largest; on a tie the object listed first, and an object before the background.

    Args:
        radius: half the side of the square around an object's center in which its candidates lie, in strides. The
            square is clipped to the object.
        box_weight: weight of the box term, ``-log IoU``, in the cost.
        topk: number of IoUs that are summed for the number of labels.
        epsilon: weight of the entropy; the larger, the softer the plan.
        iterations: number of Sinkhorn iterations; there is no early stopping.
        crowd: a prior with more than this share of its area inside a crowd region is not background.
        min_side: objects narrower or lower than this are treated as this wide or high when candidates are chosen, in
            strides of the finest level. 0 changes no object.
        rescue: whether an object without a positive is given the nearest prior that learns nothing
            (:func:`ladle.assigners.rescue.nearest_for_unserved`).

    The authors' code adds a million to the cost of all other pairs, so that no plan uses them. There the label of an
    object without candidates is placed by rounding errors; here such an object supplies none. Pairs whose cost is not
    finite are left out. If the objects supply more labels than there are priors, the background still supplies one.

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
    min_side: float = 0.0
    rescue: bool = False

    @full_precision
    def __call__(self, predictions: Predictions, priors: Priors, truth: GroundTruth) -> Assignment:
        """Assign by the predicted scores and boxes."""
        problem, used = self.transport_problem(predictions, priors, truth)
        free = outside_crowds(priors, truth, self.crowd)
        if not len(problem.cost):
            return self._final(Assignment.empty(free), priors, truth)
        batch, count = free.shape
        image = used // count
        plan = sinkhorn(problem, image, self.epsilon, self.iterations)
        positive, index = _largest_flow(problem, plan, used, image, batch * count)
        return self._final(Assignment.hard(index.view(batch, count), positive.view(batch, count), free), priors, truth)

    def _final(self, plan: Assignment, priors: Priors, truth: GroundTruth) -> Assignment:
        return rescued(plan, priors, truth) if self.rescue else plan

    @full_precision
    def transport_problem(
        self, predictions: Predictions, priors: Priors, truth: GroundTruth
    ) -> tuple[TransportProblem, Int[Tensor, " columns"]]:
        """The transport problem of the batch, and the flat index ``image * P + prior`` of each of its columns.

        Costs are relative to the cost of the prior as background.
        """
        pairs = self._candidates(priors, truth)
        batch, objects = truth.labels.shape
        rows = pairs.image * priors.boxes.shape[1] + pairs.prior
        overlap = iou(predictions.boxes.flatten(0, 1).index_select(0, rows), pairs.of_object(truth.boxes))
        cost = self._class_cost(pairs, rows, predictions, truth)
        cost = cost - self.box_weight * overlap.clamp(min=torch.finfo(torch.float32).eps).log()
        real = pairs.real & (cost.abs() < torch.inf)
        flat_object = pairs.image * objects + pairs.object  # (N,)
        used, column = _used_priors(rows, batch * priors.boxes.shape[1])
        labels = self._labels(flat_object, torch.where(real, overlap, 0.0), batch * objects, pairs.width)
        if pairs.width:
            has_pair = real.view(-1, pairs.width).any(1)
        else:
            has_pair = torch.zeros_like(labels).scatter_reduce(0, flat_object, real.to(labels.dtype), "amax")
        supply = (labels.clamp(min=1) * has_pair).view(batch, objects)
        valid_priors = priors.valid.expand(batch, -1).sum(1)
        rest = (valid_priors - supply.sum(1)).clamp(min=1)
        return TransportProblem(
            flat_object, column, cost, real, supply, rest, valid_priors.to(rest.dtype), len(used), pairs.width
        ), used

    def _candidates(self, priors: Priors, truth: GroundTruth) -> Pairs:
        """The pairs of an object and a prior inside it and inside its center square, sorted by image and object."""
        square = squares(priors, truth, self.radius)
        box = candidate_boxes(priors, truth, self.min_side).unsqueeze(2)
        first, last = square[..., :2].maximum(box[..., :2] + _MARGIN), square[..., 2:].minimum(box[..., 2:] - _MARGIN)
        most = math.floor(2 * self.radius) + 1
        lists = list(pairs_inside(priors, torch.cat([first, last], dim=-1), truth.learnable, most=most))
        if len(lists) <= 1:
            return lists[0] if lists else Pairs.table(truth.labels.unsqueeze(-1), truth.valid.unsqueeze(-1))
        joined, widths = reduce(Pairs.join, lists), {each.width for each in lists}
        order = (joined.image * truth.labels.shape[1] + joined.object).argsort(stable=True)
        return joined.at(order, widths.pop() if len(widths) == 1 else None)

    def _class_cost(
        self, pairs: Pairs, rows: Int[Tensor, " N"], predictions: Predictions, truth: GroundTruth
    ) -> Float[Tensor, " N"]:
        """Focal loss with the object's class as target minus focal loss as background; all other classes cancel."""
        label = pairs.of_object(truth.labels) * pairs.real  # 0 in padding, whose label is arbitrary
        logit = predictions.logits.flatten().index_select(0, rows * predictions.logits.shape[2] + label)
        prob, negative_log = logit.sigmoid(), softplus(logit)  # softplus(z) = -log(1 - p), softplus(z) - z = -log(p)
        return 0.25 * (1 - prob).square() * (negative_log - logit) - 0.75 * prob.square() * negative_log

    def _labels(
        self, flat_object: Int[Tensor, " N"], overlap: Float[Tensor, " N"], rows: int, width: int | None
    ) -> Float[Tensor, " R"]:
        """The sum of each object's ``topk`` highest IoUs, rounded down; ``rows`` is the number of objects R."""
        if not len(flat_object):
            return overlap.new_zeros(rows, dtype=torch.float64)
        if width:
            table = overlap.view(rows, width)
        else:
            # Rows of different lengths: copy them into a table (R, width), padded with zeros.
            lengths = torch.bincount(flat_object, minlength=rows)
            width = int(lengths.max())
            start = torch.arange(rows) * width - lengths.cumsum(0) + lengths
            slot = torch.arange(len(flat_object)) + start[flat_object]
            table = overlap.new_zeros(rows * width).scatter(0, slot, overlap).view(rows, width)
        return table.topk(min(self.topk, width), sorted=False).values.double().sum(1).floor()


def _used_priors(flat_priors: Int[Tensor, " N"], total: int) -> tuple[Int[Tensor, " columns"], Int[Tensor, " N"]]:
    """The distinct values of ``flat_priors`` in ascending order, and the position of each entry among them.

    On a GPU and in a compiled graph, where their number may not depend on values, all ``total`` priors are returned.
    """
    if not may_look(flat_priors):
        return torch.arange(total, device=flat_priors.device), flat_priors
    occurs = torch.zeros(total, dtype=torch.bool).index_fill_(0, flat_priors, True)
    number = occurs.cumsum(0, dtype=torch.int32)
    column = number.index_select(0, flat_priors).long() - 1
    return torch.empty(int(number[-1]), dtype=torch.long).scatter_(0, column, flat_priors), column


def _largest_flow(
    problem: TransportProblem,
    plan: TransportPlan,
    used: Int[Tensor, " columns"],
    image: Int[Tensor, " columns"],
    total: int,
) -> tuple[Bool[Tensor, " total"], Int[Tensor, " total"]]:
    """Which priors receive more from an object than from the background, and from which object most.

    Every row of the plan is divided by its largest entry first, as in the authors' code.
    """
    objects = problem.supply.shape[1]
    if problem.width:
        peak = plan.pairs.view(-1, problem.width).amax(1)  # (R,)
    else:
        peak = plan.pairs.new_zeros(problem.supply.numel()).scatter_reduce(0, problem.object, plan.pairs, "amax")
    score = plan.pairs / peak.index_select(0, problem.object)  # (N,)
    background = plan.background / _background_peak(problem, plan, image).index_select(0, image)  # (columns,)
    wins = problem.real & (score >= background.index_select(0, problem.column))
    # The columns of all images count as the priors of one image.
    pairs = Pairs(torch.zeros_like(problem.column), problem.object % objects, problem.column, wins)
    positive, index = resolve_conflicts(pairs, score, 1, problem.columns)
    if problem.columns == total:
        return positive[0], index[0]
    none = torch.zeros(total, dtype=torch.long)
    return none.bool().scatter(0, used, positive[0]), none.scatter(0, used, index[0])


def _background_peak(
    problem: TransportProblem, plan: TransportPlan, image: Int[Tensor, " columns"]
) -> Float[Tensor, " B"]:
    """The largest flow from the background to any valid prior of each image."""
    paired = plan.background.new_zeros(problem.columns)  # 1 where a column is in a real pair
    paired = paired.scatter_reduce(0, problem.column, problem.real.to(paired.dtype), "amax")
    paired_count = torch.zeros_like(plan.others).index_add(0, image, paired)
    unpaired = plan.others * (paired_count < problem.priors)
    return unpaired.scatter_reduce(0, image, plan.background * paired, "amax")
