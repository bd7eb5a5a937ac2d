"""Dynamic-k matching (SimOTA, RTMDet): each object takes its k candidates of lowest cost.

k is the floor of the sum of the object's top IoUs, at least 1. It depends on all candidates of the image. Which of them
the object takes depends on few pairs: both rules give pairs far from the object's center such a high cost that on the
CPU only the pairs near it are evaluated, unless an object has fewer than k of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from functools import reduce

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ladle.all_pairs import AllPairs, all_pairs
from ladle.boxes import centers, contains
from ladle.device import fused, may_look, surely_none
from ladle.overlaps import object_slices, overlap_slices
from ladle.pairs import LONGEST, Pairs, compact, pairs_inside, ranks, resolve_conflicts_in_lists
from ladle.types import GroundTruth, Priors

__all__ = [
    "CostOfPairs",
    "PairCost",
    "assign_by_cost",
    "assign_lowest_cost",
    "dynamic_counts",
    "inside_any",
    "sum_over_classes",
]

PairCost = Callable[[Pairs], Float[Tensor, " N"]]
"""Computes the cost of each pair of a list."""
CostOfPairs = Callable[[Pairs | AllPairs, Tensor], Tensor]
"""Computes the cost of each pair of a list or of a matrix, given their IoU."""

_TABLE = 1 << 17
"""Elements per block of a (priors, classes) table on the CPU, so that temporaries stay in its cache."""


def inside_any(priors: Priors, regions: Float[Tensor, "B G L 4"], included: Bool[Tensor, "B G"]) -> Bool[Tensor, "B P"]:
    """The valid priors whose center lies in the region of any included object; one region per object and level.

    On a grid a region is a set of columns times a set of rows. A matrix product over the objects therefore counts for
    each cell in how many regions it lies.
    """
    batch, count = len(included), priors.boxes.shape[1]
    if not may_look(included):
        inside: Tensor = _INSIDE_ANY(priors.boxes, priors.level, priors.valid, regions, included)
        return inside
    if priors.grids is None:
        hit = torch.zeros(batch * count, dtype=torch.int32, device=included.device)
        for pairs in pairs_inside(priors, regions, included):
            hit = hit.index_add(0, pairs.image * count + pairs.prior, pairs.real.int())
        return (hit > 0).view(batch, count)
    levels, start = [], 0
    for number, grid in enumerate(priors.grids):
        cells = priors.boxes[:, start : start + priors.counts[number]].unflatten(1, (grid.height, grid.width, -1))
        x1, y1, x2, y2 = regions[:, :, number].unsqueeze(-1).unbind(2)
        x, y = centers(cells[:, 0, :, 0])[:, None, :, 0], centers(cells[:, :, 0, 0])[:, None, :, 1]
        column = ((x > x1) & (x < x2) & included.unsqueeze(-1)).float()  # (B, G, width)
        row = ((y > y1) & (y < y2)).float()  # (B, G, height)
        hit = (row.transpose(1, 2) @ column).flatten(1) > 0  # (B, height * width)
        levels.append(hit if grid.each == 1 else hit.repeat_interleave(grid.each, dim=1))
        start += priors.counts[number]
    return torch.cat(levels, dim=1) & priors.valid


def dynamic_counts(
    boxes: Float[Tensor, "B P 4"], candidate: Bool[Tensor, "B P"], truth: GroundTruth, topk: int
) -> Int[Tensor, "B G"]:
    """The k of each object: the sum of its ``topk`` highest IoUs with candidates, rounded down, at least 1.

    0 for padding and crowds, and in an image without candidates. Boxes that are not finite count as IoU 0.
    """
    column, exists = compact(candidate)  # (B, n): the candidates of each image
    candidate_boxes = boxes.gather(1, column.unsqueeze(-1).expand(-1, -1, 4))
    finite = exists & candidate_boxes.sum(-1).isfinite()
    topk = min(topk, column.shape[1])
    sums = [truth.boxes.new_zeros(len(boxes), 0)]
    sums += [overlap.topk(topk).values.sum(-1) for _, overlap in overlap_slices(candidate_boxes, finite, truth)]
    counts = torch.cat(sums, dim=1).long().clamp(min=1)
    return counts * (truth.learnable & candidate.any(1, keepdim=True))


def sum_over_classes(
    logits: Float[Tensor, "B P C"], mask: Bool[Tensor, "B P"], loss: Callable[[Tensor, Tensor], Tensor]
) -> Float[Tensor, "B P"]:
    """Sum ``loss`` over the classes of each marked prior; the values of other priors are undefined.

    ``loss`` is given the logits (n, C) of n priors and their flat indices (n,), ``image * P + prior``.
    """
    batch, count, classes = logits.shape
    rows, flat_priors = logits.flatten(0, 1), torch.arange(batch * count, device=logits.device)
    if not may_look(mask):
        return loss(rows, flat_priors).sum(-1).view(batch, count)
    flat_priors = flat_priors[mask.flatten()]
    parts = flat_priors.split(max(_TABLE // max(classes, 1), 1))
    sums = torch.cat([loss(rows.index_select(0, part), part).sum(-1) for part in parts])
    return torch.zeros(batch * count, device=logits.device).scatter(0, flat_priors, sums).view(batch, count)


def assign_lowest_cost(
    near: Iterable[Pairs],
    cost_for: Callable[[Bool[Tensor, "B P"]], PairCost],
    bound: float,
    candidate: Bool[Tensor, "B P"],
    counts: Int[Tensor, "B G"],
) -> tuple[Bool[Tensor, "B P"], Int[Tensor, "B P"]]:
    """Assign to every object the ``counts`` candidates of lowest cost for it; on the CPU only.

    A prior that is selected by several objects goes to the object for which its cost is lowest among *all* objects,
    also if that object has not selected it; the other objects get no replacement. Ties go to the earlier prior and to
    the object listed first.

    Args:
        near: lists that contain every pair with a cost below ``bound``.
        cost_for: returns the cost function for pairs whose priors are marked in its argument. A pair of infinite cost
            is never selected.
        bound: lower bound of the cost of all pairs that are not in ``near``.
        candidate: the priors that may be selected.
        counts: how many candidates each object selects; 0 for padding and crowds.

    Returns:
        Which priors are selected, and the object that each of them learns.
    """
    objects = counts > 0
    # At first only near pairs get a cost.
    lists = [pairs.keep(pairs.of_prior(candidate)) for pairs in near]
    cost = cost_for(_marked(lists, candidate.shape))
    selected: list[Pairs] = []
    scored = _select_from(lists, cost, bound, counts, selected)
    # ``below`` (B, P): priors in a pair that costs less than the bound. For these, ``lowest`` is already the object of
    # lowest cost among all objects, because every pair that was left out costs at least the bound.
    below, lowest = resolve_conflicts_in_lists(scored, *candidate.shape)
    selection = _complete(reduce(Pairs.join, selected), cost_for, candidate, counts)
    open_conflict = (_times_selected(selection, candidate.shape)[0] > 1) & ~below
    lowest = _lowest_among_all(open_conflict, lowest, cost_for, objects)
    times, only = _times_selected(selection, candidate.shape)
    return times > 0, torch.where(times > 1, lowest, only)


def assign_by_cost(
    cost_for: Callable[[Bool[Tensor, "B P"]], CostOfPairs],
    near: Callable[[], Iterable[Pairs]],
    bound: float,
    candidate: Bool[Tensor, "B P"],
    boxes: Float[Tensor, "B P 4"],
    priors: Priors,
    truth: GroundTruth,
    topk: int,
) -> tuple[Bool[Tensor, "B P"], Int[Tensor, "B P"]]:
    """Assign to every object its k candidates of lowest cost: from lists on the CPU, from matrices on a GPU.

    Args:
        cost_for: returns the cost function for pairs whose priors are marked in its argument.
        near: lists that contain every pair with a cost below ``bound``; called on the CPU only.
        bound: lower bound of the cost of all other pairs.
        candidate: the priors that may be selected.
        boxes: the predicted boxes.
        priors: the priors.
        truth: the objects.
        topk: number of IoUs that are summed for k.

    Returns:
        Which priors are selected, and the object that each of them learns.
    """
    if not may_look(candidate):
        return assign_in_matrices(boxes, cost_for(candidate), candidate, priors, truth, topk)

    def cost_in_lists(mask: Bool[Tensor, "B P"]) -> PairCost:
        cost = cost_for(mask)
        return lambda pairs: cost(pairs, pairs.iou(boxes, truth.boxes))

    counts = dynamic_counts(boxes, candidate, truth, topk)
    return assign_lowest_cost(near(), cost_in_lists, bound, candidate, counts)


def assign_in_matrices(
    boxes: Float[Tensor, "B P 4"],
    cost: CostOfPairs,
    candidate: Bool[Tensor, "B P"],
    priors: Priors,
    truth: GroundTruth,
    topk: int,
) -> tuple[Bool[Tensor, "B P"], Int[Tensor, "B P"]]:
    """:func:`dynamic_counts` and :func:`assign_lowest_cost` on a GPU, from matrices of all pairs.

    Args:
        boxes: the predicted boxes.
        cost: computes the costs of all pairs of a part, given their IoU.
        candidate: the priors that may be selected.
        priors: the priors.
        truth: the objects.
        topk: number of IoUs that are summed.
    """
    times = torch.zeros_like(candidate, dtype=torch.long)  # by how many objects each prior is selected
    numbers, index = times, times  # the sum of the numbers of these objects, and the object of lowest cost
    lowest = torch.full_like(candidate, torch.inf, dtype=truth.boxes.dtype)
    topk = min(topk, candidate.shape[1])
    for pairs in all_pairs(priors, truth):
        unusable = ~(pairs.of_prior(candidate) & pairs.truth.learnable.unsqueeze(2))  # (B, g, P)
        overlap = pairs.iou(boxes, truth.boxes)
        costs = cost(pairs, overlap).masked_fill(unusable, torch.inf)
        value, prior = costs.topk(topk, largest=False)  # (B, g, topk)
        # Boxes that are not finite count as IoU 0.
        highest = overlap.nan_to_num(0.0).masked_fill(unusable, 0.0).topk(topk).values
        count = highest.sum(-1, keepdim=True).long().clamp(min=1)
        rank = torch.arange(topk, device=prior.device)
        selected = ((rank < count) & (value < torch.inf)).long().flatten(1)
        first, last = pairs.part.start * topk, pairs.part.stop * topk
        number = torch.arange(first, last, device=prior.device) // topk
        times = times.scatter_add(1, prior.flatten(1), selected)
        numbers = numbers.scatter_add(1, prior.flatten(1), selected * number)
        cheapest, winner = costs.min(1)  # (B, P), on equal costs the object listed first
        index = torch.where(cheapest < lowest, winner + pairs.part.start, index)
        lowest = lowest.minimum(cheapest)
    return times > 0, torch.where(times > 1, index, numbers)


def _select_from(
    lists: Iterable[Pairs], cost: PairCost, bound: float, counts: Int[Tensor, "B G"], selected: list[Pairs]
) -> Iterator[tuple[Pairs, Float[Tensor, " N"]]]:
    """Yield the pairs that cost less than ``bound`` with their scores (minus the cost).

    The pairs that objects select from each list are appended to ``selected`` on the way.
    """
    for pairs in lists:
        costs = cost(pairs)
        positions = (costs < bound).nonzero().squeeze(1)
        pairs, costs = pairs.at(positions), costs.index_select(0, positions)
        selected.append(_select(pairs, costs, counts))
        yield pairs, -costs


def _select(pairs: Pairs, costs: Float[Tensor, " N"], counts: Int[Tensor, "B G"]) -> Pairs:
    """The ``counts`` pairs of lowest cost of every object of a list.

    By rank and not by topk, whose order is unspecified for equal costs; these are common among penalized pairs.
    """
    return pairs.keep((ranks(pairs, costs) < pairs.of_object(counts)) & (costs < math.inf))


def _complete(
    selection: Pairs,
    cost_for: Callable[[Tensor], PairCost],
    candidate: Bool[Tensor, "B P"],
    counts: Tensor,
) -> Pairs:
    """Repeat the selection among all candidates for the objects that have selected fewer than ``counts``."""
    flat_object = selection.image * counts.shape[1] + selection.object
    has = torch.zeros_like(counts).flatten().index_add(0, flat_object, selection.real.long()).view_as(counts)
    short = has < counts  # (B, G)
    if surely_none(short):
        return selection
    candidate = candidate & short.any(1, keepdim=True)
    cost = cost_for(candidate)
    again = [_select(pairs, cost(pairs), counts) for pairs in _pairs_by_object(candidate, short)]
    return reduce(Pairs.join, again, selection.keep(~selection.of_object(short)))


def _lowest_among_all(
    mask: Bool[Tensor, "B P"], index: Int[Tensor, "B P"], cost_for: Callable[[Tensor], PairCost], objects: Tensor
) -> Int[Tensor, "B P"]:
    """``index``, with the marked priors changed to the object of lowest cost among all objects of the image."""
    if surely_none(mask):
        return index
    cost = cost_for(mask)
    scored = ((pairs, -cost(pairs)) for pairs in _pairs_by_prior(mask, objects))
    return torch.where(mask, resolve_conflicts_in_lists(scored, *mask.shape)[1], index)


def _pairs_by_object(candidate: Bool[Tensor, "B P"], objects: Bool[Tensor, "B G"]) -> Iterator[Pairs]:
    """Every marked object paired with all candidates of its image, in bounded lists; on the CPU only."""
    column, exists = compact(candidate)  # (B, n)
    flat_objects = torch.arange(objects.numel(), device=objects.device)[objects.flatten()]
    for part in flat_objects.split(max(LONGEST // max(column.shape[1], 1), 1)):
        image, number = part // objects.shape[1], part % objects.shape[1]
        prior = column.index_select(0, image)  # (objects of this part, n)
        real = exists.index_select(0, image) & objects.flatten().index_select(0, part).unsqueeze(1)
        image, number = (each.unsqueeze(1).expand_as(prior).flatten() for each in (image, number))
        yield Pairs(image, number, prior.flatten(), real.flatten(), prior.shape[1])


def _pairs_by_prior(mask: Bool[Tensor, "B P"], objects: Bool[Tensor, "B G"]) -> Iterator[Pairs]:
    """Every marked prior paired with all objects of its image, in bounded lists; on the CPU only."""
    count = objects.shape[1]
    for part in mask.nonzero().split(max(LONGEST // count, 1)):
        image, prior = part.repeat_interleave(count, dim=0).unbind(1)
        number = torch.arange(count, device=mask.device).repeat(len(part))
        yield Pairs(image, number, prior, objects.index_select(0, part[:, 0]).flatten())


def _marked(lists: Iterable[Pairs], shape: torch.Size) -> Bool[Tensor, "B P"]:
    """The priors that are in a pair; on the CPU only."""
    mask = torch.zeros(shape, dtype=torch.bool)
    for pairs in lists:
        mask[pairs.image, pairs.prior] = True
    return mask


def _times_selected(selection: Pairs, shape: torch.Size) -> tuple[Int[Tensor, "B P"], Int[Tensor, "B P"]]:
    """By how many objects each prior is selected, and by which one if it is exactly one (else a sum of indices)."""
    flat_prior, real = selection.image * shape[1] + selection.prior, selection.real.long()
    none = torch.zeros(shape.numel(), dtype=torch.long, device=flat_prior.device)
    times = none.index_add(0, flat_prior, real).view(shape)
    return times, none.index_add(0, flat_prior, real * selection.object).view(shape)


def _inside_any(boxes: Tensor, level: Tensor, valid: Tensor, regions: Tensor, included: Tensor) -> Tensor:
    """:func:`inside_any` of plain tensors, in plain operations, one slice of objects at a time."""
    point = centers(boxes).unsqueeze(1)  # (b, 1, P, 2)
    inside = torch.zeros(len(included), boxes.shape[1], dtype=torch.bool, device=boxes.device)
    for part in object_slices(len(included), boxes.shape[1], included.shape[1], boxes):
        here = contains(regions[:, part].index_select(2, level), point)
        inside |= (here & included[:, part].unsqueeze(2)).any(1)
    return inside & valid


_INSIDE_ANY = fused(
    "inside_any(Tensor boxes, Tensor level, Tensor valid, Tensor regions, Tensor included) -> Tensor",
    _inside_any,
    module="points",
    launches=1,
)
