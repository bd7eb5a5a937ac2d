"""As many priors for an object as its overlaps add up to, the cheapest: what SimOTA and RTMDet's rule share.

How many an object takes depends on all its overlaps. Which it takes hangs on few pairs: those near its center are so
much cheaper than all others that the rest need no price, unless an object has too few of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from functools import reduce

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ladle.boxes import centers
from ladle.overlaps import may_look, overlap_slices, surely_none
from ladle.pairs import LONGEST, Pairs, compact, leading, pairs_inside, ranks, settle_parts
from ladle.types import GroundTruth, Priors

__all__ = ["Price", "cheapest", "dynamic_counts", "inside_any", "sum_over_classes"]

Price = Callable[[Pairs], Float[Tensor, " N"]]
"""What pairs cost."""

_TABLE = 1 << 17
"""How many numbers of a table of priors by classes are worked on at once, so that they stay in a processor's cache."""


def inside_any(priors: Priors, regions: Float[Tensor, "B G L 4"], wanted: Bool[Tensor, "B G"]) -> Bool[Tensor, "B P"]:
    """The valid priors whose center lies in the region of any wanted object.

    A rectangle on a grid is columns times rows, so that a product of matrices over the objects paints all of them.
    """
    batch, count = len(wanted), priors.boxes.shape[1]
    if priors.grids is None:
        hit = torch.zeros(batch * count, dtype=torch.int32, device=wanted.device)
        for pairs in pairs_inside(priors, regions, wanted):
            hit = hit.index_add(0, pairs.image * count + pairs.prior, pairs.real.int())
        return (hit > 0).view(batch, count)
    levels, start = [], 0
    for number, grid in enumerate(priors.grids):
        cells = priors.boxes[:, start : start + priors.counts[number]].unflatten(1, (grid.height, grid.width, -1))
        x1, y1, x2, y2 = regions[:, :, number].unsqueeze(-1).unbind(2)
        x, y = centers(cells[:, 0, :, 0])[:, None, :, 0], centers(cells[:, :, 0, 0])[:, None, :, 1]
        column = ((x > x1) & (x < x2) & wanted.unsqueeze(-1)).float()
        row = ((y > y1) & (y < y2)).float()
        hit = (row.transpose(1, 2) @ column).flatten(1) > 0
        levels.append(hit if grid.each == 1 else hit.repeat_interleave(grid.each, dim=1))
        start += priors.counts[number]
    return torch.cat(levels, dim=1) & priors.valid


def dynamic_counts(
    boxes: Float[Tensor, "B P 4"], candidate: Bool[Tensor, "B P"], truth: GroundTruth, topk: int
) -> Int[Tensor, "B G"]:
    """How many priors each object takes: its ``topk`` best IoUs with candidates, added up and rounded down, at least 1.

    0 for padding, crowds, and in an image without a candidate.
    """
    column, exists = compact(candidate)
    said = boxes.gather(1, column.unsqueeze(-1).expand(-1, -1, 4))
    sound = exists & said.sum(-1).isfinite()
    several = min(topk, column.shape[1])
    sums = [truth.boxes.new_zeros(len(boxes), 0)]
    sums += [overlap.topk(several).values.sum(-1) for _, overlap in overlap_slices(said, sound, truth)]
    many = torch.cat(sums, dim=1).long().clamp(min=1)
    return many * (truth.learnable & candidate.any(1, keepdim=True))


def sum_over_classes(
    logits: Float[Tensor, "B P C"], mask: Bool[Tensor, "B P"], price: Callable[[Tensor, Tensor], Tensor]
) -> Float[Tensor, "B P"]:
    """The sum over classes of what ``price`` makes of the logits (n, C) of the marked priors.

    It is also told the places (n,) of these priors in the batch, flattened. Elsewhere the sum is 0, or whatever.
    """
    batch, count, classes = logits.shape
    rows, places = logits.flatten(0, 1), torch.arange(batch * count, device=logits.device)
    parts: Iterable[Tensor] = [places]
    if may_look(mask):
        places = places[mask.flatten()]
        parts = places.split(max(_TABLE // max(classes, 1), 1))
    sums = torch.cat([price(rows.index_select(0, part), part).sum(-1) for part in parts])
    return torch.zeros(batch * count, device=logits.device).scatter(0, places, sums).view(batch, count)


def cheapest(
    near: Iterable[Pairs],
    price_at: Callable[[Bool[Tensor, "B P"]], Price],
    bound: float,
    candidate: Bool[Tensor, "B P"],
    many: Int[Tensor, "B G"],
    most: int,
) -> tuple[Bool[Tensor, "B P"], Int[Tensor, "B P"]]:
    """Let every object claim the ``many`` candidates that are cheapest for it; who is claimed, and whom each learns.

    A prior that several objects claim learns the one for which it is cheapest of *all*, whether that one claims it or
    not; the others go without. On equal costs the earlier prior, and the object listed first.

    Args:
        near: lists of pairs that hold every pair cheaper than ``bound``; of use only where looking is free.
        price_at: makes the price of pairs whose priors are marked. A pair of infinite price is never claimed.
        bound: what the pairs that are not ``near`` cost at least.
        candidate: the priors that objects may claim.
        many: how many each object claims, 0 if it is no object.
        most: ``many`` is at most this.
    """
    looking, objects = may_look(many), many > 0
    lists = [pairs.keep(pairs.of_prior(candidate)) for pairs in near] if looking else _rows(candidate, objects)
    price = price_at(_marked(lists, candidate.shape) if looking else candidate)
    found: list[Pairs] = []
    offers = _offers(lists, price, bound if looking else math.inf, many, most, found)
    cheap, favorite = settle_parts(offers, *candidate.shape)
    claims = reduce(Pairs.join, found)
    if looking:
        claims = _with_far_ones(claims, price_at, candidate, many, most)
        unsettled = (_times_claimed(claims, candidate.shape)[0] > 1) & ~cheap
        favorite = _cheapest_of_all(unsettled, favorite, price_at, objects)
    times, claimant = _times_claimed(claims, candidate.shape)
    return times > 0, torch.where(times > 1, favorite, claimant)


def _offers(
    lists: Iterable[Pairs], price: Price, bound: float, many: Int[Tensor, "B G"], most: int, found: list[Pairs]
) -> Iterator[tuple[Pairs, Float[Tensor, " N"]]]:
    """The pairs cheaper than ``bound``, the cheaper the more merit; their claims are added to ``found`` on the way."""
    for pairs in lists:
        cost = price(pairs)
        if bound < math.inf:
            places = (cost < bound).nonzero().squeeze(1)
            pairs, cost = pairs.at(places), cost.index_select(0, places)
        found.append(_claims(pairs, cost, many, most))
        yield pairs, -cost


def _claims(pairs: Pairs, cost: Float[Tensor, " N"], many: Int[Tensor, "B G"], most: int) -> Pairs:
    """The ``many`` cheapest pairs of every object of a list."""
    if may_look(cost):
        # In order even where costs are equal, which is common among those that bear a penalty.
        return pairs.keep((ranks(pairs, cost) < pairs.of_object(many)) & (cost < math.inf))
    best, _ = leading(pairs, cost, most)
    rank = torch.arange(len(best.prior), device=cost.device) % (best.width or 1)
    return best.keep(rank < best.of_object(many))


def _with_far_ones(
    claims: Pairs, price_at: Callable[[Tensor], Price], candidate: Bool[Tensor, "B P"], many: Tensor, most: int
) -> Pairs:
    """The claims; objects that have too few claim anew, among all candidates."""
    home = claims.image * many.shape[1] + claims.object
    has = torch.zeros_like(many).flatten().index_add(0, home, claims.real.long()).view_as(many)
    short = has < many
    if surely_none(short):
        return claims
    candidate = candidate & short.any(1, keepdim=True)
    price = price_at(candidate)
    anew = [_claims(pairs, price(pairs), many, most) for pairs in _rows(candidate, short)]
    return reduce(Pairs.join, anew, claims.keep(~claims.of_object(short)))


def _cheapest_of_all(
    mask: Bool[Tensor, "B P"], index: Int[Tensor, "B P"], price_at: Callable[[Tensor], Price], objects: Tensor
) -> Int[Tensor, "B P"]:
    """``index``, at the marked priors replaced by the object of all for which they are cheapest."""
    if surely_none(mask):
        return index
    price = price_at(mask)
    offers = ((pairs, -price(pairs)) for pairs in _columns(mask, objects))
    return torch.where(mask, settle_parts(offers, *mask.shape)[1], index)


def _rows(candidate: Bool[Tensor, "B P"], objects: Bool[Tensor, "B G"]) -> Iterator[Pairs]:
    """All candidates with every marked object, in bounded lists."""
    column, exists = compact(candidate)
    homes = torch.arange(objects.numel(), device=objects.device)
    homes = homes[objects.flatten()] if may_look(objects) else homes
    for part in homes.split(max(LONGEST // max(column.shape[1], 1), 1)):
        image, number = part // objects.shape[1], part % objects.shape[1]
        prior = column.index_select(0, image)
        real = exists.index_select(0, image) & objects.flatten().index_select(0, part).unsqueeze(1)
        image, number = (each.unsqueeze(1).expand_as(prior).flatten() for each in (image, number))
        yield Pairs(image, number, prior.flatten(), real.flatten(), prior.shape[1])


def _columns(mask: Bool[Tensor, "B P"], objects: Bool[Tensor, "B G"]) -> Iterator[Pairs]:
    """All objects with every marked prior, in bounded lists; only where looking is free."""
    count = objects.shape[1]
    for part in mask.nonzero().split(max(LONGEST // count, 1)):
        image, prior = part.repeat_interleave(count, dim=0).unbind(1)
        number = torch.arange(count, device=mask.device).repeat(len(part))
        yield Pairs(image, number, prior, objects.index_select(0, part[:, 0]).flatten())


def _marked(lists: Iterable[Pairs], shape: torch.Size) -> Bool[Tensor, "B P"]:
    """The priors that are in a pair; only where looking is free."""
    mask = torch.zeros(shape, dtype=torch.bool)
    for pairs in lists:
        mask[pairs.image, pairs.prior] = True
    return mask


def _times_claimed(claims: Pairs, shape: torch.Size) -> tuple[Int[Tensor, "B P"], Int[Tensor, "B P"]]:
    """How many objects claim each prior, and which one it is if it is one."""
    place, real = claims.image * shape[1] + claims.prior, claims.real.long()
    none = torch.zeros(shape.numel(), dtype=torch.long, device=place.device)
    return none.index_add(0, place, real).view(shape), none.index_add(0, place, real * claims.object).view(shape)
