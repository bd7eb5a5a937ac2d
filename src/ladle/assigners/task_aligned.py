"""Task-aligned assignment: priors that classify *and* locate an object well learn it (TOOD, YOLOv8)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import reduce
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ladle.assigners.overlapping import pairs_overlapping
from ladle.assigners.protocol import full_precision
from ladle.boxes import centers, contains, iou
from ladle.overlaps import may_look, object_slices, outside_crowds
from ladle.pairs import Pairs, leading, pairs_inside, settle
from ladle.types import Assignment, GroundTruth, Predictions, Priors

__all__ = ["TaskAligned", "complete_iou"]

_SLACK = 1e-3
"""Share by which a bound is loosened, so that rounding cannot make it rule out too much."""
_LEAST = 1e-36
"""Below this a float32 has too few digits left to bound anything by it."""
_EPS = 1e-7
"""Keeps complete IoU's quotients finite."""
_NOBODY = 2.0
"""An IoU that no pair reaches."""


@dataclass(frozen=True)
class TaskAligned:
    """An object takes the priors at which class score and box agree best (Feng et al., ICCV 2021, equation 7).

    Every pair has an alignment ``t = score^alpha * overlap^beta`` of the object's class and the predicted box. An
    object claims the ``topk`` best aligned priors, over all levels, as far as their centers lie inside it and
    ``t > 0``. The plan is soft: the affinity of a positive is the paper's class target, ``t`` scaled such that the best
    prior of an object has the object's best overlap. It lies in (0, 1]; one too small for float32 is the smallest
    normal number, so that a positive is never told by its affinity to be none.

    The defaults are those of TOOD and mmdetection. YOLOv8's rule is ``TaskAligned(topk=10, alpha=0.5,
    inside="before", overlap="ciou", margin=1e-9, eps=1e-9, conflict="all", least_side=16)``.

    Args:
        topk: priors that an object claims at most.
        alpha: power of the score, at least 0.
        beta: power of the overlap, more than 0.
        inside: priors outside an object are dropped ``"after"`` the best are chosen, whose places they have taken then
            (TOOD), or are left out ``"before"`` (YOLOv8).
        overlap: IoU, or complete IoU cut off at 0.
        conflict: a prior claimed by several objects learns the one it overlaps most of those ``"claiming"`` it (TOOD),
            or of ``"all"`` that hold its center, claiming or not (YOLOv8); on a tie the one listed first.
        margin: how many pixels inside the object a prior's center must lie, to more than that.
        least_side: an object less wide or high than this many pixels counts as holding the centers that it would hold
            if it were: tiny objects lie between the points. 0 widens none.
        eps: added to the best alignment of an object before the others are divided by it.
        crowd: a prior with more than this share inside a crowd region is not background.

    Of equally aligned priors the earlier is taken; the references leave that open. Pairs whose alignment is not a
    number are passed over.

    Examples:
        >>> from ladle.assigners import TaskAligned
        >>> from ladle.testing import example_scene
        >>> predictions, priors, truth = example_scene()
        >>> plan = TaskAligned()(predictions, priors, truth)
        >>> plan.positive.sum(1)  # priors that learn an object, in each of two images
        tensor([16, 30])
        >>> bool((plan.affinity[plan.positive] <= 1).all())  # how strongly, which is what their class is taught
        True
    """

    topk: int = 13
    alpha: float = 1.0
    beta: float = 6.0
    inside: Literal["after", "before"] = "after"
    overlap: Literal["iou", "ciou"] = "iou"
    conflict: Literal["claiming", "all"] = "claiming"
    margin: float = 0.01
    least_side: float = 0.0
    eps: float = 1e-7
    crowd: float = 0.5

    @full_precision
    def __call__(self, predictions: Predictions, priors: Priors, truth: GroundTruth) -> Assignment:
        """Assign by what is predicted, scores and boxes alike."""
        batch, count = predictions.boxes.shape[:2]
        free = outside_crowds(priors, truth, self.crowd)
        if not truth.labels.shape[1]:
            return Assignment.empty(free)
        claims = self._claims(predictions, priors, truth)
        positive, index = settle(claims.pairs, claims.overlap, batch, count)
        if self.conflict == "all":
            index = self._overlapped_most(index, claims.pairs, predictions, priors, truth)
            won = self._priced(Pairs.chosen(index, positive), predictions, truth)
        else:
            won = claims.only(claims.pairs.of_prior(index) == claims.pairs.object)
        return Assignment(
            objects=torch.where(positive, index, 0).unsqueeze(-1),
            affinity=self._targets(won, truth, batch, count).unsqueeze(-1),
            background=(free & ~positive).float(),
        )

    def _claims(self, said: Predictions, priors: Priors, truth: GroundTruth) -> _Priced:
        """The pairs that objects claim."""
        region = _widened(truth.boxes, self.least_side)
        inside = pairs_inside(priors, region, truth.learnable, self.margin)
        if self.inside == "before":
            return self._best(self._priced(pairs, said, truth) for pairs in inside)
        if may_look(truth.valid):
            best = self._best(self._rivals(inside, said, priors, truth))
        else:
            everywhere = torch.cat([region[..., :2] - math.inf, region[..., 2:] + math.inf], dim=-1)
            every = pairs_inside(replace(priors, grids=None), everywhere, truth.learnable)
            best = self._best(self._priced(pairs, said, truth) for pairs in every)
        pairs = best.pairs
        return best.only(contains(pairs.of_object(region), pairs.of_prior(priors.centers), self.margin))

    def _rivals(
        self, inside: Iterable[Pairs], said: Predictions, priors: Priors, truth: GroundTruth
    ) -> Iterator[_Priced]:
        """Every pair that is aligned as well as the worst of the ``topk`` best of its object that lie ``inside`` it.

        No other can keep one of those from its place. As a score is at most 1, the overlap of such a pair is at least
        that alignment's root: this holds for few, and is told without looking at scores.
        """
        best = self._best(self._priced(pairs, said, truth) for pairs in inside)
        home = best.pairs.image * truth.labels.shape[1] + best.pairs.object
        nothing = torch.full_like(truth.labels, math.inf, dtype=best.worth.dtype)
        worst = nothing.flatten().scatter_reduce(0, home, torch.where(best.pairs.real, best.worth, math.inf), "amin")
        root = torch.where(worst > _LEAST, worst.pow(1 / self.beta) * (1 - _SLACK), 0.0)
        least = torch.where(worst.isfinite(), root, _NOBODY).view_as(nothing)
        for pairs in pairs_overlapping(said.boxes, priors.valid, truth.boxes, least):
            overlap = self._overlap(pairs.of_prior(said.boxes), pairs.of_object(truth.boxes))
            places = (overlap >= pairs.of_object(least)).nonzero().squeeze(1)
            near, overlap = pairs.at(places), overlap.index_select(0, places)
            yield _Priced(near, self._alignment(near, overlap, said, truth), overlap)

    def _best(self, lists: Iterable[_Priced]) -> _Priced:
        """The ``topk`` best aligned pairs of every object."""
        kept = [self._leading(priced) for priced in lists]
        return kept[0] if len(kept) == 1 else self._leading(reduce(_Priced.join, kept))

    def _leading(self, priced: _Priced) -> _Priced:
        best, places = leading(priced.pairs, torch.where(priced.worth > 0, -priced.worth, torch.inf), self.topk)
        return _Priced(best, priced.worth.index_select(0, places), priced.overlap.index_select(0, places))

    def _priced(self, pairs: Pairs, said: Predictions, truth: GroundTruth) -> _Priced:
        overlap = self._overlap(pairs.of_prior(said.boxes), pairs.of_object(truth.boxes))
        return _Priced(pairs, self._alignment(pairs, overlap, said, truth), overlap)

    def _alignment(self, pairs: Pairs, overlap: Tensor, said: Predictions, truth: GroundTruth) -> Float[Tensor, " N"]:
        """How well score and box of each pair agree; 0 where that is not a number."""
        logit = pairs.of_label(said.logits, truth.labels)
        # In float64, rounded once: powers in float32 depend on where in a list a number stands.
        worth = (logit.double().sigmoid().pow(self.alpha) * overlap.double().pow(self.beta)).float()
        return torch.where(worth > 0, worth, 0.0)

    def _overlap(self, boxes: Tensor, objects: Tensor) -> Tensor:
        overlap = iou(boxes, objects) if self.overlap == "iou" else complete_iou(boxes, objects).clamp(min=0)
        return overlap.nan_to_num(0.0)

    def _overlapped_most(
        self, index: Int[Tensor, "B P"], claims: Pairs, said: Predictions, priors: Priors, truth: GroundTruth
    ) -> Int[Tensor, "B P"]:
        """``index``, but a prior claimed twice goes to the object it overlaps most of all that hold its center."""
        place = claims.image * index.shape[1] + claims.prior
        times = torch.zeros_like(index).flatten().index_add(0, place, claims.real.long()).view_as(index)
        prior = Pairs.chosen(index, times > 1)
        most, winner = said.boxes.new_full(prior.image.shape, -1.0), prior.object
        boxes, center = prior.of_prior(said.boxes).unsqueeze(1), prior.of_prior(priors.centers).unsqueeze(1)
        region = _widened(truth.boxes, self.least_side)
        for part in object_slices(1, len(winner), truth.labels.shape[1]):
            every = (each[:, part].index_select(0, prior.image) for each in (truth.boxes, region, truth.learnable))
            objects, regions, real = every
            holds = contains(regions, center, self.margin) & real
            value, number = torch.where(holds, self._overlap(boxes, objects), -1.0).max(1)
            winner = torch.where(prior.real & (value > most), number + part.start, winner)
            most = most.maximum(value)
        return index.flatten().scatter(0, prior.image * index.shape[1] + prior.prior, winner).view_as(index)

    def _targets(self, won: _Priced, truth: GroundTruth, batch: int, count: int) -> Float[Tensor, "B P"]:
        """Alignments scaled such that an object's best is its best overlap; 0 elsewhere (paper, section 3.3)."""
        home = won.pairs.image * truth.labels.shape[1] + won.pairs.object
        none, real = won.worth.new_zeros(truth.labels.numel()), won.pairs.real.float()
        peak = none.scatter_reduce(0, home, won.worth * real, "amax").index_select(0, home)
        highest = none.scatter_reduce(0, home, won.overlap * real, "amax").index_select(0, home)
        target = (won.worth / (peak + self.eps) * highest).clamp(torch.finfo(torch.float32).tiny, 1.0)
        place = won.pairs.image * count + won.pairs.prior
        return none.new_zeros(batch * count).index_add(0, place, target * real).view(batch, count)


class _Priced(NamedTuple):
    """Pairs, how well each is aligned, and how far its boxes overlap."""

    pairs: Pairs
    worth: Float[Tensor, " N"]
    overlap: Float[Tensor, " N"]

    def only(self, mask: Bool[Tensor, " N"]) -> _Priced:
        return _Priced(replace(self.pairs, real=self.pairs.real & mask), self.worth, self.overlap)

    def join(self, other: _Priced) -> _Priced:
        worth, overlap = torch.cat([self.worth, other.worth]), torch.cat([self.overlap, other.overlap])
        return _Priced(self.pairs.join(other.pairs), worth, overlap)


def complete_iou(first: Float[Tensor, "*#b 4"], second: Float[Tensor, "*#b 4"]) -> Tensor:
    """Complete IoU, box by box: IoU less a share for centers apart and one for another shape (Zheng et al., AAAI 2020).

    In (-1.5, 1]. No gradient is meant to flow.
    """
    overlap = iou(first, second)
    low, high = first[..., :2].minimum(second[..., :2]), first[..., 2:].maximum(second[..., 2:])
    diagonal = (high - low).square().sum(-1) + _EPS
    apart = (centers(first) - centers(second)).square().sum(-1)
    slopes = [torch.atan2(b[..., 2] - b[..., 0], b[..., 3] - b[..., 1]) for b in (first, second)]
    shape = (slopes[0] - slopes[1]).square() * (4 / math.pi**2)
    return overlap - apart / diagonal - shape.square() / (1 - overlap + shape + _EPS)


def _widened(boxes: Float[Tensor, "B G 4"], least: float) -> Float[Tensor, "B G 4"]:
    """Boxes at least that wide and high, about their centers."""
    side, middle = boxes[..., 2:] - boxes[..., :2], centers(boxes)
    low = torch.where(side < least, middle - least / 2, boxes[..., :2])
    return torch.cat([low, torch.where(side < least, middle + least / 2, boxes[..., 2:])], dim=-1)
