"""AutoAssign's weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ladle.bags import bag_pairs, center_weight, confidence, learnable_only, object_sums
from ladle.overlaps import best_overlaps, may_look, outside_crowds
from ladle.pairs import Pairs, compact
from ladle.types import Assignment, GroundTruth, Predictions, Priors

__all__ = ["AutoAssign"]

_EPSILON = 1e-12
"""Least denominator of the published code."""


@dataclass(frozen=True)
class AutoAssign:
    """No prior is chosen: all inside an object learn it, by weights that are learnt (Zhu et al., arXiv 2007.03496).

    The ``affinity`` of a prior inside an object is its positive weight: ``exp(confidence / tau)`` times
    the center prior of the object's class, normalized to sum 1 over the object. Gradients flow through it if the judge
    has any. All priors are background as well; ``negative_weight`` is how much they are so for the class of an object
    that they lie in: not at all where the box predicted there fits best of all inside the object, and fully where it
    fits worst.

    The plan has as many slots as the fullest prior lies in objects, filled in their order; a slot that is left empty
    has affinity 0, object 0 and negative weight 1. Where a prior lies in several objects of one class, the negative
    weight of the last stands for all of them, as in the released code. An object that holds no prior has no part in the
    plan.

    Args:
        tau: temperature of the confidence; the smaller, the more the surest prior of an object takes.
        box_weight: what a unit of 1 - GIoU weighs in the confidence.
        crowd: a prior with more than this share inside a crowd region is not background.

    Confidences that are not finite count as 0, so that one bad prediction spoils one prior.

    Examples:
        >>> from ladle.assigners import AutoAssign
        >>> from ladle.testing import example_scene
        >>> predictions, priors, truth = example_scene()
        >>> plan = AutoAssign()(predictions, priors, truth)
        >>> plan.objects.shape  # the fullest prior lies in three objects
        torch.Size([2, 1008, 3])
        >>> plan.dense(6)[0].sum(0)  # the weights of an object's priors add up to 1
        tensor([1.0000, 1.0000, 1.0000, 1.0000, 1.0000, 1.0000])
    """

    soft: ClassVar[bool] = True
    """A prior learns every object that it lies in."""

    tau: float = 1 / 3
    box_weight: float = 5.0
    crowd: float = 0.5

    def __call__(self, predictions: Predictions, priors: Priors, truth: GroundTruth) -> Assignment:
        """Weigh every prior inside an object, in float32, with gradient where the predictions have one."""
        with torch.autocast(predictions.logits.device.type, enabled=False):
            return self._plan(predictions.map(Tensor.float), priors, truth)

    def _plan(self, said: Predictions, priors: Priors, truth: GroundTruth) -> Assignment:
        free = outside_crowds(priors, truth, self.crowd).float()
        truth = learnable_only(truth)
        pairs = bag_pairs(priors, truth)
        weight = self._weights(said, priors, truth, pairs)
        negative_weight = _doubts(said.detach(), truth, pairs)
        return _table(pairs, weight, negative_weight, free, truth.labels.shape[1])

    def _weights(self, said: Predictions, priors: Priors, truth: GroundTruth, pairs: Pairs) -> Float[Tensor, " N"]:
        sure = confidence(said, truth, pairs, self.box_weight).nan_to_num(0.0, 0.0, 0.0)
        weight = (sure / self.tau).exp() * center_weight(said, priors, truth, pairs)
        return weight / pairs.of_object(object_sums(pairs, weight, truth).clamp(min=_EPSILON))


@torch.no_grad()
def _doubts(said: Predictions, truth: GroundTruth, pairs: Pairs) -> Float[Tensor, " N"]:
    """How much each pair's prior is background for the class of its object; 1 in padding.

    What counts is how well the box fits any object at all, relative to the other priors of this one.
    """
    batch, count, classes = said.logits.shape
    objects = truth.labels.shape[1]
    place, home = pairs.image * count + pairs.prior, pairs.image * objects + pairs.object
    fit = 1 / (1 - _best_fit(said.boxes, truth, place, pairs.real)).clamp(min=_EPSILON)
    none = fit.new_full((batch * objects,), torch.inf)
    low = none.scatter_reduce(0, home, torch.where(pairs.real, fit, torch.inf), "amin").index_select(0, home)
    high = (-none).scatter_reduce(0, home, torch.where(pairs.real, fit, -torch.inf), "amax").index_select(0, home)
    negative_weight = torch.where(pairs.real, 1 - (fit - low + _EPSILON) / (high - low + _EPSILON), 1.0)

    # Of the pairs of one prior with one class the last speaks for all. Turned round, it is the first of its group.
    key = torch.where(pairs.real, place * classes + pairs.of_object(truth.labels), batch * count * classes)
    key, order = key.flip(0).sort(stable=True)
    last = negative_weight.flip(0).index_select(0, order).index_select(0, _begins(key))
    return torch.empty_like(negative_weight).scatter_(0, order, last).flip(0)


def _best_fit(
    boxes: Float[Tensor, "B P 4"], truth: GroundTruth, place: Int[Tensor, " N"], real: Bool[Tensor, " N"]
) -> Float[Tensor, " N"]:
    """The best IoU that the box at each place has with any object of its image; only listed places are looked at."""
    batch, count, _ = boxes.shape
    listed = torch.zeros(batch * count, dtype=torch.long, device=place.device).index_add(0, place, real.long()) > 0
    index, exists = compact(listed.view(batch, count))
    if not index.shape[1]:
        return boxes.new_zeros(place.shape)
    overlap = best_overlaps(boxes.gather(1, index.unsqueeze(-1).expand(-1, -1, 4)), exists, truth).iou
    spread = boxes.new_zeros(batch, count).scatter_add(1, index, torch.where(exists, overlap, 0.0))
    return spread.flatten().index_select(0, place)


def _table(
    pairs: Pairs,
    weight: Float[Tensor, " N"],
    negative_weight: Float[Tensor, " N"],
    free: Float[Tensor, "B P"],
    objects: int,
) -> Assignment:
    """The list of pairs as slots of the priors: as many as are needed, or one an object where looking is not free."""
    batch, count = free.shape
    place = pairs.image * count + pairs.prior
    if may_look(place):
        key, order = place.sort(stable=True)
        rank = torch.arange(len(key)) - _begins(key)
        slot = torch.empty_like(rank).scatter_(0, order, rank)
        width = int(rank.max()) + 1 if len(rank) else 1
    else:
        slot, width = pairs.object, max(objects, 1)
    slot = place * width + slot
    # Padding shares slots with real pairs, where it adds and takes nothing.
    named = torch.zeros(batch * count * width, dtype=torch.long, device=place.device)
    empty = weight.new_zeros(named.shape)
    return Assignment(
        objects=named.index_add(0, slot, torch.where(pairs.real, pairs.object, 0)).view(batch, count, width),
        affinity=empty.index_add(0, slot, weight).view(batch, count, width),
        background=free,
        negative_weight=(empty + 1).scatter_reduce(0, slot, negative_weight, "amin").view(batch, count, width),
    )


def _begins(key: Int[Tensor, " N"]) -> Int[Tensor, " N"]:
    """Where the run of equal keys begins that each entry of a sorted list is in."""
    spot = torch.arange(len(key), device=key.device)
    begins = torch.cat([torch.ones_like(key[:1], dtype=torch.bool), key[1:] != key[:-1]])
    return torch.where(begins, spot, 0).cummax(0).values
