"""The dynamic soft label assigner of RTMDet: SimOTA with a class cost that depends on the IoU of the box."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ladle.all_pairs import AllPairs
from ladle.assigners.dynamic_k import CostOfPairs, assign_by_cost, inside_any, sum_over_classes
from ladle.assigners.protocol import full_precision
from ladle.assigners.rescue import candidate_boxes, rescued
from ladle.boxes import centers
from ladle.losses.focal import softplus
from ladle.overlaps import outside_crowds
from ladle.pairs import Pairs, pairs_inside
from ladle.types import Assignment, GroundTruth, Predictions, Priors
from ladle.windows import squares

__all__ = ["DynamicSoftLabel"]

_FLOOR = 1e-7
"""Added to the IoU before the logarithm."""
_REACH = 1.0
"""Strides beyond the soft radius from which a pair counts as far. The center term alone is 10 or more there."""
_SLACK = 1e-3
"""Relative margin by which that lower bound is reduced, to stay valid under rounding."""
_TINY = 1e-38
"""Lower bound of a probability before the logarithm."""


@dataclass(frozen=True)
class DynamicSoftLabel:
    """SimOTA with soft labels and a soft center (Lyu et al., RTMDet, 2022, section 3.3, equations 1 to 4).

    The candidates are the priors inside any object. The cost of a pair is the sum of three terms: the quality focal
    loss (beta 2) of the prior's class scores, with the IoU as target of the object's class and 0 for all others;
    ``-iou_weight * log(IoU + 1e-7)``; and ``10 ** (distance - soft_center_radius)``, the distance between the centers
    in strides. Each object takes its k candidates of lowest cost, where k is the floor of the sum of its ``topk``
    highest IoUs with candidates, at least 1. A prior that several objects select learns the one for which its cost is
    lowest among *all* objects, also if that one has not selected it; the others get no replacement.

    Args:
        topk: number of IoUs that are summed, and so the largest k.
        soft_center_radius: distance from an object's center, in strides, at which the center term is 1.
        iou_weight: weight of the box term.
        crowd: a prior with more than this share of its area inside a crowd region is not background.
        min_side: objects narrower or lower than this are treated as this wide or high when candidates are chosen, in
            strides of the finest level. 0 changes no object.
        rescue: whether an object without a positive is given the nearest prior that learns nothing
            (:func:`ladle.assigners.rescue.nearest_for_unserved`).

    At equal cost the earlier prior is taken on a CPU, any of them on a GPU; the reference code leaves this unspecified.
    Pairs whose cost is not finite are never selected: in float32 these are the pairs more than 38 strides beyond the
    soft radius.

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
    min_side: float = 0.0
    rescue: bool = False

    @full_precision
    def __call__(self, predictions: Predictions, priors: Priors, truth: GroundTruth) -> Assignment:
        """Assign by the predicted scores and boxes."""
        free = outside_crowds(priors, truth, self.crowd)
        if not truth.labels.shape[1]:
            return Assignment.empty(free)
        box = candidate_boxes(priors, truth, self.min_side).unsqueeze(2).expand(-1, -1, len(priors.counts), -1)
        candidate = inside_any(priors, box, truth.learnable)

        def cost_for(mask: Bool[Tensor, "B P"]) -> CostOfPairs:
            background = _as_background(predictions, mask)
            return lambda pairs, overlap: self._cost(pairs, overlap, background, predictions, priors, truth)

        positive, index = assign_by_cost(
            cost_for,
            lambda: pairs_inside(priors, squares(priors, truth, self.soft_center_radius + _REACH), truth.learnable),
            10**_REACH * (1 - _SLACK),
            candidate,
            predictions.boxes,
            priors,
            truth,
            self.topk,
        )
        plan = Assignment.hard(index, positive, free)
        return rescued(plan, priors, truth) if self.rescue else plan

    def _cost(
        self,
        pairs: Pairs | AllPairs,
        overlap: Tensor,
        background: Float[Tensor, "B P"],
        predictions: Predictions,
        priors: Priors,
        truth: GroundTruth,
    ) -> Tensor:
        """The cost of each pair.

        The focal loss summed over classes is the prior's sum as ``background``, corrected at the object's class.
        """
        logit = pairs.of_label(predictions.logits, truth.labels)
        present = (softplus(logit) - logit * overlap) * (overlap - logit.sigmoid()).square()
        classes = pairs.of_prior(background) - _absent(logit) + present
        distance = (pairs.of_prior(priors.centers) - pairs.of_object(centers(truth.boxes))).square().sum(-1).sqrt()
        distance = distance / pairs.of_prior(priors.stride.unsqueeze(0))
        cost = classes - (overlap + _FLOOR).log() * self.iou_weight
        cost = cost + torch.pow(10.0, distance - self.soft_center_radius)
        return cost.nan_to_num(torch.inf, torch.inf, -torch.inf)


def _as_background(predictions: Predictions, mask: Bool[Tensor, "B P"]) -> Float[Tensor, "B P"]:
    """The quality focal loss of the marked priors with target 0 for every class, summed over classes."""
    return sum_over_classes(predictions.logits, mask, lambda logits, _: _absent(logits))


def _absent(logits: Tensor) -> Tensor:
    """The quality focal loss of logits with target 0: ``softplus(z) * sigmoid(z) ** 2``."""
    complement = (-logits).sigmoid_()  # 1 - sigmoid(z), whose logarithm is -softplus(z)
    logarithm = complement.clamp(min=_TINY).log_()
    return complement.sub_(1).square_().mul_(logarithm).neg_()
