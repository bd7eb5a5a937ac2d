"""The dynamic soft label assigner: SimOTA with a class cost that knows how good the box is (RTMDet)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ladle.assigners.dynamic_k import (
    Price,
    cheapest,
    dynamic_counts,
    inside_any,
    sum_over_classes,
)
from ladle.assigners.protocol import full_precision
from ladle.boxes import centers, iou
from ladle.losses.focal import softplus
from ladle.overlaps import outside_crowds
from ladle.pairs import Pairs, pairs_inside, squares
from ladle.types import Assignment, GroundTruth, Predictions, Priors

__all__ = ["DynamicSoftLabel"]

_FLOOR = 1e-7
"""Added to the IoU before its logarithm is taken."""
_REACH = 1.0
"""Strides beyond the soft radius at which a pair is called far. It costs 10 there, by its distance alone."""
_SLACK = 1e-3
"""Share by which that bound is loosened, so that rounding cannot make it promise too much."""
_TINY = 1e-38
"""Least probability whose logarithm is taken."""


@dataclass(frozen=True)
class DynamicSoftLabel:
    """SimOTA with soft labels and a soft center (Lyu et al., RTMDet, 2022, section 3.3, equations 1 to 4).

    The candidates are the priors inside any object. A pair costs the quality focal loss (power 2) of the prior's class
    scores against the object's class with the IoU as its target, ``- iou_weight * log(IoU + 1e-7)``, and
    ``10 ** (distance - soft_center_radius)``. An object takes as many candidates as their ``topk`` best IoUs with it
    add up to, rounded down, at least one: the cheapest. A prior that several objects want goes to the one for which it
    is cheapest of *all* objects, whether that one wants it or not; the others go without.

    Args:
        topk: IoUs that are added up, hence the most priors an object takes.
        soft_center_radius: distance from an object's center, in strides, at which the center term is 1.
        iou_weight: weight of the box term.
        crowd: a prior with more than this share inside a crowd region is not background.

    Of equally cheap priors the earlier is taken; the reference leaves that open. Pairs whose cost is not finite are
    passed over: a prior more than 38 strides beyond the soft radius never learns.

    Examples:
        >>> from ladle.assigners import DynamicSoftLabel
        >>> from ladle.testing import example_scene
        >>> predictions, priors, truth = example_scene()
        >>> plan = DynamicSoftLabel()(predictions, priors, truth)
        >>> plan.positive.sum(1)  # priors that learn an object, in each of two images
        tensor([33, 43])
    """

    topk: int = 13
    soft_center_radius: float = 3.0
    iou_weight: float = 3.0
    crowd: float = 0.5

    @full_precision
    def __call__(self, predictions: Predictions, priors: Priors, truth: GroundTruth) -> Assignment:
        """Assign by what is predicted, scores and boxes alike, inside the objects."""
        free = outside_crowds(priors, truth, self.crowd)
        if not truth.labels.shape[1]:
            return Assignment.empty(free)
        box = truth.boxes.unsqueeze(2).expand(-1, -1, len(priors.counts), -1)
        candidate = inside_any(priors, box, truth.learnable)

        def price_at(mask: Bool[Tensor, "B P"]) -> Price:
            nothing = sum_over_classes(predictions.logits, mask, lambda logits, _: _absent(logits))
            return lambda pairs: self._price(pairs, nothing, predictions, priors, truth)

        near = pairs_inside(priors, squares(priors, truth, self.soft_center_radius + _REACH), truth.learnable)
        many = dynamic_counts(predictions.boxes, candidate, truth, self.topk)
        positive, index = cheapest(near, price_at, 10**_REACH * (1 - _SLACK), candidate, many, self.topk)
        return Assignment.hard(index, positive, free)

    def _price(
        self, pairs: Pairs, nothing: Float[Tensor, "B P"], said: Predictions, priors: Priors, truth: GroundTruth
    ) -> Float[Tensor, " N"]:
        """What each pair costs: the sum over classes is that of a prior that is background, but for one class."""
        box = pairs.of_object(truth.boxes)
        overlap = iou(pairs.of_prior(said.boxes), box)
        logit = pairs.of_label(said.logits, truth.labels)
        present = (softplus(logit) - logit * overlap) * (overlap - logit.sigmoid()).square()
        classes = pairs.of_prior(nothing) - _absent(logit) + present
        apart = (pairs.of_prior(priors.centers) - centers(box)).square().sum(-1).sqrt()
        apart = apart / pairs.of_prior(priors.stride.unsqueeze(0))
        cost = classes - (overlap + _FLOOR).log() * self.iou_weight
        cost = cost + torch.pow(10.0, apart - self.soft_center_radius)
        return torch.where(cost < torch.inf, cost, torch.inf)


def _absent(logits: Tensor) -> Tensor:
    """The quality focal loss of classes that are absent: ``softplus(z) * sigmoid(z) ** 2``."""
    rest = (-logits).sigmoid_()
    logarithm = rest.clamp(min=_TINY).log_()
    return rest.sub_(1).square_().mul_(logarithm).neg_()
