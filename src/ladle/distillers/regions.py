"""Regions of priors and of map cells in which a distiller compares student and teacher."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ladle.boxes import IOU_FLOOR, area, centers, iou, pairwise_intersection
from ladle.device import constants
from ladle.nearest import boxes_at, mean_plus_spread, nearest_priors
from ladle.overlaps import object_slices, overlap_slices
from ladle.types import GroundTruth, Priors

__all__ = ["Measure", "cells_of_objects", "near_best", "within_objects", "worthwhile_ring"]

Measure = Literal["coverage", "iou"]


def worthwhile_ring(
    priors: Priors, truth: GroundTruth, gamma: float = 0.25, topk: int = 9, measure: Measure = "coverage"
) -> Float[Tensor, "B P"]:
    """The valuable localization region: priors whose overlap with an object is somewhat too low for a positive (LD).

    With ATSS's threshold t of an object, a prior belongs to its ring if ``gamma * t <= m - d^2 / c^2 < t``, where d is
    the distance of their centers and c the diagonal of their common hull. m is the fraction of the *prior* that the
    object covers (``coverage``, the released code) or their IoU, which gives the DIoU (``iou``, the paper). Returns the
    prior's largest IoU with an object to whose ring it belongs, and 0 outside of all rings (Zheng et al., CVPR 2022).
    """
    near, found = nearest_priors(priors, truth, topk)
    overlap = iou(boxes_at(priors.boxes, near), truth.boxes.unsqueeze(2))
    # A single candidate has no standard deviation; as in the released code, its object has no ring.
    high = mean_plus_spread(overlap, found).masked_fill(found.sum(-1, keepdim=True) < 2, -torch.inf)
    weight = truth.boxes.new_zeros(len(truth.labels), priors.boxes.shape[1])
    for part in object_slices(len(weight), weight.shape[1], truth.labels.shape[1], weight):
        value, near_miss = _overlap_and_distance(truth.boxes[:, part], priors.boxes, measure)
        low = gamma * high[:, part]
        ring = (near_miss >= low) & (near_miss < high[:, part]) & truth.learnable[:, part, None]
        weight = weight.maximum(torch.where(ring, value, 0.0).amax(1))
    return weight * priors.valid


def _overlap_and_distance(
    objects: Float[Tensor, "B g 4"], boxes: Float[Tensor, "#B P 4"], measure: Measure
) -> tuple[Float[Tensor, "B g P"], Float[Tensor, "B g P"]]:
    """The IoU, and the measure minus squared center distance / squared diagonal of the hull."""
    shared = pairwise_intersection(objects, boxes)
    prior_area = area(boxes).unsqueeze(-2)
    value = shared / (area(objects).unsqueeze(-1) + prior_area - shared).clamp(min=IOU_FLOOR)
    one, other = objects.unsqueeze(2), boxes.unsqueeze(1)
    hull = one[..., 2:].maximum(other[..., 2:]) - one[..., :2].minimum(other[..., :2])
    offset = centers(objects).unsqueeze(2) - centers(boxes).unsqueeze(1)
    distance = offset.square().sum(-1) / hull.square().sum(-1).clamp(min=IOU_FLOOR)
    return value, (value if measure == "iou" else shared / prior_area.clamp(min=IOU_FLOOR)) - distance


def within_objects(priors: Priors, truth: GroundTruth) -> Bool[Tensor, "B P"]:
    """The valid priors whose center lies inside an object, on any level."""
    points = priors.centers.unsqueeze(1)
    found = torch.zeros(len(truth.labels), points.shape[2], dtype=torch.bool, device=points.device)
    for part in object_slices(len(found), found.shape[1], truth.labels.shape[1], found):
        box = truth.boxes[:, part].unsqueeze(2)
        inner = torch.minimum(points - box[..., :2], box[..., 2:] - points).amin(-1)
        found = found | ((inner > 0) & truth.learnable[:, part, None]).any(1)
    return found & priors.valid


def near_best(priors: Priors, truth: GroundTruth, share: float) -> Bool[Tensor, "B P"]:
    """The priors with an IoU above ``share`` times the largest IoU of any prior with an object (Wang et al. 2019)."""
    found = torch.zeros(len(truth.labels), priors.boxes.shape[1], dtype=torch.bool, device=priors.boxes.device)
    for _, overlap in overlap_slices(priors.boxes, priors.valid, truth, priors.grids):
        best = overlap.amax(-1, keepdim=True)
        found = found | ((overlap > share * best) & (best > 0)).any(1)
    return found


def cells_of_objects(
    truth: GroundTruth, shape: tuple[int, int], stride: float, part: slice, outward: bool
) -> tuple[Bool[Tensor, "B g H"], Bool[Tensor, "B g W"]]:
    """The rows and the columns of a map that each object of a slice covers.

    ``outward`` rounds to whole cells outward and counts both ends (FGD); else corners are rounded down and the last
    cell is left out, and an object that then has no row or no column covers the one cell of its corner (DeFeat).
    """
    boxes = truth.boxes[:, part] / stride
    edge = constants(((shape[1], shape[0]),), boxes.device)[0]
    first = boxes[..., :2].floor().clamp(min=0).minimum(edge - 1)
    if outward:
        last = boxes[..., 2:].ceil().minimum(edge - 1)
    else:
        last = boxes[..., 2:].floor().minimum(edge) - 1
        last = torch.where((last < first).any(-1, keepdim=True), first, last)
    real = truth.learnable[:, part, None]
    rows, columns = (
        _between(first[..., axis], last[..., axis], length) & real for axis, length in ((1, shape[0]), (0, shape[1]))
    )
    return rows, columns


def _between(first: Float[Tensor, "B g"], last: Float[Tensor, "B g"], length: int) -> Bool[Tensor, "B g L"]:
    cell = torch.arange(length, device=first.device)
    return (cell >= first.unsqueeze(-1)) & (cell <= last.unsqueeze(-1))
