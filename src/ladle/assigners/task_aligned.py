"""Task-aligned assignment: an object is learnt by the priors that classify *and* locate it well (TOOD, YOLOv8)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import reduce
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ladle.all_pairs import AllPairs, all_pairs
from ladle.assigners.overlapping import pairs_overlapping
from ladle.assigners.protocol import full_precision
from ladle.assigners.rescue import candidate_boxes, nearest_for_unserved, widened
from ladle.boxes import centers, contains, iou
from ladle.device import may_look
from ladle.overlaps import object_slices, outside_crowds
from ladle.pairs import Pairs, leading, pairs_inside, resolve_conflicts
from ladle.types import Assignment, GroundTruth, Predictions, Priors

__all__ = ["TaskAligned", "complete_iou"]

_SLACK = 1e-3
"""Relative margin by which a lower bound is reduced, so that it stays valid under rounding."""
_LEAST = 1e-36
"""Alignments below this are too close to the subnormal range of float32 to derive a bound from."""
_EPS = 1e-7
"""Added to the denominators of complete IoU."""
_UNREACHABLE = 2.0
"""A bound on the IoU that no pair reaches."""


@dataclass(frozen=True)
class TaskAligned:
    """Each object takes the priors with the highest product of class score and box overlap (Feng et al., ICCV 2021).

    The alignment of a pair is ``t = score^alpha * overlap^beta`` (equation 7), with the score of the object's class and
    the overlap of the predicted box. Each object selects the ``topk`` priors of highest alignment, over all levels, as
    far as their centers lie inside it and ``t > 0``. The plan is soft: the affinity of a positive is the paper's class
    target, ``t`` scaled such that the best prior of an object gets the object's highest overlap. It lies in (0, 1];
    values too small for float32 are raised to the smallest normal number, so that a positive has a positive affinity.

    The defaults are those of TOOD and mmdetection. YOLOv8's rule is ``TaskAligned(topk=10, alpha=0.5,
    inside="before", overlap="ciou", margin=1e-9, eps=1e-9, conflict="all", least_side=16)``.

    Args:
        topk: the most priors that an object selects.
        alpha: power of the score, at least 0.
        beta: power of the overlap, more than 0.
        inside: whether priors outside an object are removed ``"after"`` the ``topk`` are selected, without replacement
            (TOOD), or ``"before"`` (YOLOv8).
        overlap: IoU, or complete IoU clamped to at least 0.
        conflict: which object a prior learns that several objects select: the one it overlaps most among those
            ``"claiming"`` it (TOOD), or among ``"all"`` that contain its center (YOLOv8); on a tie the first listed.
        margin: a prior's center must be more than this many pixels inside the object.
        least_side: objects narrower or lower than this are treated as this wide or high, in pixels, when centers inside
            them are determined: the smallest objects lie between the points. 0 changes no object.
        eps: added to the highest alignment of an object before its alignments are divided by it.
        crowd: a prior with more than this share of its area inside a crowd region is not background.
        min_side: the same as ``least_side``, in strides of the finest level; the larger of the two counts.
        rescue: whether an object without a positive is given the nearest prior that learns nothing
            (:func:`ladle.assigners.rescue.nearest_for_unserved`). Its affinity is the overlap of the predicted box.

    At equal alignment the earlier prior is taken on a CPU, any of them on a GPU; the reference codes leave this
    unspecified. Pairs whose alignment is NaN are never selected.

    Examples:
        >>> from ladle.assigners import TaskAligned
        >>> from ladle.testing import example_scene
        >>> predictions, priors, truth = example_scene()
        >>> plan = TaskAligned()(predictions, priors, truth)
        >>> plan.positive.sum(1)  # priors that learn an object, in each of two images
        tensor([16, 30])
        >>> bool((plan.affinity[plan.positive] <= 1).all())  # the targets of their class scores
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
    min_side: float = 0.0
    rescue: bool = False

    @property
    def one_to_one(self) -> TaskAligned:
        """The same metric for a one-to-one head: each object takes the best prior inside it (YOLOv10, section 3.1).

        Of several objects that select one prior, one learns it and the others get none.
        """
        return replace(self, topk=1, inside="before", conflict="claiming")

    @full_precision
    def __call__(self, predictions: Predictions, priors: Priors, truth: GroundTruth) -> Assignment:
        """Assign by the predicted scores and boxes."""
        batch, count = predictions.boxes.shape[:2]
        free = outside_crowds(priors, truth, self.crowd)
        if not truth.labels.shape[1]:
            return Assignment.empty(free)
        selected = self._select(predictions, priors, truth)
        positive, index = resolve_conflicts(selected.pairs, selected.overlap, batch, count)
        if self.conflict == "all":
            index = self._overlapped_most(index, selected.pairs, predictions, priors, truth)
            final = self._aligned(Pairs.chosen(index, positive), predictions, truth)
        else:
            final = selected.only(selected.pairs.of_prior(index) == selected.pairs.object)
        plan = Assignment(
            objects=torch.where(positive, index, 0).unsqueeze(-1),
            affinity=self._targets(final, truth, batch, count).unsqueeze(-1),
            background=(free & ~positive).float(),
        )
        return self._rescued(plan, predictions, priors, truth) if self.rescue else plan

    def _rescued(self, plan: Assignment, predictions: Predictions, priors: Priors, truth: GroundTruth) -> Assignment:
        """The plan with the nearest free prior of each object without one; equation 7 for an object's only prior."""
        added, index = nearest_for_unserved(plan, priors, truth)
        boxes = truth.at(index)[0]
        overlap = iou(predictions.boxes, boxes) if self.overlap == "iou" else complete_overlap(predictions.boxes, boxes)
        target = overlap.nan_to_num(0.0).clamp(torch.finfo(torch.float32).tiny, 1.0)
        return Assignment(
            objects=torch.where(added, index, plan.index).unsqueeze(-1),
            affinity=torch.where(added, target, plan.weight).unsqueeze(-1),
            background=plan.background * ~added,
        )

    def _region(self, priors: Priors, truth: GroundTruth) -> Float[Tensor, "B G 4"]:
        """The boxes inside which centers of priors must lie."""
        return widened(candidate_boxes(priors, truth, self.min_side), self.least_side)

    def _select(self, predictions: Predictions, priors: Priors, truth: GroundTruth) -> _Aligned:
        """The pairs that the objects select, before conflicts are resolved."""
        region = self._region(priors, truth)
        if not may_look(truth.valid):
            return self._from_matrices(region, predictions, priors, truth)
        inside = pairs_inside(priors, region, truth.learnable, self.margin)
        if self.inside == "before":
            return self._best(self._aligned(pairs, predictions, truth) for pairs in inside)
        # TOOD: priors outside the object take part in the top k, and are removed afterwards.
        best = self._best(self._competitors(inside, predictions, priors, truth))
        pairs = best.pairs
        return best.only(contains(pairs.of_object(region), pairs.of_prior(priors.centers), self.margin))

    def _from_matrices(
        self, region: Float[Tensor, "B G 4"], predictions: Predictions, priors: Priors, truth: GroundTruth
    ) -> _Aligned:
        """The same from matrices of all pairs."""
        found, point = [], priors.centers
        for pairs in all_pairs(priors, truth, parts=1 if self.overlap == "iou" else 4):
            overlap = self._overlap(pairs, predictions, truth)
            alignment = self._alignment(pairs, overlap, predictions, truth)
            usable = pairs.truth.learnable.unsqueeze(2) & pairs.of_prior(priors.valid)  # (B, g, P)
            if self.inside == "before":
                on_levels = region.unsqueeze(2).expand(-1, -1, len(priors.counts), -1)
                usable = usable & pairs.inside(priors, on_levels, self.margin)
            value, prior = (alignment * usable).topk(min(self.topk, point.shape[1]))  # (B, g, topk)
            table = Pairs.table(prior, value > 0, pairs.part.start)
            found.append(_Aligned(table, value.flatten(), overlap.gather(2, prior).flatten()))
        best = reduce(_Aligned.join, found)
        if self.inside == "before":
            return best
        return best.only(contains(best.pairs.of_object(region), best.pairs.of_prior(point), self.margin))

    def _competitors(
        self, inside: Iterable[Pairs], predictions: Predictions, priors: Priors, truth: GroundTruth
    ) -> Iterator[_Aligned]:
        """The pairs, inside or outside their object, that can be among its ``topk``, without evaluating all pairs.

        Let w be the lowest alignment among the ``topk`` best pairs ``inside`` an object. A pair with a lower alignment
        cannot displace any of these. Because a score is at most 1, a pair with alignment w or more has an overlap of at
        least ``w^(1 / beta)``. Few pairs reach this bound, and it can be tested without scores.
        """
        best = self._best(self._aligned(pairs, predictions, truth) for pairs in inside)
        flat_object = best.pairs.image * truth.labels.shape[1] + best.pairs.object
        none = torch.full_like(truth.labels, math.inf, dtype=best.alignment.dtype)  # (B, G)
        alignment = torch.where(best.pairs.real, best.alignment, math.inf)
        lowest = none.flatten().scatter_reduce(0, flat_object, alignment, "amin")
        root = torch.where(lowest > _LEAST, lowest.pow(1 / self.beta) * (1 - _SLACK), 0.0)
        # An object without a pair inside it needs no competitors.
        least = torch.where(lowest.isfinite(), root, _UNREACHABLE).view_as(none)
        for pairs in pairs_overlapping(predictions.boxes, priors.valid, truth.boxes, least):
            overlap = self._overlap(pairs, predictions, truth)
            positions = (overlap >= pairs.of_object(least)).nonzero().squeeze(1)
            near, overlap = pairs.at(positions), overlap.index_select(0, positions)
            yield _Aligned(near, self._alignment(near, overlap, predictions, truth), overlap)

    def _best(self, lists: Iterable[_Aligned]) -> _Aligned:
        """The ``topk`` pairs of highest alignment of every object, over all lists."""
        kept = [self._leading(aligned) for aligned in lists]
        return kept[0] if len(kept) == 1 else self._leading(reduce(_Aligned.join, kept))

    def _leading(self, aligned: _Aligned) -> _Aligned:
        cost = torch.where(aligned.alignment > 0, -aligned.alignment, torch.inf)
        best, positions = leading(aligned.pairs, cost, self.topk)
        return _Aligned(best, aligned.alignment.index_select(0, positions), aligned.overlap.index_select(0, positions))

    def _aligned(self, pairs: Pairs, predictions: Predictions, truth: GroundTruth) -> _Aligned:
        overlap = self._overlap(pairs, predictions, truth)
        return _Aligned(pairs, self._alignment(pairs, overlap, predictions, truth), overlap)

    def _alignment(
        self, pairs: Pairs | AllPairs, overlap: Tensor, predictions: Predictions, truth: GroundTruth
    ) -> Tensor:
        """The alignment of each pair; 0 where it is NaN."""
        logit = pairs.of_label(predictions.logits, truth.labels)
        # In float64 and rounded once, because vectorized powers in float32 depend on the position in the list.
        return (logit.double().sigmoid().pow(self.alpha) * overlap.double().pow(self.beta)).float().nan_to_num(0.0)

    def _overlap(self, pairs: Pairs | AllPairs, predictions: Predictions, truth: GroundTruth) -> Tensor:
        if self.overlap == "iou":
            return pairs.iou(predictions.boxes, truth.boxes).nan_to_num(0.0)
        return complete_overlap(pairs.of_prior(predictions.boxes), pairs.of_object(truth.boxes))

    def _overlapped_most(
        self, index: Int[Tensor, "B P"], selected: Pairs, predictions: Predictions, priors: Priors, truth: GroundTruth
    ) -> Int[Tensor, "B P"]:
        """``index``, where a prior selected twice is given to the most overlapped object that contains its center."""
        flat_prior = selected.image * index.shape[1] + selected.prior
        times = torch.zeros_like(index).flatten().index_add(0, flat_prior, selected.real.long()).view_as(index)
        prior = Pairs.chosen(index, times > 1)  # N contested priors, each with the object it has so far
        most, winner = predictions.boxes.new_full(prior.image.shape, -1.0), prior.object
        boxes, center = prior.of_prior(predictions.boxes).unsqueeze(1), prior.of_prior(priors.centers).unsqueeze(1)
        region = self._region(priors, truth)
        for part in object_slices(4, len(winner), truth.labels.shape[1], winner):
            # (N, g, 4), (N, g, 4) and (N, g): the objects of each prior's image.
            every = (each[:, part].index_select(0, prior.image) for each in (truth.boxes, region, truth.learnable))
            objects, regions, real = every
            inside = contains(regions, center, self.margin) & real
            overlap = iou(boxes, objects).nan_to_num(0.0) if self.overlap == "iou" else complete_overlap(boxes, objects)
            value, number = torch.where(inside, overlap, -1.0).max(1)
            winner = torch.where(prior.real & (value > most), number + part.start, winner)
            most = most.maximum(value)
        return index.flatten().scatter(0, prior.image * index.shape[1] + prior.prior, winner).view_as(index)

    def _targets(self, final: _Aligned, truth: GroundTruth, batch: int, count: int) -> Float[Tensor, "B P"]:
        """Alignments, scaled such that each object's highest equals its highest overlap (paper, section 3.3).

        0 for priors in no pair.
        """
        flat_object = final.pairs.image * truth.labels.shape[1] + final.pairs.object
        none, real = final.alignment.new_zeros(truth.labels.numel()), final.pairs.real.float()
        # Per object the highest alignment and overlap (B * G,), gathered back to the pairs (N,).
        peak = none.scatter_reduce(0, flat_object, final.alignment * real, "amax").index_select(0, flat_object)
        highest = none.scatter_reduce(0, flat_object, final.overlap * real, "amax").index_select(0, flat_object)
        target = (final.alignment / (peak + self.eps) * highest).clamp(torch.finfo(torch.float32).tiny, 1.0)
        flat_prior = final.pairs.image * count + final.pairs.prior
        return none.new_zeros(batch * count).index_add(0, flat_prior, target * real).view(batch, count)


class _Aligned(NamedTuple):
    """Pairs with the alignment and the overlap of each."""

    pairs: Pairs
    alignment: Float[Tensor, " N"]
    overlap: Float[Tensor, " N"]

    def only(self, mask: Bool[Tensor, " N"]) -> _Aligned:
        return _Aligned(self.pairs.replaced(real=self.pairs.real & mask), self.alignment, self.overlap)

    def join(self, other: _Aligned) -> _Aligned:
        alignment, overlap = torch.cat([self.alignment, other.alignment]), torch.cat([self.overlap, other.overlap])
        return _Aligned(self.pairs.join(other.pairs), alignment, overlap)


def complete_overlap(first: Float[Tensor, "*#b 4"], second: Float[Tensor, "*#b 4"]) -> Tensor:
    """:func:`complete_iou` clamped to at least 0; 0 where it is NaN."""
    return complete_iou(first, second).clamp(min=0).nan_to_num(0.0)


def complete_iou(first: Float[Tensor, "*#b 4"], second: Float[Tensor, "*#b 4"]) -> Tensor:
    """Complete IoU, box by box, in (-1.5, 1] (Zheng et al., AAAI 2020); not meant for gradients.

    The IoU minus a penalty for the distance of the centers and one for different aspect ratios.
    """
    overlap = iou(first, second)
    low, high = first[..., :2].minimum(second[..., :2]), first[..., 2:].maximum(second[..., 2:])
    diagonal = (high - low).square().sum(-1) + _EPS
    distance = (centers(first) - centers(second)).square().sum(-1)
    slopes = [torch.atan2(b[..., 2] - b[..., 0], b[..., 3] - b[..., 1]) for b in (first, second)]
    shape = (slopes[0] - slopes[1]).square() * (4 / math.pi**2)
    return overlap - distance / diagonal - shape.square() / (1 - overlap + shape + _EPS)
