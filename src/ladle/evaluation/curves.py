"""How precision falls as recall grows, and which classes are taken for which."""

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
    """The precision of every class at 101 recalls, and the score at which each recall is reached.

    Precision is interpolated as COCO does (never rising with recall) and 0 beyond the last recall reached; a class
    without objects is nan throughout.
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
    """How often each class was detected as which: rows are the truth, columns the detections, background last.

    ``counts[i, C]`` are missed objects of class i, ``counts[C, j]`` detections of class j on no object.
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
    """Trace the curve of every class at one IoU threshold, over objects of all sizes, ``most`` detections an image."""
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
    """Count which class each object was detected as.

    Detections below ``score`` are dropped. Of the rest the surest goes first and takes, whatever its class, the free
    object it overlaps most, if by at least ``iou``. A detection left over counts as found on background unless at
    least ``iou`` of its area lies in a crowd; crowds themselves are not counted.
    """
    background = len(classes)
    counts = np.zeros((background + 1, background + 1), dtype=np.int64)
    for image in checked(truth, detections, classes):
        real, said = _pairs(image, detections.get(image.id), background, iou, score)
        np.add.at(counts, (real, said), 1)
    return Confusion(tuple(classes), counts)


def _pairs(
    image: Reference, found: Detections | None, background: int, iou: float, score: float
) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"]]:
    """The true and the detected class of every event in one image: a match, a miss, a false alarm."""
    boxes = torch.from_numpy(as_array(image.boxes).astype(np.float32)).reshape(-1, 4)
    labels = torch.from_numpy(as_array(image.labels).astype(np.int64))
    crowd = torch.from_numpy(as_array(image.crowd).astype(bool))
    objects, names = boxes[~crowd], labels[~crowd]
    guesses, guessed = _confident(found, score)

    owner = _match(pairwise_iou(guesses, objects), iou)
    excused = (pairwise_coverage(guesses, boxes[crowd]) >= iou).any(1) & (owner < 0)
    missed = torch.ones(len(objects), dtype=torch.bool)
    missed[owner[owner >= 0]] = False

    alarms = torch.full((len(guesses),), background)
    alarms[owner >= 0] = names[owner[owner >= 0]]
    real = torch.cat([alarms[~excused], names[missed]])
    said = torch.cat([guessed[~excused], torch.full((int(missed.sum()),), background)])
    return real.numpy(), said.numpy()


def _confident(found: Detections | None, score: float) -> tuple[Tensor, Tensor]:
    """The boxes and labels that reach ``score``, surest first."""
    if found is None:
        return torch.zeros(0, 4), torch.zeros(0, dtype=torch.long)
    order = found.scores.cpu().argsort(descending=True, stable=True)
    order = order[found.scores.cpu()[order] >= score]
    return found.boxes.cpu().float()[order], found.labels.cpu().long()[order]


def _match(overlaps: Float[Tensor, "n g"], iou: float) -> Int[Tensor, " n"]:
    """The object that each detection takes, in the order given; -1 for none."""
    owner = torch.full((overlaps.shape[0],), -1)
    if overlaps.shape[1] == 0:
        return owner
    free = overlaps.clone()
    for row in range(len(owner)):
        best, taken = free[row].max(0)
        if best >= iou:
            owner[row] = taken
            free[:, taken] = -1.0
    return owner
