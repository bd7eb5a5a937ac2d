"""Which object of an image each detection takes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ladle.boxes import pairwise_coverage, pairwise_iou
from ladle.evaluation.average_precision import Reference, as_array
from ladle.types import Detections

__all__ = ["Matched", "match_image"]


class Matched(NamedTuple):
    """The G objects of one image that are no crowds, its N detections from the highest score on, and their matches.

    ``order`` are the places of these detections, ``objects`` those of the objects. ``overlaps`` are IoUs; ``match`` is
    the object of each detection or -1; ``on_crowd`` marks detections without a match that lie on a crowd region.
    """

    order: Int[np.ndarray, " N"]
    labels: Int[np.ndarray, " N"]
    scores: Float[np.ndarray, " N"]
    objects: Int[np.ndarray, " G"]
    object_labels: Int[np.ndarray, " G"]
    overlaps: Float[np.ndarray, "N G"]
    match: Int[np.ndarray, " N"]
    on_crowd: Bool[np.ndarray, " N"]


def match_image(
    image: Reference,
    found: Detections | None,
    iou: float,
    score: float,
    same_class: bool = True,
    same_crowd: bool = False,
) -> Matched:
    """Match detections to objects in order of their scores: each takes the free object that it overlaps most.

    The overlap must be at least ``iou``, and the object of the same class unless ``same_class`` is False. Detections
    below ``score`` are left out. A detection without a match lies on a crowd if at least ``iou`` of its area does; with
    ``same_crowd`` on one of its class.
    """
    boxes = torch.from_numpy(as_array(image.boxes).astype(np.float32)).reshape(-1, 4)
    crowd = as_array(image.crowd).astype(bool)
    objects = np.flatnonzero(~crowd)
    object_labels, crowd_labels = (as_array(image.labels).astype(np.int64)[one] for one in (objects, crowd))
    order, detected, labels, scores = _confident(found, score)
    overlaps = pairwise_iou(detected, boxes[objects]).numpy()
    allowed = labels[:, None] == object_labels if same_class else np.ones_like(overlaps, dtype=bool)
    match = _match(np.where(allowed, overlaps, -1.0), iou)
    covered = pairwise_coverage(detected, boxes[crowd]).numpy() >= iou
    if same_crowd:
        covered &= labels[:, None] == crowd_labels
    return Matched(order, labels, scores, objects, object_labels, overlaps, match, covered.any(1) & (match < 0))


def _confident(
    found: Detections | None, score: float
) -> tuple[Int[np.ndarray, " N"], Tensor, Int[np.ndarray, " N"], Float[np.ndarray, " N"]]:
    """The places, boxes, labels and scores of detections with at least ``score``, the highest first."""
    if found is None:
        return np.zeros(0, dtype=np.int64), torch.zeros(0, 4), np.zeros(0, dtype=np.int64), np.zeros(0)
    scores = found.scores.cpu()
    order = scores.argsort(descending=True, stable=True)
    order = order[scores[order] >= score]
    labels = found.labels.cpu().long()[order].numpy()
    return order.numpy(), found.boxes.cpu().float()[order], labels, scores[order].double().numpy()


def _match(overlaps: Float[np.ndarray, "N G"], iou: float) -> Int[np.ndarray, " N"]:
    """Greedy matching in the order of the rows: the column of each, or -1."""
    match = np.full(len(overlaps), -1)
    if not overlaps.size:
        return match
    free = overlaps.copy()
    for row in np.flatnonzero(overlaps.max(1) >= iou):
        taken = int(free[row].argmax())
        if free[row, taken] >= iou:
            match[row] = taken
            free[:, taken] = -1.0
    return match
