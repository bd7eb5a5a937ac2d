"""Confidence and center prior of AutoAssign (Zhu et al., arXiv 2007.03496), shared by its assigner and its criterion.

An object's *bag* is the set of priors inside it. The assigner evaluates these functions on the judge's predictions, the
criterion on the student's. Gradients flow through all results.
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
"""Lower bound of ``2 * sigma^2``, so that a Gaussian of width 0 stays finite."""


def learnable_only(truth: GroundTruth) -> GroundTruth:
    """The objects, with class 0 and an empty box in padding and crowds, whose values are arbitrary."""
    counted = truth.learnable
    boxes, labels = torch.where(counted.unsqueeze(-1), truth.boxes, 0.0), torch.where(counted, truth.labels, 0)
    return replace(truth, boxes=boxes, labels=labels)


def bag_pairs(priors: Priors, truth: GroundTruth) -> Pairs:
    """All pairs of a learnable object and a valid prior whose center lies inside it, of all levels, in one list."""
    batch, objects = truth.labels.shape
    if not objects:
        nothing = torch.zeros(batch, 0, 0, dtype=torch.long, device=truth.labels.device)
        return Pairs.table(nothing, nothing > 0)
    return replace(reduce(Pairs.join, pairs_inside(priors, truth.boxes, truth.learnable)), width=None)


def confidence(predictions: Predictions, truth: GroundTruth, pairs: Pairs, box_weight: float) -> Float[Tensor, " N"]:
    """The joint confidence of each pair in [0, 1], from class, objectness and box.

    ``sigmoid(class) * sigmoid(objectness) * exp(-box_weight * (1 - GIoU))``. The objectness is 1 for a detector without
    a quality branch.
    """
    prob = pairs.of_label(predictions.logits, truth.labels).sigmoid()
    if predictions.quality is not None:
        prob = prob * pairs.of_prior(predictions.quality).sigmoid()
    overlap = giou(pairs.of_prior(predictions.boxes), pairs.of_object(truth.boxes))
    return prob * (box_weight * (overlap - 1)).exp()


def center_weight(predictions: Predictions, priors: Priors, truth: GroundTruth, pairs: Pairs) -> Float[Tensor, " N"]:
    """The center prior of each pair, in [0, 1]; 0 where the pair is padding.

    A Gaussian of the offset between the prior's center and the object's, in strides. Its mean and standard deviation
    are learnt for each class; if the detector has none, they are 0 and 1.
    """
    stride = priors.stride.index_select(0, pairs.prior).unsqueeze(-1)
    offset = (pairs.of_prior(priors.centers) - pairs.of_object(centers(truth.boxes))) / stride
    if predictions.center_prior is None:
        exponent = offset.square() / 2
    else:
        learnt = predictions.center_prior.gather(1, truth.labels.unsqueeze(-1).expand(-1, -1, 4))
        mean, deviation = pairs.of_object(learnt[..., :2]), learnt[..., 2:]
        twice_variance = pairs.of_object((2 * deviation.square()).clamp(min=_NARROWEST))
        exponent = (offset - mean).square() / twice_variance
    return torch.where(pairs.real, (-exponent.sum(-1)).exp(), 0.0)


def object_sums(pairs: Pairs, values: Float[Tensor, " N"], truth: GroundTruth) -> Float[Tensor, "B G"]:
    """The sum of ``values`` over each object's pairs, added in the order of the list."""
    batch, objects = truth.labels.shape
    sums = values.new_zeros(batch * objects).index_add(0, pairs.image * objects + pairs.object, values)
    return sums.view(batch, objects)
