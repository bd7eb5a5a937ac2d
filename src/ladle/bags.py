"""What AutoAssign asks about a prior and an object: how surely one predicts the other, and how central it lies.

An object's *bag* are the priors inside it. Its assigner and its criterion ask the same questions, of the judge and of
the student. Gradients flow through every answer.
"""

from __future__ import annotations

from dataclasses import replace
from functools import reduce

import torch
from jaxtyping import Float
from torch import Tensor

from ladle.boxes import centers, giou
from ladle.pairs import Pairs, pairs_inside
from ladle.types import GroundTruth, Predictions, Priors

__all__ = ["bag_pairs", "center_weight", "confidence", "learnable_only", "object_sums"]

_NARROWEST = 1e-12
"""Least of twice a squared spread: a Gaussian that has shrunk to nothing stays defined."""


def learnable_only(truth: GroundTruth) -> GroundTruth:
    """The objects, with class 0 and an empty box where there is none to learn: padding may hold anything."""
    counted = truth.learnable
    boxes, labels = torch.where(counted.unsqueeze(-1), truth.boxes, 0.0), torch.where(counted, truth.labels, 0)
    return replace(truth, boxes=boxes, labels=labels)


def bag_pairs(priors: Priors, truth: GroundTruth) -> Pairs:
    """Every learnable object with the valid priors whose center lies inside it, on all levels; in one list."""
    batch, objects = truth.labels.shape
    if not objects:
        nothing = torch.zeros(batch, 0, 0, dtype=torch.long, device=truth.labels.device)
        return Pairs.table(nothing, nothing > 0)
    return replace(reduce(Pairs.join, pairs_inside(priors, truth.boxes, truth.learnable)), width=None)


def confidence(said: Predictions, truth: GroundTruth, pairs: Pairs, box_weight: float) -> Float[Tensor, " N"]:
    """The probability that each pair's prior finds its object, in [0, 1]: class, objectness and box together.

    ``sigmoid(class) * sigmoid(objectness) * exp(-box_weight * (1 - GIoU))``; the objectness of a detector without a
    quality branch is 1.
    """
    found = pairs.of_label(said.logits, truth.labels).sigmoid()
    if said.quality is not None:
        found = found * pairs.of_prior(said.quality).sigmoid()
    overlap = giou(pairs.of_prior(said.boxes), pairs.of_object(truth.boxes))
    return found * (box_weight * (overlap - 1)).exp()


def center_weight(said: Predictions, priors: Priors, truth: GroundTruth, pairs: Pairs) -> Float[Tensor, " N"]:
    """The center prior of each pair, in [0, 1]; 0 where the pair is padding.

    A Gaussian of the way from the object's center to the prior's, in strides, with the middle and the spread that its
    class has learnt; without such it is centered, of spread 1.
    """
    stride = priors.stride.index_select(0, pairs.prior).unsqueeze(-1)
    apart = (pairs.of_prior(priors.centers) - pairs.of_object(centers(truth.boxes))) / stride
    if said.center_prior is None:
        exponent = apart.square() / 2
    else:
        learnt = said.center_prior.gather(1, truth.labels.unsqueeze(-1).expand(-1, -1, 4))
        middle, spread = pairs.of_object(learnt[..., :2]), learnt[..., 2:]
        broad = pairs.of_object((2 * spread.square()).clamp(min=_NARROWEST))
        exponent = (apart - middle).square() / broad
    return torch.where(pairs.real, (-exponent.sum(-1)).exp(), 0.0)


def object_sums(pairs: Pairs, values: Float[Tensor, " N"], truth: GroundTruth) -> Float[Tensor, "B G"]:
    """The sum over each object's pairs, in the order of the list."""
    batch, objects = truth.labels.shape
    sums = values.new_zeros(batch * objects).index_add(0, pairs.image * objects + pairs.object, values)
    return sums.view(batch, objects)
