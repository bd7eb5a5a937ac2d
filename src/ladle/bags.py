"""Confidence and center prior of AutoAssign (Zhu et al., arXiv 2007.03496), shared by its assigner and its criterion.

An object's *bag* is the set of priors inside it. The assigner evaluates these functions on the judge's predictions, the
criterion on the student's. Gradients flow through all results.
"""

from __future__ import annotations

from functools import reduce

import torch
from torch import Tensor

from ladle.all_pairs import AllPairs
from ladle.boxes import centers, giou
from ladle.device import may_look
from ladle.pairs import Pairs, pairs_inside
from ladle.types import GroundTruth, Predictions, Priors

__all__ = ["bag_pairs", "center_weight", "confidence", "learnable_only"]

_NARROWEST = 1e-12
"""Lower bound of ``2 * sigma^2``, so that a Gaussian of width 0 stays finite."""


def learnable_only(truth: GroundTruth) -> GroundTruth:
    """The objects, with class 0 and an empty box in padding and crowds, whose values are arbitrary."""
    counted = truth.learnable
    boxes, labels = torch.where(counted.unsqueeze(-1), truth.boxes, 0.0), torch.where(counted, truth.labels, 0)
    return truth.replaced(boxes=boxes, labels=labels)


def bag_pairs(priors: Priors, truth: GroundTruth) -> Pairs | AllPairs:
    """All pairs of a learnable object and a valid prior whose center lies inside it, of all levels, in one list.

    On a GPU a matrix of all pairs, in which these are marked as real.
    """
    batch, objects = truth.labels.shape
    if not may_look(truth.boxes):
        pairs = AllPairs(truth, slice(0, objects))
        inside = pairs.inside(priors, truth.boxes.unsqueeze(2).expand(-1, -1, len(priors.counts), -1))
        return pairs.replaced(real=inside & pairs.of_prior(priors.valid) & pairs.of_object(truth.learnable))
    if not objects:
        nothing = torch.zeros(batch, 0, 0, dtype=torch.long, device=truth.labels.device)
        return Pairs.table(nothing, nothing > 0)
    return reduce(Pairs.join, pairs_inside(priors, truth.boxes, truth.learnable)).replaced(width=None)


def confidence(predictions: Predictions, truth: GroundTruth, pairs: Pairs | AllPairs, box_weight: float) -> Tensor:
    """The joint confidence of each pair in [0, 1], from class, objectness and box.

    ``sigmoid(class) * sigmoid(objectness) * exp(-box_weight * (1 - GIoU))``. The objectness is 1 for a detector without
    a quality branch.
    """
    prob = pairs.of_label(predictions.logits, truth.labels).sigmoid()
    if predictions.quality is not None:
        prob = prob * pairs.of_prior(predictions.quality).sigmoid()
    overlap = giou(pairs.of_prior(predictions.boxes), pairs.of_object(truth.boxes))
    return prob * (box_weight * (overlap - 1)).exp()


def center_weight(predictions: Predictions, priors: Priors, truth: GroundTruth, pairs: Pairs | AllPairs) -> Tensor:
    """The center prior of each pair, in [0, 1]; 0 where the pair is padding.

    A Gaussian of the offset between the prior's center and the object's, in strides. Its mean and standard deviation
    are learnt for each class; if the detector has none, they are 0 and 1.
    """
    stride = pairs.of_prior(priors.stride.unsqueeze(0)).unsqueeze(-1)
    offset = (pairs.of_prior(priors.centers) - pairs.of_object(centers(truth.boxes))) / stride
    if predictions.center_prior is None:
        exponent = offset.square() / 2
    else:
        learnt = predictions.center_prior.gather(1, truth.labels.unsqueeze(-1).expand(-1, -1, 4))
        mean, deviation = pairs.of_object(learnt[..., :2]), learnt[..., 2:]
        twice_variance = pairs.of_object((2 * deviation.square()).clamp(min=_NARROWEST))
        exponent = (offset - mean).square() / twice_variance
    weight = (-exponent.sum(-1)).exp()
    return weight if pairs.real is None else torch.where(pairs.real, weight, 0.0)
