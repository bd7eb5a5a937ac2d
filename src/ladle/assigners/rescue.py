"""A least side of the boxes that choose candidates, and a prior for objects that got none.

The smallest objects lie between the centers of the priors, so that rules that ask for a center inside an object give
them no prior at all. Other objects lose all their priors to their neighbors.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ladle.assigners.judged import count_per_object
from ladle.boxes import centers
from ladle.device import may_look, surely_none
from ladle.overlaps import object_slices
from ladle.pairs import compact
from ladle.types import Assignment, GroundTruth, Priors

__all__ = ["candidate_boxes", "nearest_for_unserved", "rescued", "widened"]

_ROUNDS = 3
"""How often an object that loses its nearest prior to a nearer object may try the next one."""
_NONE = 0x7F800000 << 32
"""The lowest claim at an infinite distance: a prior with this or more is claimed by no object."""
_NUMBER = (1 << 32) - 1
"""The bits of a claim that hold the number of its object."""
_EXACT = "donot_use_mm_for_euclid_dist"


def rescued(plan: Assignment, priors: Priors, truth: GroundTruth) -> Assignment:
    """The hard ``plan``, in which each object without a positive learns at its nearest prior that learns nothing.

    No other entry of the plan changes. See :func:`nearest_for_unserved` for which prior that is.

    Examples:
        >>> from ladle.assigners import FCOS
        >>> from ladle.assigners.rescue import rescued
        >>> from ladle.testing import example_scene
        >>> predictions, priors, truth = example_scene()
        >>> between = truth.replaced(boxes=truth.boxes.clone())
        >>> between.boxes[0, 0] = 20.5  # between the centers, at multiples of 8
        >>> plan = FCOS()(predictions, priors, between)
        >>> plan.dense(6)[0, :, 0].sum(), rescued(plan, priors, between).dense(6)[0, :, 0].sum()
        (tensor(0.), tensor(1.))
    """
    added, index = nearest_for_unserved(plan, priors, truth)
    positive = plan.positive | added
    return Assignment.hard(torch.where(added, index, plan.index), positive, plan.background > 0)


def nearest_for_unserved(
    plan: Assignment, priors: Priors, truth: GroundTruth
) -> tuple[Bool[Tensor, "B P"], Int[Tensor, "B P"]]:
    """The nearest free prior of each object without a positive.

    A prior is free if it is valid and learns nothing in ``plan``. Its distance from an object is the root of the sum of
    the squared distances between the four sides of their boxes: near in position and in size. On a tie the earlier
    prior is taken. A prior that is the nearest of several objects goes to the nearest of them, on a tie to the one
    listed first; the others take their next one, in at most three rounds.

    Args:
        plan: a plan in which each prior learns one object at most.
        priors: the priors.
        truth: the objects; padding and crowds get no prior.

    Returns:
        Which priors are given to such an object, and the object of each; 0 elsewhere.
    """
    objects = truth.labels.shape[1]
    claims = torch.full_like(plan.index, _NONE)  # (B, P): the lowest claim to each prior
    unserved = truth.learnable & (count_per_object(plan.index, plan.positive, objects) == 0)
    if objects and not surely_none(unserved):
        claims = _claimed(claims, unserved, priors.valid & ~plan.positive, priors, truth)
    added = claims < _NONE
    return added, (claims & _NUMBER) * added


def candidate_boxes(priors: Priors, truth: GroundTruth, min_side: float) -> Float[Tensor, "B G 4"]:
    """The boxes of the objects, :func:`widened` to ``min_side`` strides of the finest level."""
    return widened(truth.boxes, min_side * priors.stride[0]) if min_side else truth.boxes


def widened(boxes: Float[Tensor, "*b 4"], least: float | Tensor) -> Float[Tensor, "*b 4"]:
    """Boxes enlarged around their centers to sides of at least ``least`` pixels."""
    side, middle = boxes[..., 2:] - boxes[..., :2], centers(boxes)
    low = torch.where(side < least, middle - least / 2, boxes[..., :2])
    return torch.cat([low, torch.where(side < least, middle + least / 2, boxes[..., 2:])], dim=-1)


def _claimed(
    claims: Int[Tensor, "B P"],
    unserved: Bool[Tensor, "B G"],
    free: Bool[Tensor, "B P"],
    priors: Priors,
    truth: GroundTruth,
) -> Int[Tensor, "B P"]:
    """The lowest claim to each prior: above the bits of the object's distance, below its number."""
    number, waits = compact(unserved)  # (B, n): the unserved objects of each image
    boxes = truth.boxes.gather(1, number.unsqueeze(-1).expand(-1, -1, 4))
    away, blocked = _infinite(~waits), _infinite(~free)  # (B, n) and (B, P): infinite for all that take no part
    nothing = claims
    for _ in range(_ROUNDS):
        distance, prior = _nearest(boxes, blocked, priors)
        # The bits of floats that are not negative compare as the floats do.
        claim = ((distance + away).view(torch.int32).long() << 32) + number
        best = nothing.scatter_reduce(1, prior, claim, "amin")
        claims = claims.minimum(best)
        blocked = blocked.masked_fill(best < _NONE, torch.inf)
        away = away.masked_fill(claim == best.gather(1, prior), torch.inf)
        if may_look(away) and not bool((away == 0).any()):
            break
    return claims


def _infinite(mask: Bool[Tensor, "B n"]) -> Float[Tensor, "B n"]:
    """Infinity where the mask is set, 0 elsewhere."""
    return torch.zeros_like(mask, dtype=torch.float32).masked_fill(mask, torch.inf)


def _nearest(
    boxes: Float[Tensor, "B n 4"], blocked: Float[Tensor, "B P"], priors: Priors
) -> tuple[Float[Tensor, "B n"], Int[Tensor, "B n"]]:
    """The distance of the free prior nearest to each box, and this prior, one slice of boxes at a time."""
    places, batch = priors.boxes.expand(len(boxes), -1, -1), len(boxes)
    found = [
        (torch.cdist(boxes[:, part], places, compute_mode=_EXACT) + blocked.unsqueeze(1)).min(2)
        for part in object_slices(batch, blocked.shape[1], boxes.shape[1], boxes)
    ]
    if len(found) == 1:
        return found[0].values, found[0].indices
    return torch.cat([each.values for each in found], 1), torch.cat([each.indices for each in found], 1)
