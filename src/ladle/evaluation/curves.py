"""Precision-recall curves and confusion matrices."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ladle.boxes import pairwise_coverage, pairwise_iou
from ladle.evaluation.average_precision import Reference, as_array, checked, tabulate
from ladle.types import Detections

__all__ = ["Confusion", "PrecisionRecall", "confusion", "precision_recall"]


@dataclass(frozen=True)
class PrecisionRecall:
    """The precision of every class at 101 recall values, and the score at which each recall is reached.

    Precision is interpolated as in COCO, so that it never rises with recall; it is 0 beyond the largest recall. Classes
    without objects are NaN.
    """

    classes: tuple[str, ...]
    iou: float
    recall: Float[np.ndarray, " R"]
    precision: Float[np.ndarray, "C R"]
    scores: Float[np.ndarray, "C R"]

    @property
    def average_precision(self) -> Float[np.ndarray, " C"]:
        """The area under each curve: the AP of each class at this IoU."""
        return np.asarray(self.precision.mean(axis=1))


@dataclass(frozen=True)
class Confusion:
    """A confusion matrix: rows are true classes, columns are detected classes, background is last in both.

    ``counts[i, C]`` is the number of missed objects of class i, ``counts[C, j]`` that of detections of class j without
    an object.
    """

    classes: tuple[str, ...]
    counts: Int[np.ndarray, "C1 C1"]


def precision_recall(
    truth: Iterable[Reference],
    detections: Mapping[Hashable, Detections],
    classes: Sequence[str],
    iou: float = 0.5,
    most: int = 100,
) -> PrecisionRecall:
    """The curve of every class at one IoU threshold, with objects of all sizes and ``most`` detections per image."""
    tables = tabulate(truth, detections, classes, thresholds=(iou,), most=most)
    return PrecisionRecall(
        classes=tuple(classes),
        iou=iou,
        recall=np.linspace(0.0, 1.0, tables.precision.shape[1]),
        precision=tables.precision[0, :, :, 0, -1].T,
        scores=tables.scores[0, :, :, 0, -1].T,
    )


def confusion(
    truth: Iterable[Reference],
    detections: Mapping[Hashable, Detections],
    classes: Sequence[str],
    iou: float = 0.5,
    score: float = 0.25,
) -> Confusion:
    """Count as which class each object was detected.

    Detections below ``score`` are left out. The others are matched in order of their scores, each with the unmatched
    object of any class that it overlaps most, if the IoU is at least ``iou``. A detection without a match counts as a
    detection of background, unless at least ``iou`` of its area lies in a crowd region. Crowd regions are not counted.
    """
    background = len(classes)
    counts = np.zeros((background + 1, background + 1), dtype=np.int64)
    for image in checked(truth, detections, classes):
        true, detected = _pairs(image, detections.get(image.id), background, iou, score)
        np.add.at(counts, (true, detected), 1)
    return Confusion(tuple(classes), counts)


def _pairs(
    image: Reference, found: Detections | None, background: int, iou: float, score: float
) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"]]:
    """The true and the detected class of every match, missed object and false detection in one image."""
    boxes = torch.from_numpy(as_array(image.boxes).astype(np.float32)).reshape(-1, 4)
    labels = torch.from_numpy(as_array(image.labels).astype(np.int64))
    crowd = torch.from_numpy(as_array(image.crowd).astype(bool))
    objects, object_labels = boxes[~crowd], labels[~crowd]
    detected_boxes, detected_labels = _confident(found, score)

    match = _match(pairwise_iou(detected_boxes, objects), iou)  # (n,), the object of each detection or -1
    on_crowd = (pairwise_coverage(detected_boxes, boxes[crowd]) >= iou).any(1) & (match < 0)
    missed = torch.ones(len(objects), dtype=torch.bool)
    missed[match[match >= 0]] = False

    true_labels = torch.full((len(detected_boxes),), background)
    true_labels[match >= 0] = object_labels[match[match >= 0]]
    true = torch.cat([true_labels[~on_crowd], object_labels[missed]])
    detected = torch.cat([detected_labels[~on_crowd], torch.full((int(missed.sum()),), background)])
    return true.numpy(), detected.numpy()


def _confident(found: Detections | None, score: float) -> tuple[Tensor, Tensor]:
    """The boxes and labels of detections with at least ``score``, highest score first."""
    if found is None:
        return torch.zeros(0, 4), torch.zeros(0, dtype=torch.long)
    order = found.scores.cpu().argsort(descending=True, stable=True)
    order = order[found.scores.cpu()[order] >= score]
    return found.boxes.cpu().float()[order], found.labels.cpu().long()[order]


def _match(overlaps: Float[Tensor, "n g"], iou: float) -> Int[Tensor, " n"]:
    """Greedy matching in the order of the detections: the object of each, or -1."""
    match = torch.full((overlaps.shape[0],), -1)
    if overlaps.shape[1] == 0:
        return match
    free = overlaps.clone()
    for row in range(len(match)):
        best, taken = free[row].max(0)
        if best >= iou:
            match[row] = taken
            free[:, taken] = -1.0
    return match
