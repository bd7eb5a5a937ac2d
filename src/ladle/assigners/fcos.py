"""FCOS: points near an object's middle, on the level that suits its size."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ladle.assigners.judged import pair_trust
from ladle.assigners.protocol import full_precision
from ladle.boxes import area, centers, contains, iou
from ladle.overlaps import outside_crowds
from ladle.pairs import Pairs, pairs_inside, ranks, settle_parts, squares
from ladle.types import Assignment, GroundTruth, Predictions, Priors

__all__ = ["FCOS"]


@dataclass(frozen=True)
class FCOS:
    """A point learns the smallest object that suits its level and whose middle it lies near (Tian et al., ICCV 2019).

    An object suits a level if the farthest of its sides, seen from the point, lies within the level's range.

    Args:
        radius: half the side of the square around an object's center in which its points lie, in strides, cut off at
            the object's sides ("center sampling"); None takes the whole object.
        ranges: farthest side that the levels, finest first, regress to, in pixels; the coarsest level has no limit.
        closed: whether both ends belong to a range (the authors, mmdetection) or neither (torchvision).
        crowd: a prior with more than this share inside a crowd region is not background.
        boxes: ``priors`` decides by geometry alone (the paper). With ``predictions`` each object takes as many points
            as by the paper's rule, but those within it, of a suitable level, whose predicted boxes overlap it most: a
            teacher can judge. Points that several objects want go to the one overlapped most.
        class_power: with ``predictions``, overlaps are multiplied by this power of the judge's score for the object's
            class; 0 leaves them alone.

    Examples:
        >>> from ladle.assigners import FCOS
        >>> from ladle.testing import example_scene
        >>> predictions, priors, truth = example_scene()
        >>> plan = FCOS()(predictions, priors, truth)
        >>> plan.positive.sum(1)  # points that learn an object, in each of two images
        tensor([39, 46])
        >>> FCOS(radius=None)(predictions, priors, truth).positive.sum(1)  # not those near its center alone
        tensor([ 65, 163])
    """

    radius: float | None = 1.5
    ranges: tuple[float, ...] = (64.0, 128.0, 256.0, 512.0)
    closed: bool = True
    crowd: float = 0.5
    boxes: Literal["priors", "predictions"] = "priors"
    class_power: float = 0.0

    by_points: ClassVar[bool] = True
    """All anchors of a location are the same point."""

    def judged_by_teacher(self, keep_count: bool, class_power: float, ignore_rejected: bool) -> FCOS:
        """The form in which a teacher's boxes take the place of the priors."""
        if not keep_count:
            raise ValueError("--keep_count False: FCOS always keeps the counts, so it does not use it; leave it out")
        if ignore_rejected:
            raise ValueError("FCOS cannot ignore what the teacher rejects: leave out ignore_rejected")
        return replace(self, boxes="predictions", class_power=class_power)

    @full_precision
    def __call__(self, predictions: Predictions, priors: Priors, truth: GroundTruth) -> Assignment:
        """Assign by geometry; the predictions are looked at only if their boxes are asked for."""
        wants = self._nearest if self.boxes == "priors" else self._judged
        batch, count = len(truth.labels), priors.boxes.shape[1]
        positive, index = settle_parts(wants(predictions, priors, truth), batch, count)
        return Assignment.hard(index, positive, outside_crowds(priors, truth, self.crowd))

    def _nearest(self, predictions: Predictions, priors: Priors, truth: GroundTruth) -> Iterator[tuple[Pairs, Tensor]]:
        """The pairs of the paper's rule; the smaller the object, the more it is worth."""
        size = area(truth.boxes)
        for pairs in self._suitable(priors, truth, self.radius):
            yield pairs, -pairs.of_object(size)

    def _judged(self, predictions: Predictions, priors: Priors, truth: GroundTruth) -> Iterator[tuple[Pairs, Tensor]]:
        """As many pairs of each object, those whose predictions overlap it most."""
        for pairs in self._suitable(priors, truth, None):
            middle = self._near_the_middle(pairs, priors, truth)
            home = pairs.image * truth.labels.shape[1] + pairs.object
            many = torch.zeros_like(truth.labels).flatten().index_add(0, home, (middle & pairs.real).long())
            overlap = iou(pairs.of_prior(predictions.boxes), pairs.of_object(truth.boxes)).nan_to_num(0.0)
            overlap = overlap * pair_trust(pairs, predictions, truth, self.class_power)
            learns = ranks(pairs, -overlap) < many.index_select(0, home)
            yield replace(pairs, real=pairs.real & learns), overlap

    def _suitable(self, priors: Priors, truth: GroundTruth, radius: float | None) -> Iterator[Pairs]:
        """The pairs of an object and a point in its square whose level suits it."""
        upper = (*self.ranges[: len(priors.counts) - 1], math.inf)
        bounds = torch.stack([priors.stride.new_full((), bound) for bound in (-1.0, *upper)])
        for near in pairs_inside(
            priors, _regions(priors, truth, radius, upper), truth.learnable, most=_most(priors, radius, upper)
        ):
            point, box = near.of_prior(priors.centers), near.of_object(truth.boxes)
            farthest = torch.maximum(point - box[:, :2], box[:, 2:] - point).amax(-1)
            level = near.of_prior(priors.level.unsqueeze(0))
            low, high = bounds.index_select(0, level), bounds.index_select(0, level + 1)
            suits = (farthest >= low) & (farthest <= high) if self.closed else (farthest > low) & (farthest < high)
            yield near.keep(suits)

    def _near_the_middle(self, pairs: Pairs, priors: Priors, truth: GroundTruth) -> Bool[Tensor, " N"]:
        if self.radius is None:
            return pairs.real
        point, stride = pairs.of_prior(priors.centers), pairs.of_prior(priors.stride.unsqueeze(0)).unsqueeze(-1)
        middle = centers(pairs.of_object(truth.boxes))
        return contains(torch.cat([middle - self.radius * stride, middle + self.radius * stride], dim=-1), point)


def _regions(
    priors: Priors, truth: GroundTruth, radius: float | None, upper: tuple[float, ...]
) -> Float[Tensor, "B G L 4"]:
    """Where the points of an object can lie on each level; a pixel too large where ranges bound it."""
    bound = torch.stack([priors.stride.new_full((), side + 1) for side in upper]).unsqueeze(-1)
    low, high = truth.boxes[..., None, :2], truth.boxes[..., None, 2:]
    first, last = low.maximum(high - bound), high.minimum(low + bound)
    if radius is not None:
        square = squares(priors, truth, radius)
        first, last = first.maximum(square[..., :2]), last.minimum(square[..., 2:])
    return torch.cat([first, last], dim=-1)


def _most(priors: Priors, radius: float | None, upper: tuple[float, ...]) -> int | None:
    """How many columns or rows of a level such a region has at most."""
    if priors.grids is None:
        return None
    if radius is not None:
        return math.floor(2 * radius) + 1
    spans = [2 * bound / grid.stride + 2 for bound, grid in zip(upper, priors.grids, strict=True)]
    return max(
        math.ceil(min(span, max(grid.height, grid.width))) for span, grid in zip(spans, priors.grids, strict=True)
    )
