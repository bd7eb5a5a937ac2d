"""Adaptive training sample selection."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ladle.assigners.protocol import full_precision
from ladle.boxes import centers, contains, iou
from ladle.overlaps import object_slices, outside_crowds
from ladle.types import Assignment, GroundTruth, Predictions, Priors

__all__ = ["ATSS"]


@dataclass(frozen=True)
class ATSS:
    """An object's own statistics set its IoU threshold (Zhang et al., CVPR 2020, algorithm 1).

    The ``topk`` priors nearest to an object's centre on every level are its candidates; those whose IoU reaches mean
    plus standard deviation (unbiased) of all its candidates, and whose centre lies inside it, learn it. A prior wanted
    by several objects learns the one it overlaps most, on a tie the one listed first.

    Args:
        topk: candidates per level and object. The original repository takes ``topk`` times the anchors of a location.
        margin: how many pixels inside the object a prior's centre must lie, to more than that.
        crowd: a prior with more than this share inside a crowd region is not background.
    """

    topk: int = 9
    margin: float = 0.01
    crowd: float = 0.5

    @full_precision
    def __call__(self, predictions: Predictions, priors: Priors, truth: GroundTruth) -> Assignment:
        """Assign by the priors' boxes alone; the predictions are not looked at."""
        near, found = nearest_priors(priors, truth, self.topk)
        boxes = _gather(priors.boxes, near)
        overlap = iou(boxes, truth.boxes.unsqueeze(2))
        inside = contains(truth.boxes.unsqueeze(2), centers(boxes), self.margin)
        chosen = found & inside & (overlap >= _mean_plus_spread(overlap, found))
        positive, index = _most_overlapped(near, overlap, chosen, priors.boxes.shape[1])
        return Assignment.hard(index, positive, outside_crowds(priors, truth, self.crowd))


def nearest_priors(priors: Priors, truth: GroundTruth, topk: int) -> tuple[Int[Tensor, "B G K"], Bool[Tensor, "B G K"]]:
    """The ``topk`` valid priors of every level nearest to each object's centre, and which of these entries exist."""
    batch, objects = truth.labels.shape
    middles = centers(truth.boxes)
    keeps, exists = [], []
    for part in object_slices(batch, max(priors.counts), objects):
        levels, start = [], 0
        for count in priors.counts:
            level = slice(start, start + count)
            apart = torch.cdist(middles[:, part], priors.centers[:, level].expand(batch, -1, -1), compute_mode=_EXACT)
            apart = apart.masked_fill(~priors.valid[:, None, level], torch.inf)
            distance, nearest = apart.topk(min(topk, count), largest=False)
            levels.append((nearest + start, distance.isfinite()))
            start += count
        keeps.append(torch.cat([index for index, _ in levels], dim=-1))
        exists.append(torch.cat([real for _, real in levels], dim=-1))
    if not keeps:
        empty = truth.labels.new_zeros(batch, 0, 1)
        return empty, empty.bool()
    near = torch.cat(keeps, dim=1)
    return near, torch.cat(exists, dim=1) & truth.learnable.unsqueeze(-1)


_EXACT = "donot_use_mm_for_euclid_dist"


def _gather(boxes: Float[Tensor, "#B P 4"], index: Int[Tensor, "B G K"]) -> Float[Tensor, "B G K 4"]:
    batch, objects, width = index.shape
    flat = index.reshape(batch, -1, 1).expand(-1, -1, 4)
    return boxes.expand(batch, -1, -1).gather(1, flat).view(batch, objects, width, 4)


def _mean_plus_spread(overlap: Tensor, found: Tensor) -> Float[Tensor, "B G 1"]:
    count = found.sum(-1, keepdim=True)
    mean = (overlap * found).sum(-1, keepdim=True) / count.clamp(min=1)
    variance = ((overlap - mean).square() * found).sum(-1, keepdim=True) / (count - 1).clamp(min=1)
    return mean + variance.sqrt()


def _most_overlapped(
    near: Int[Tensor, "B G K"], overlap: Float[Tensor, "B G K"], chosen: Bool[Tensor, "B G K"], priors: int
) -> tuple[Bool[Tensor, "B P"], Int[Tensor, "B P"]]:
    """Settle priors wanted by several objects by two scatters, so that no prior-by-object matrix is built."""
    batch, objects, width = near.shape
    flat, wanted = near.view(batch, -1), torch.where(chosen, overlap, -1.0).view(batch, -1)
    best = wanted.new_full((batch, priors), -1.0).scatter_reduce(1, flat, wanted, "amax")
    owner = torch.arange(objects, device=near.device).repeat_interleave(width, output_size=objects * width)
    wins = (wanted >= 0) & (wanted == best.gather(1, flat))
    claims = torch.where(wins, owner, objects)
    index = near.new_full((batch, priors), objects).scatter_reduce(1, flat, claims, "amin")
    return index < objects, torch.where(index < objects, index, 0)
