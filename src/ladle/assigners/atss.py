"""Adaptive training sample selection."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Bool
from torch import Tensor

from ladle.assigners.judged import pair_factors
from ladle.assigners.protocol import full_precision
from ladle.assigners.rescue import rescued
from ladle.boxes import centers, contains, iou
from ladle.device import fused, may_look
from ladle.nearest import boxes_at, mean_plus_spread, nearest_priors
from ladle.overlaps import outside_crowds
from ladle.pairs import Pairs, resolve_conflicts
from ladle.similarity import SimD, measure_of, numbers_of
from ladle.types import Assignment, Grid, GroundTruth, Predictions, Priors

__all__ = ["ATSS"]


@dataclass(frozen=True)
class ATSS:
    """The IoU threshold of an object follows from the statistics of its candidates (Zhang et al., CVPR 2020).

    Algorithm 1 of the paper: the candidates of an object are the ``topk`` priors nearest to its center on every level.
    Those whose IoU is at least the mean plus the unbiased standard deviation of all its candidates, and whose center
    lies inside it, learn it. A prior selected by several objects learns the one it overlaps most, on a tie the one
    listed first.

    Args:
        topk: candidates per level and object. The original repository takes ``topk`` times the anchors per location.
        margin: a prior's center must be more than this many pixels inside the object.
        crowd: a prior with more than this share of its area inside a crowd region is not background.
        boxes: the boxes that are compared with objects: those of the ``priors`` (the paper), or the ``predictions`` at
            them, which lets a teacher judge. Candidates and centers are always those of the priors. An object that gets
            no prior by predicted boxes keeps those of the paper's rule.
        keep_count: with ``predictions``, each object takes as many candidates as by the paper's rule, those of highest
            overlap, without a threshold. Predicted boxes overlap objects far more than anchors do.
        class_power: with ``predictions``, overlaps are multiplied by this power of the judge's score for the object's
            class; 0 does not change them.
        rescue: whether an object without a positive is given the nearest prior that learns nothing
            (:func:`ladle.assigners.rescue.nearest_for_unserved`).
        overlap: the ``"iou"``, or a :class:`~ladle.assigners.SimD` in its place.

    Examples:
        >>> from ladle.assigners import ATSS
        >>> from ladle.testing import example_scene
        >>> predictions, priors, truth = example_scene()
        >>> plan = ATSS()(predictions, priors, truth)
        >>> plan.positive.sum(1)  # priors that learn an object, in each of two images
        tensor([39, 43])
    """

    topk: int = 9
    margin: float = 0.01
    crowd: float = 0.5
    boxes: Literal["priors", "predictions"] = "priors"
    keep_count: bool = False
    class_power: float = 0.0
    rescue: bool = False
    overlap: Literal["iou"] | SimD = "iou"

    def judged_by_teacher(self, keep_count: bool, class_power: float, ignore_rejected: bool) -> ATSS:
        """The form in which a teacher's boxes replace the boxes of the priors."""
        if ignore_rejected:
            raise ValueError("ATSS cannot ignore what the teacher rejects: leave out ignore_rejected")
        return replace(self, boxes="predictions", keep_count=keep_count, class_power=class_power)

    @full_precision
    def __call__(self, predictions: Predictions, priors: Priors, truth: GroundTruth) -> Assignment:
        """Assign by overlaps; predictions are used only if ``boxes`` is ``"predictions"``."""
        near, found, overlap, chosen = self._candidates(priors, truth)
        if self.boxes == "predictions":
            objects = truth.boxes.unsqueeze(2)  # (B, G, 1, 4)
            eligible = found & contains(objects, centers(boxes_at(priors.boxes, near)), self.margin)
            overlap = _measured(boxes_at(predictions.boxes, near), objects, self._measure).nan_to_num(0.0)
            factors = pair_factors(Pairs.table(near, found), predictions, truth, self.class_power)
            overlap = (overlap.flatten() * factors).view_as(overlap)
            chosen = self._judged(overlap, found, eligible, chosen)
        batch, count = len(truth.labels), priors.boxes.shape[1]
        positive, index = resolve_conflicts(Pairs.table(near, chosen), overlap.flatten(), batch, count)
        plan = Assignment.hard(index, positive, outside_crowds(priors, truth, self.crowd))
        return rescued(plan, priors, truth) if self.rescue else plan

    @property
    def _measure(self) -> SimD | None:
        return self.overlap if isinstance(self.overlap, SimD) else None

    def _candidates(self, priors: Priors, truth: GroundTruth) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The candidates of each object (B, G, K), which exist, their overlaps, and which the paper's rule chooses."""
        if priors.grids is None or may_look(truth.boxes):
            return _chosen_by_paper(priors, truth, self.topk, self.margin, self._measure)
        grids = [float(value) for grid in priors.grids for value in grid]
        found: tuple[Tensor, Tensor, Tensor, Tensor] = _NEAREST(
            priors.boxes,
            priors.valid,
            truth.boxes,
            truth.learnable,
            grids,
            self.topk,
            self.margin,
            numbers_of(self._measure),
        )
        return found

    def _judged(self, overlap: Tensor, found: Tensor, eligible: Tensor, plain: Tensor) -> Bool[Tensor, "B G K"]:
        """The candidates chosen by predicted boxes; ``plain`` are those chosen by the boxes of the priors."""
        if self.keep_count:
            order = torch.where(eligible, overlap, -1.0).argsort(dim=-1, descending=True, stable=True)
            rank = torch.empty_like(order).scatter_(-1, order, torch.arange(order.shape[-1]).to(order).expand_as(order))
            return eligible & (rank < plain.sum(-1, keepdim=True))
        chosen = eligible & (overlap > 0) & (overlap >= mean_plus_spread(overlap, found))
        return torch.where(chosen.any(-1, keepdim=True), chosen, plain)


def _chosen_by_paper(
    priors: Priors, truth: GroundTruth, topk: int, margin: float, measure: SimD | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    near, found = nearest_priors(priors, truth, topk)  # (B, G, K), and which entries exist
    boxes, objects = boxes_at(priors.boxes, near), truth.boxes.unsqueeze(2)  # (B, G, K, 4), (B, G, 1, 4)
    overlap = _measured(boxes, objects, measure)
    inside = contains(objects, centers(boxes), margin)
    return near, found, overlap, found & inside & (overlap >= mean_plus_spread(overlap, found))


def _measured(boxes: Tensor, objects: Tensor, measure: SimD | None) -> Tensor:
    return iou(boxes, objects) if measure is None else measure.between(boxes, objects)


def _nearest_candidates(
    boxes: Tensor,
    valid: Tensor,
    objects: Tensor,
    learnable: Tensor,
    grids: Sequence[float],
    topk: int,
    margin: float,
    numbers: Sequence[float],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The candidates on grids from plain tensors, in plain operations.

    ``grids`` has five numbers for each level; ``numbers`` are those of a :class:`SimD`, none for the IoU.
    """
    levels = tuple(
        Grid(int(height), int(width), stride, offset, int(each))
        for height, width, stride, offset, each in zip(*[iter(grids)] * 5, strict=True)
    )
    counts = tuple(grid.height * grid.width * grid.each for grid in levels)
    unused = boxes.new_zeros(boxes.shape[1])
    priors = Priors(boxes, unused, unused.long(), valid, counts, levels)
    labels = torch.zeros_like(learnable, dtype=torch.long)
    truth = GroundTruth(objects, labels, learnable, torch.zeros_like(learnable))
    return _chosen_by_paper(priors, truth, topk, margin, measure_of(numbers))


_NEAREST = fused(
    "nearest_candidates(Tensor boxes, Tensor valid, Tensor objects, Tensor learnable, float[] grids, int topk, "
    "float margin, float[] numbers) -> (Tensor, Tensor, Tensor, Tensor)",
    _nearest_candidates,
    module="nearest",
    launches=1,
)
