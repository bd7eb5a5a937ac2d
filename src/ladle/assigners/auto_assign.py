"""AutoAssign: soft assignment with learnt positive and negative weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ladle.all_pairs import AllPairs
from ladle.bags import bag_pairs, center_weight, confidence, learnable_only
from ladle.device import may_look
from ladle.overlaps import best_overlaps, outside_crowds
from ladle.pairs import Pairs, compact
from ladle.types import Assignment, GroundTruth, Predictions, Priors

__all__ = ["AutoAssign"]

_EPSILON = 1e-12
"""Lower bound of denominators, as in the published code."""


@dataclass(frozen=True)
class AutoAssign:
    """All priors inside an object learn it, with learnt weights (Zhu et al., arXiv 2007.03496).

    The ``affinity`` of a prior inside an object is its positive weight: ``exp(confidence / tau)`` times the center
    prior of the object's class, normalized to sum 1 over the object. Gradients flow through it if the predictions of
    the judge require them. All priors are background as well. For the class of an object that contains the prior, the
    weight as background is ``negative_weight``: 0 for the prior of the object whose predicted box fits best, 1 for the
    one whose box fits worst.

    M is the largest number of objects that contain one prior. Slots are filled in the order of the objects; an empty
    slot has affinity 0, object 0 and negative weight 1. If several objects of one class contain a prior, the negative
    weight of the last one is used for all of them, as in the released code. An object without a prior inside it is not
    in the plan.

    Args:
        tau: temperature of the confidence; the smaller, the larger the weight of the most confident prior.
        box_weight: factor of ``1 - GIoU`` in the exponent of the confidence.
        crowd: a prior with more than this share of its area inside a crowd region is not background.

    Confidences that are not finite count as 0, so that a bad prediction affects only its own prior.

    Examples:
        >>> from ladle.assigners import AutoAssign
        >>> from ladle.testing import example_scene
        >>> predictions, priors, truth = example_scene()
        >>> plan = AutoAssign()(predictions, priors, truth)
        >>> plan.objects.shape  # some prior lies in three objects
        torch.Size([2, 1008, 3])
        >>> plan.dense(6)[0].sum(0)  # the weights of an object's priors add up to 1
        tensor([1.0000, 1.0000, 1.0000, 1.0000, 1.0000, 1.0000])
    """

    soft: ClassVar[bool] = True
    """A prior learns every object that contains it."""

    tau: float = 1 / 3
    box_weight: float = 5.0
    crowd: float = 0.5

    def __call__(self, predictions: Predictions, priors: Priors, truth: GroundTruth) -> Assignment:
        """Compute the weights in float32, with gradients if the predictions require them."""
        with torch.autocast(predictions.logits.device.type, enabled=False):
            return self._plan(predictions.map(Tensor.float), priors, truth)

    def _plan(self, predictions: Predictions, priors: Priors, truth: GroundTruth) -> Assignment:
        free = outside_crowds(priors, truth, self.crowd).float()
        truth = learnable_only(truth)
        pairs = bag_pairs(priors, truth)
        weight = self._weights(predictions, priors, truth, pairs)
        if isinstance(pairs, AllPairs):
            return _matrices(pairs, weight, _negative_matrix(predictions.detach(), priors, truth, pairs), free)
        negative_weight = _negative_weights(predictions.detach(), truth, pairs)
        return _table(pairs, weight, negative_weight, free, truth.labels.shape[1])

    def _weights(self, predictions: Predictions, priors: Priors, truth: GroundTruth, pairs: Pairs | AllPairs) -> Tensor:
        prob = confidence(predictions, truth, pairs, self.box_weight).nan_to_num(0.0, 0.0, 0.0)
        weight = (prob / self.tau).exp() * center_weight(predictions, priors, truth, pairs)
        return weight / pairs.of_object(pairs.sum_per_object(weight, *truth.labels.shape).clamp(min=_EPSILON))


@torch.no_grad()
def _negative_matrix(
    predictions: Predictions, priors: Priors, truth: GroundTruth, pairs: AllPairs
) -> Float[Tensor, "B G P"]:
    """:func:`_negative_weights` in the form of a matrix."""
    real = pairs.real if pairs.real is not None else torch.ones_like(priors.valid)
    overlap = best_overlaps(predictions.boxes.nan_to_num(), priors.valid, truth).iou
    fit = pairs.of_prior(1 / (1 - overlap).clamp(min=_EPSILON))  # (B, 1, P)
    low = torch.where(real, fit, torch.inf).amin(2, keepdim=True)
    high = torch.where(real, fit, -torch.inf).amax(2, keepdim=True)
    negative_weight = torch.where(real, 1 - (fit - low + _EPSILON) / (high - low + _EPSILON), 1.0)

    # All pairs of one prior with objects of one class get the weight of the last of them.
    batch, objects, count = real.shape
    number = torch.arange(1, objects + 1, device=real.device).view(1, -1, 1) * real
    label = truth.labels.unsqueeze(-1).expand(-1, -1, count)
    none = number.new_zeros(batch, predictions.logits.shape[2], count)
    last = none.scatter_reduce(1, label, number, "amax").gather(1, label)  # (B, G, P), from 1; 0 for none
    return torch.where(real, negative_weight.gather(1, (last - 1).clamp(min=0)), 1.0)


def _matrices(
    pairs: AllPairs, weight: Float[Tensor, "B G P"], negative_weight: Float[Tensor, "B G P"], free: Float[Tensor, "B P"]
) -> Assignment:
    """The plan from matrices, with one slot for each object."""
    batch, objects, count = weight.shape
    if not objects:
        return Assignment.empty(free > 0)
    number = torch.arange(objects, device=weight.device).expand(batch, count, -1)
    real = pairs.real if pairs.real is not None else torch.ones_like(weight, dtype=torch.bool)
    return Assignment(
        objects=number * real.transpose(1, 2),
        affinity=weight.transpose(1, 2),
        background=free,
        negative_weight=negative_weight.transpose(1, 2),
    )


@torch.no_grad()
def _negative_weights(predictions: Predictions, truth: GroundTruth, pairs: Pairs) -> Float[Tensor, " N"]:
    """The negative weight of each pair: the weight of its prior as background for the class of its object.

    It falls from 1 to 0 with ``1 / (1 - IoU)``, normalized over the priors of the object, where IoU is the highest of
    the predicted box with *any* object. 1 in padding.
    """
    batch, count, classes = predictions.logits.shape
    objects = truth.labels.shape[1]
    flat_prior, flat_object = pairs.image * count + pairs.prior, pairs.image * objects + pairs.object
    fit = 1 / (1 - _highest_iou(predictions.boxes, truth, flat_prior, pairs.real)).clamp(min=_EPSILON)
    none = fit.new_full((batch * objects,), torch.inf)
    lowest = none.scatter_reduce(0, flat_object, torch.where(pairs.real, fit, torch.inf), "amin")  # (B * G,)
    highest = (-none).scatter_reduce(0, flat_object, torch.where(pairs.real, fit, -torch.inf), "amax")
    low, high = lowest.index_select(0, flat_object), highest.index_select(0, flat_object)  # (N,)
    negative_weight = torch.where(pairs.real, 1 - (fit - low + _EPSILON) / (high - low + _EPSILON), 1.0)

    # All pairs of one prior with objects of one class get the weight of the last of them. In the reversed list this is
    # the first of the group, and the stable sort keeps it first.
    key = torch.where(pairs.real, flat_prior * classes + pairs.of_object(truth.labels), batch * count * classes)
    key, order = key.flip(0).sort(stable=True)
    last = negative_weight.flip(0).index_select(0, order).index_select(0, _begins(key))
    return torch.empty_like(negative_weight).scatter_(0, order, last).flip(0)


def _highest_iou(
    boxes: Float[Tensor, "B P 4"], truth: GroundTruth, flat_prior: Int[Tensor, " N"], real: Bool[Tensor, " N"]
) -> Float[Tensor, " N"]:
    """The highest IoU of the box of each listed prior with any object of its image; N = number of pairs."""
    batch, count, _ = boxes.shape
    times = torch.zeros(batch * count, dtype=torch.long, device=flat_prior.device)
    listed = times.index_add(0, flat_prior, real.long()) > 0
    index, exists = compact(listed.view(batch, count))  # (B, n): the listed priors of each image, each once
    if not index.shape[1]:
        return boxes.new_zeros(flat_prior.shape)
    overlap = best_overlaps(boxes.gather(1, index.unsqueeze(-1).expand(-1, -1, 4)), exists, truth).iou
    by_prior = boxes.new_zeros(batch, count).scatter_add(1, index, torch.where(exists, overlap, 0.0))
    return by_prior.flatten().index_select(0, flat_prior)


def _table(
    pairs: Pairs,
    weight: Float[Tensor, " N"],
    negative_weight: Float[Tensor, " N"],
    free: Float[Tensor, "B P"],
    objects: int,
) -> Assignment:
    """Write the list of pairs into the M slots of each prior.

    On the CPU M is as large as needed; on a GPU and in a compiled graph it is G, one slot per object.
    """
    batch, count = free.shape
    flat_prior = pairs.image * count + pairs.prior
    if may_look(flat_prior):
        key, order = flat_prior.sort(stable=True)
        rank = torch.arange(len(key)) - _begins(key)
        slot = torch.empty_like(rank).scatter_(0, order, rank)
        width = int(rank.max()) + 1 if len(rank) else 1
    else:
        slot, width = pairs.object, max(objects, 1)
    slot = flat_prior * width + slot
    # Padding may share slots with real pairs: it adds 0, and its negative weight of 1 never is the minimum.
    no_object = torch.zeros(batch * count * width, dtype=torch.long, device=flat_prior.device)
    empty = weight.new_zeros(no_object.shape)
    return Assignment(
        objects=no_object.index_add(0, slot, torch.where(pairs.real, pairs.object, 0)).view(batch, count, width),
        affinity=empty.index_add(0, slot, weight).view(batch, count, width),
        background=free,
        negative_weight=(empty + 1).scatter_reduce(0, slot, negative_weight, "amin").view(batch, count, width),
    )


def _begins(key: Int[Tensor, " N"]) -> Int[Tensor, " N"]:
    """For each entry of a sorted list, the position at which its run of equal keys begins."""
    position = torch.arange(len(key), device=key.device)
    begins = torch.cat([torch.ones_like(key[:1], dtype=torch.bool), key[1:] != key[:-1]])
    return torch.where(begins, position, 0).cummax(0).values
