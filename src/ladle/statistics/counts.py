"""Who learns what under an assignment, counted object by object and level by level."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ladle.boxes import area
from ladle.pairs import Pairs, pairs_inside
from ladle.statistics.distances import center_distances
from ladle.types import Assignment, GroundTruth, Priors, Record

__all__ = ["ObjectCounts", "PlanPairs", "PriorCounts", "count_objects", "count_priors", "pairs_of"]

_LEAST_SIDE = 1e-3
"""Of boxes and priors in pixels, so that sides have a logarithm."""
_STEP = 1 / 64
"""To multiples of which the sides on disk are rounded, in pixels."""


@dataclass(frozen=True)
class PlanPairs(Record):
    """The pairs of a prior and an object of an assignment whose affinity is above 0, each pair once.

    ``key`` is ascending; it numbers all pairs that there could be, ``(image * priors + prior) * objects + object``.
    """

    key: Int[Tensor, " K"]
    image: Int[Tensor, " K"]
    prior: Int[Tensor, " K"]
    object: Int[Tensor, " K"]
    affinity: Float[Tensor, " K"]


@dataclass(frozen=True)
class ObjectCounts(Record):
    """What N objects get, those that may be learned, image by image.

    ``image`` and ``object`` are their places in the batch. ``sides`` are width and height in pixels of the network
    input, ``area`` is in pixels of the image on disk. ``level`` is the one whose priors have the nearest side on a
    logarithmic scale. ``inside`` counts the priors whose center lies in the box, ``positives`` the priors of each of L
    levels that learn the object, ``affinity`` is the sum over them. ``distances`` are the sums of
    :func:`~ladle.statistics.center_distances` over the valid priors of its image, ``priors`` is their number.
    """

    image: Int[Tensor, " N"]
    object: Int[Tensor, " N"]
    label: Int[Tensor, " N"]
    sides: Float[Tensor, "N 2"]
    area: Float[Tensor, " N"]
    level: Int[Tensor, " N"]
    inside: Int[Tensor, " N"]
    positives: Int[Tensor, "N L"]
    affinity: Float[Tensor, " N"]
    distances: Float[Tensor, "N 2"]
    priors: Int[Tensor, " N"]

    @classmethod
    def joined(cls, parts: Sequence[ObjectCounts]) -> ObjectCounts:
        """The objects of several batches, one after the other."""
        names = [field.name for field in fields(cls)]
        return cls(**{name: torch.cat([getattr(part, name) for part in parts]) for name in names})


@dataclass(frozen=True)
class PriorCounts(Record):
    """What the priors of each of L levels are for; priors in the padding of images are left out.

    ``positive`` priors learn an object, ``ignored`` ones are neither positive nor background, and the rest of
    ``valid`` is background. ``inside_several`` counts the priors whose center lies in the boxes of two objects or more,
    ``contested`` those of them that are positive, ``several`` the priors that learn two objects or more.
    """

    valid: Int[Tensor, " L"]
    positive: Int[Tensor, " L"]
    ignored: Int[Tensor, " L"]
    inside_several: Int[Tensor, " L"]
    contested: Int[Tensor, " L"]
    several: Int[Tensor, " L"]

    @classmethod
    def summed(cls, parts: Sequence[PriorCounts]) -> PriorCounts:
        """The counts of several batches together."""
        names = [field.name for field in fields(cls)]
        return cls(**{name: torch.stack([getattr(part, name) for part in parts]).sum(0) for name in names})


def pairs_of(assignment: Assignment, truth: GroundTruth) -> PlanPairs:
    """List the pairs of an assignment; those of crowds and of padding are left out.

    Examples:
        >>> from ladle.assigners import ATSS
        >>> from ladle.statistics import pairs_of
        >>> from ladle.testing import example_scene
        >>> predictions, priors, truth = example_scene()
        >>> plan = ATSS()(predictions, priors, truth)
        >>> len(pairs_of(plan, truth).key) == int(plan.positive.sum())
        True
    """
    priors, objects = assignment.objects.shape[1], truth.labels.shape[1]
    image, prior, slot = (assignment.affinity > 0).nonzero(as_tuple=True)
    number = assignment.objects[image, prior, slot]
    keys, place = torch.unique((image * priors + prior) * max(objects, 1) + number, return_inverse=True)
    affinity = torch.zeros(len(keys), dtype=torch.float64, device=keys.device)
    affinity.scatter_add_(0, place, assignment.affinity[image, prior, slot].double())
    home, number = keys // max(objects, 1), keys % max(objects, 1)
    image, prior = home // max(priors, 1), home % max(priors, 1)
    pairs = PlanPairs(keys, image, prior, number, affinity.float())
    if not objects:
        return pairs
    learnable = truth.learnable[image, number]
    return pairs.map(lambda values: values[learnable])


def count_objects(
    assignment: Assignment, priors: Priors, truth: GroundTruth, enlarged: Float[Tensor, "B 2"] | None = None
) -> ObjectCounts:
    """Count what each object gets that may be learned.

    Args:
        assignment: which prior learns which object.
        priors: the places it was made for.
        truth: the objects.
        enlarged: height and width of the image on disk in those of the network input; by default they are the same.
    """
    batch, objects = truth.labels.shape
    levels, total = len(priors.counts), batch * objects
    pairs = pairs_of(assignment, truth)
    home = pairs.image * objects + pairs.object
    positives = torch.bincount(home * levels + priors.level[pairs.prior], minlength=total * levels)
    affinity = torch.zeros(total, device=home.device).scatter_add_(0, home, pairs.affinity)
    inside = torch.zeros(total, dtype=torch.long, device=home.device)
    for near in _inside(priors, truth):
        inside += torch.bincount((near.image * objects + near.object)[near.real], minlength=total)
    sides = (truth.boxes[..., 2:] - truth.boxes[..., :2]).clamp(min=0)
    on_disk = sides if enlarged is None else sides * enlarged.flip(-1).unsqueeze(1)
    # Resizing there and back leaves an object of 32 x 32 pixels a little smaller or larger than COCO's limit.
    on_disk = (on_disk / _STEP).round() * _STEP
    image, number = truth.learnable.nonzero(as_tuple=True)
    place = image * objects + number
    return ObjectCounts(
        image,
        number,
        truth.labels[image, number],
        sides[image, number],
        on_disk.prod(-1)[image, number],
        _nearest_level(sides[image, number], priors),
        inside[place],
        positives.view(total, levels)[place],
        affinity[place],
        center_distances(priors, truth)[image, number],
        priors.valid.sum(1).expand(batch)[image],
    )


def count_priors(assignment: Assignment, priors: Priors, truth: GroundTruth) -> PriorCounts:
    """Count what the priors of each level are for."""
    batch, count = len(truth.labels), len(priors.stride)
    valid = priors.valid.expand(batch, -1)
    around = torch.zeros(batch * count, dtype=torch.long, device=valid.device)
    for near in _inside(priors, truth):
        around += torch.bincount((near.image * count + near.prior)[near.real], minlength=batch * count)
    pairs = pairs_of(assignment, truth)
    learns = torch.bincount(pairs.image * count + pairs.prior, minlength=batch * count).view(batch, count)
    shared = around.view(batch, count) > 1
    positive = (learns > 0) & valid
    ignored = valid & (learns == 0) & (assignment.background == 0)
    marks = (valid, positive, ignored, shared & valid, shared & positive, (learns > 1) & valid)
    return PriorCounts(*(_by_level(mark, priors) for mark in marks))


def _inside(priors: Priors, truth: GroundTruth) -> Iterable[Pairs]:
    """The valid priors whose center lies in the box of an object that may be learned."""
    return pairs_inside(priors, truth.boxes, truth.learnable) if truth.labels.shape[1] else ()


def _by_level(mark: Tensor, priors: Priors) -> Int[Tensor, " L"]:
    return torch.bincount(priors.level, weights=mark.sum(0).double(), minlength=len(priors.counts)).long()


def _nearest_level(sides: Float[Tensor, "N 2"], priors: Priors) -> Int[Tensor, " N"]:
    """The level whose priors have the nearest side, a side being the root of an area; the finest of two that do."""
    own = area(priors.boxes[0]).clamp(min=_LEAST_SIDE**2).log() / 2
    levels = len(priors.counts)
    total = torch.zeros(levels, device=own.device).scatter_add_(0, priors.level, own)
    mean = total / torch.bincount(priors.level, minlength=levels)
    wanted = sides.prod(-1).clamp(min=_LEAST_SIDE**2).log() / 2
    # No object belongs to a level without priors, of which the mean is not a number.
    return (wanted[:, None] - mean).abs().nan_to_num(torch.inf).argmin(-1)
