"""FCOS: points near an object's center, on the level for objects of its size."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import ClassVar, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ladle.assigners.judged import fill_unmatched, pair_factors
from ladle.assigners.protocol import full_precision
from ladle.assigners.rescue import candidate_boxes, rescued
from ladle.boxes import area, centers, contains, iou
from ladle.device import constants, fused, may_look
from ladle.overlaps import object_slices, outside_crowds
from ladle.pairs import Pairs, pairs_inside, ranks, resolve_conflicts_in_lists
from ladle.types import Assignment, GroundTruth, Predictions, Priors
from ladle.windows import squares

__all__ = ["FCOS"]

_STRIDES = 8.0
"""Upper end of a level's range in strides: 64 pixels for stride 8."""


@dataclass(frozen=True)
class FCOS:
    """A point learns the smallest object near whose center it lies, on the level of its size (Tian et al., ICCV 2019).

    An object belongs to the level of a point if the largest distance from the point to a side of the object lies within
    the range of the level.

    Args:
        radius: half the side of the square around an object's center in which its points lie, in strides ("center
            sampling"). The square is clipped to the object. None takes the whole object.
        ranges: upper end of the range of each level, finest first, in pixels; the coarsest level has no limit. None
            takes eight strides of each level: 64, 128 and so on from stride 8 on, as in the paper.
        closed: whether both ends belong to a range (the authors, mmdetection) or neither (torchvision).
        crowd: a prior with more than this share of its area inside a crowd region is not background.
        boxes: with ``priors`` geometry alone decides (the paper). With ``predictions`` each object takes as many points
            as by the paper's rule, but those inside it, on a level of its size, whose predicted boxes overlap it most.
            This lets a teacher judge. A point selected by several objects learns the one it overlaps most; an object
            that is left without points keeps those of the paper's rule that learn nothing else.
        class_power: with ``predictions``, overlaps are multiplied by this power of the judge's score for the object's
            class; 0 does not change them.
        min_side: objects narrower or lower than this are treated as this wide or high when points are chosen, in
            strides of the finest level; which of several objects is the smallest follows from their own boxes. 0
            changes no object. On a GPU the points are then listed, not found in one step.
        rescue: whether an object without a positive is given the nearest point that learns nothing
            (:func:`ladle.assigners.rescue.nearest_for_unserved`).

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
    ranges: tuple[float, ...] | None = None
    closed: bool = True
    crowd: float = 0.5
    boxes: Literal["priors", "predictions"] = "priors"
    class_power: float = 0.0
    min_side: float = 0.0
    rescue: bool = False

    by_points: ClassVar[bool] = True
    """All anchors at one location are the same point."""

    def judged_by_teacher(self, keep_count: bool, class_power: float, ignore_rejected: bool) -> FCOS:
        """The form in which the overlaps of a teacher's boxes decide."""
        if not keep_count:
            raise ValueError("--keep_count False: FCOS always keeps the counts, so it does not use it; leave it out")
        if ignore_rejected:
            raise ValueError("FCOS cannot ignore what the teacher rejects: leave out ignore_rejected")
        return replace(self, boxes="predictions", class_power=class_power)

    @full_precision
    def __call__(self, predictions: Predictions, priors: Priors, truth: GroundTruth) -> Assignment:
        """Assign by geometry; predictions are used only if ``boxes`` is ``"predictions"``."""
        if self.boxes == "priors" and not self.min_side and not may_look(truth.boxes):
            positive, index = self._smallest(priors, truth)
        else:
            scored = self._by_geometry if self.boxes == "priors" else self._judged
            batch, count = len(truth.labels), priors.boxes.shape[1]
            positive, index = resolve_conflicts_in_lists(scored(predictions, priors, truth), batch, count)
        plan = Assignment.hard(index, positive, outside_crowds(priors, truth, self.crowd))
        if self.boxes == "predictions":
            by_geometry = replace(self, boxes="priors", rescue=False)
            plan = fill_unmatched(plan, by_geometry(predictions, priors, truth), truth.labels.shape[1])
        return rescued(plan, priors, truth) if self.rescue else plan

    def _by_geometry(
        self, predictions: Predictions, priors: Priors, truth: GroundTruth
    ) -> Iterator[tuple[Pairs, Tensor]]:
        """The pairs of the paper's rule with their scores; the smaller the object, the higher."""
        size = area(truth.boxes)
        for pairs in self._suitable(priors, truth, self.radius):
            yield pairs, -pairs.of_object(size)

    def _smallest(self, priors: Priors, truth: GroundTruth) -> tuple[Bool[Tensor, "B P"], Int[Tensor, "B P"]]:
        """The paper's rule for every pair of a point and an object, in one step."""
        bounds = _bounds(self._upper(priors))
        points = (priors.boxes, priors.stride, priors.level, priors.valid)
        result: tuple[Tensor, Tensor] = _SMALLEST(
            *points, truth.boxes, truth.learnable, bounds, self.radius or 0.0, self.closed
        )
        return result

    def _judged(self, predictions: Predictions, priors: Priors, truth: GroundTruth) -> Iterator[tuple[Pairs, Tensor]]:
        """As many pairs of each object as by the paper's rule, those of highest overlap, scored by it."""
        for pairs in self._suitable(priors, truth, None):
            central = self._near_center(pairs, priors, truth)
            flat_object = pairs.image * truth.labels.shape[1] + pairs.object
            counts = torch.zeros_like(truth.labels).flatten().index_add(0, flat_object, (central & pairs.real).long())
            overlap = iou(pairs.of_prior(predictions.boxes), pairs.of_object(truth.boxes)).nan_to_num(0.0)
            overlap = overlap * pair_factors(pairs, predictions, truth, self.class_power)
            learns = ranks(pairs, -overlap) < counts.index_select(0, flat_object)
            yield pairs.replaced(real=pairs.real & learns), overlap

    def _suitable(self, priors: Priors, truth: GroundTruth, radius: float | None) -> Iterator[Pairs]:
        """The pairs of an object and a point inside its square, on a level for objects of its size."""
        upper = self._upper(priors)
        bounds = _bounds(upper)
        wide = truth.replaced(boxes=candidate_boxes(priors, truth, self.min_side))
        for near in pairs_inside(
            priors, _regions(priors, wide, radius, upper), truth.learnable, most=self._most(priors, radius)
        ):
            point, box = near.of_prior(priors.centers), near.of_object(wide.boxes)
            farthest = torch.maximum(point - box[:, :2], box[:, 2:] - point).amax(-1)
            level = near.of_prior(priors.level.unsqueeze(0))
            low, high = bounds.index_select(0, level), bounds.index_select(0, level + 1)
            suits = (farthest >= low) & (farthest <= high) if self.closed else (farthest > low) & (farthest < high)
            yield near.keep(suits)

    def _upper(self, priors: Priors) -> Float[Tensor, " L"]:
        """The upper end of the range of each level."""
        ends = self._ends(priors)
        if ends is not None:
            return constants((ends,), priors.boxes.device)[0]
        starts = [0, *accumulate(priors.counts[:-2])] if len(priors.counts) > 1 else []
        upper = [_STRIDES * priors.stride[start] for start in starts]
        return torch.stack([*upper, priors.stride.new_full((), math.inf)])

    def _ends(self, priors: Priors) -> tuple[float, ...] | None:
        """The same as Python numbers; None for eight strides of levels that are no grids."""
        levels = len(priors.counts)
        if self.ranges is not None:
            if len(self.ranges) < levels - 1:
                raise ValueError(
                    f"FCOS(ranges={self.ranges}): {levels} levels need {levels - 1} upper ends; leave them out for "
                    "eight strides of each level"
                )
            return (*self.ranges[: levels - 1], math.inf)
        return None if priors.grids is None else (*(_STRIDES * grid.stride for grid in priors.grids[:-1]), math.inf)

    def _most(self, priors: Priors, radius: float | None) -> int | None:
        """The largest number of columns or rows of cells that a region can have on a level."""
        ends = self._ends(priors)
        if priors.grids is None or ends is None:
            return None
        if radius is not None:
            return math.floor(2 * radius) + 1
        spans = [2 * end / grid.stride + 2 for end, grid in zip(ends, priors.grids, strict=True)]
        return max(
            math.ceil(min(span, max(grid.height, grid.width))) for span, grid in zip(spans, priors.grids, strict=True)
        )

    def _near_center(self, pairs: Pairs, priors: Priors, truth: GroundTruth) -> Bool[Tensor, " N"]:
        if self.radius is None:
            return pairs.real
        point, stride = pairs.of_prior(priors.centers), pairs.of_prior(priors.stride.unsqueeze(0)).unsqueeze(-1)
        center = centers(pairs.of_object(truth.boxes))
        return contains(torch.cat([center - self.radius * stride, center + self.radius * stride], dim=-1), point)


def _bounds(upper: Float[Tensor, " L"]) -> Float[Tensor, " _L"]:
    """The lower end of the finest level's range, and the upper end of each level's."""
    return torch.cat([upper.new_full((1,), -1.0), upper])


def _regions(
    priors: Priors, truth: GroundTruth, radius: float | None, upper: Float[Tensor, " L"]
) -> Float[Tensor, "B G L 4"]:
    """The region in which the points of each object can lie on each level; one pixel larger than the range allows.

    A point farther from a side than the level's range cannot belong to the object. The extra pixel is for rounding; the
    ranges are tested exactly later.
    """
    bound = (upper + 1).unsqueeze(-1)
    low, high = truth.boxes[..., None, :2], truth.boxes[..., None, 2:]
    first, last = low.maximum(high - bound), high.minimum(low + bound)
    if radius is not None:
        square = squares(priors, truth, radius)
        first, last = first.maximum(square[..., :2]), last.minimum(square[..., 2:])
    return torch.cat([first, last], dim=-1)


def _smallest_object(
    boxes: Tensor,
    stride: Tensor,
    level: Tensor,
    valid: Tensor,
    objects: Tensor,
    learnable: Tensor,
    bounds: Tensor,
    radius: float,
    closed: bool,
) -> tuple[Tensor, Tensor]:
    """Which points learn an object, and the smallest one that each may learn, in plain operations."""
    point, reach = centers(boxes).unsqueeze(1), (radius * stride).unsqueeze(-1)  # (b, 1, P, 2) and (P, 1)
    low, high = bounds[level], bounds[level + 1]  # (P,)
    size = torch.where(learnable, area(objects), torch.inf)
    smallest = boxes.new_full((len(learnable), boxes.shape[1]), torch.inf)
    index = torch.zeros_like(smallest, dtype=torch.long)
    for part in object_slices(len(learnable), boxes.shape[1], learnable.shape[1], boxes):
        box = objects[:, part].unsqueeze(2)  # (B, g, 1, 4)
        inside = contains(box, point) & valid.unsqueeze(1)
        if radius > 0:
            middle = centers(box)
            inside &= contains(torch.cat([middle - reach, middle + reach], dim=-1), point)
        farthest = torch.maximum(point - box[..., :2], box[..., 2:] - point).amax(-1)
        suits = (farthest >= low) & (farthest <= high) if closed else (farthest > low) & (farthest < high)
        value, number = torch.where(inside & suits, size[:, part].unsqueeze(-1), torch.inf).min(1)
        better = value < smallest
        smallest, index = torch.where(better, value, smallest), torch.where(better, number + part.start, index)
    return smallest < torch.inf, index


_SMALLEST = fused(
    "smallest_object(Tensor boxes, Tensor stride, Tensor level, Tensor valid, Tensor objects, Tensor learnable, "
    "Tensor bounds, float radius, bool closed) -> (Tensor, Tensor)",
    _smallest_object,
    module="points",
    launches=1,
)
