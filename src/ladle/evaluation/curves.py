"""Precision-recall curves, the best score threshold, and confusion matrices."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Float, Int

from ladle.evaluation.average_precision import Reference, checked, tabulate
from ladle.evaluation.matching import Matched, match_image
from ladle.types import Detections

__all__ = [
    "Confusion",
    "PrecisionRecall",
    "Threshold",
    "best_threshold",
    "class_thresholds",
    "confusion",
    "precision_recall",
]


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
    an object. Detections below ``score`` were left out.
    """

    classes: tuple[str, ...]
    counts: Int[np.ndarray, "C1 C1"]
    score: float

    @property
    def shares(self) -> Float[np.ndarray, "C1 C1"]:
        """The counts over the sum of their row: as what the objects of a class were detected; 0 in an empty row."""
        return np.asarray(self.counts / np.maximum(self.counts.sum(axis=1, keepdims=True), 1))


@dataclass(frozen=True)
class Threshold:
    """A threshold of the score, and precision, recall and F1 of the detections with at least that score."""

    score: float
    precision: float
    recall: float
    f1: float


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


def best_threshold(
    truth: Iterable[Reference],
    detections: Mapping[Hashable, Detections],
    classes: Sequence[str],
    iou: float = 0.5,
) -> Threshold:
    """Find the score threshold that maximizes F1, the harmonic mean of precision and recall over all classes.

    Detections are matched in order of their scores, each with the free object of its class that it overlaps most, with
    an IoU of at least ``iou``; those on crowd regions do not count. F1 is twice the matches over detections plus
    objects. Of equal thresholds the highest is taken; without detections the threshold is 1.

    Examples:
        >>> from types import SimpleNamespace
        >>> import torch
        >>> from ladle.evaluation import best_threshold
        >>> from ladle.types import Detections
        >>> box = torch.tensor([[0.0, 0.0, 40.0, 40.0]])
        >>> image = SimpleNamespace(id=1, height=64, width=64, boxes=box, labels=[0], crowd=[False])
        >>> found = Detections(torch.cat([box, box + 100]), torch.tensor([0.75, 0.5]), torch.tensor([0, 0]))
        >>> best_threshold([image], {1: found}, ["cat"])
        Threshold(score=0.75, precision=1.0, recall=1.0, f1=1.0)
    """
    scores, hits, objects = [np.zeros(0)], [np.zeros(0, dtype=bool)], 0
    for image in checked(truth, detections, classes):
        matched = match_image(image, detections.get(image.id), iou, -np.inf)
        scores.append(matched.scores[~matched.on_crowd])
        hits.append(matched.match[~matched.on_crowd] >= 0)
        objects += len(matched.objects)
    return _best(np.concatenate(scores), np.concatenate(hits), objects)


def class_thresholds(
    truth: Iterable[Reference],
    detections: Mapping[Hashable, Detections],
    classes: Sequence[str],
    iou: float = 0.5,
) -> list[Threshold]:
    """The threshold of :func:`best_threshold` for each class alone, in one pass over the images.

    Detections on crowd regions of their class do not count.

    Examples:
        >>> from types import SimpleNamespace
        >>> import torch
        >>> from ladle.evaluation import class_thresholds
        >>> from ladle.types import Detections
        >>> box = torch.tensor([[0.0, 0.0, 40.0, 40.0]])
        >>> image = SimpleNamespace(id=1, height=64, width=64, boxes=box, labels=[1], crowd=[False])
        >>> found = Detections(torch.cat([box, box]), torch.tensor([0.75, 0.5]), torch.tensor([1, 0]))
        >>> [(one.score, one.f1) for one in class_thresholds([image], {1: found}, ["cat", "dog"])]
        [(0.5, 0.0), (0.75, 1.0)]
    """
    parts = [(np.zeros(0), np.zeros(0, dtype=bool), np.zeros(0, dtype=np.int64))]
    objects = np.zeros(len(classes), dtype=np.int64)
    for image in checked(truth, detections, classes):
        matched = match_image(image, detections.get(image.id), iou, -np.inf, same_crowd=True)
        kept = ~matched.on_crowd
        parts.append((matched.scores[kept], matched.match[kept] >= 0, matched.labels[kept]))
        objects += np.bincount(matched.object_labels, minlength=len(classes))
    score, hit, label = (np.concatenate(each) for each in zip(*parts, strict=True))
    order = np.argsort(label, kind="stable")
    ends = np.searchsorted(label[order], np.arange(len(classes) + 1))
    of_class = (order[first:end] for first, end in pairwise(ends))
    return [_best(score[one], hit[one], int(count)) for one, count in zip(of_class, objects, strict=True)]


def _best(score: Float[np.ndarray, " N"], hit: Bool[np.ndarray, " N"], objects: int) -> Threshold:
    """The threshold of highest F1 of detections, of which some hit one of the ``objects``."""
    if not len(score):
        return Threshold(1.0, 0.0, 0.0, 0.0)
    order = np.argsort(-score, kind="stable")
    score, found = score[order], np.cumsum(hit[order])
    last = np.flatnonzero(np.append(score[1:] != score[:-1], True))  # a threshold keeps all detections of its score
    kept = last + 1
    f1 = 2 * found[last] / (kept + objects)
    best = int(f1.argmax())
    true = int(found[last[best]])
    return Threshold(float(score[last[best]]), true / int(kept[best]), true / max(objects, 1), float(f1[best]))


def confusion(
    truth: Iterable[Reference],
    detections: Mapping[Hashable, Detections],
    classes: Sequence[str],
    iou: float = 0.5,
    score: float | None = None,
) -> Confusion:
    """Count as which class each object was detected.

    Detections below ``score`` are left out, by default below the threshold that maximizes F1 (:func:`best_threshold`).
    The others are matched in order of their scores, each with the unmatched object of any class that it overlaps most,
    if the IoU is at least ``iou``. A detection without a match counts as a detection of background, unless at least
    ``iou`` of its area lies in a crowd region. Crowd regions are not counted.
    """
    images = checked(truth, detections, classes)
    if score is None:
        score = best_threshold(images, detections, classes, iou).score
    background = len(classes)
    counts = np.zeros((background + 1, background + 1), dtype=np.int64)
    for image in images:
        matched = match_image(image, detections.get(image.id), iou, score, same_class=False)
        true, detected = _pairs(matched, background)
        np.add.at(counts, (true, detected), 1)
    return Confusion(tuple(classes), counts, score)


def _pairs(matched: Matched, background: int) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"]]:
    """The true and the detected class of every match, missed object and false detection in one image."""
    hit = matched.match >= 0
    true = np.full(len(hit), background)
    true[hit] = matched.object_labels[matched.match[hit]]
    counted = ~matched.on_crowd
    missed = np.delete(matched.object_labels, matched.match[hit])
    detected = matched.labels[counted]
    return np.concatenate([true[counted], missed]), np.concatenate([detected, np.full(len(missed), background)])
