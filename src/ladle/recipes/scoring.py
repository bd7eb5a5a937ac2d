"""Evaluation of a detector on a split."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ladle.data.loader import lost_workers_told, make_loader
from ladle.data.sources import DatasetSource, Source, Subset
from ladle.detectors import Detector
from ladle.evaluation import Evaluation, check_names, confusion, evaluate, precision_recall
from ladle.evaluation.average_precision import Reference, as_array
from ladle.types import Batch, Detections
from ladle.visual import draw_confusion, draw_precision_recall

__all__ = ["Evaluator", "Score", "crowded", "detect", "relabeled"]


class Score(NamedTuple):
    """The metrics, the detections, and the number of images (``cut``) of which some detections were dropped."""

    evaluation: Evaluation
    detections: dict[Hashable, Detections]
    cut: int


class _Truth(NamedTuple):
    id: int | str
    height: int
    width: int
    boxes: Tensor
    labels: Tensor
    crowd: Tensor


class Evaluator:
    """Evaluates detectors on the images of one split.

    Classes are matched by name, so class names must be unique; detections of classes that the data set lacks are
    ignored. With ``limit`` only that many images are used, spread over the split. The number of detections per image is
    limited by the detector's ``inference``.
    """

    def __init__(self, source: Source, imgsz: int, batch: int, workers: int = 0, limit: int | None = None) -> None:
        check_names(source.classes)
        count = len(source)
        used = count if limit is None else min(limit, count)
        every = [number * count // used for number in range(used)]
        self.source = source if len(every) == count else Subset(source, every)
        self.truth = _references(source, every)
        self.loader = make_loader(self.source, batch, imgsz, workers=workers)

    @lost_workers_told()
    def __call__(self, detector: Detector) -> Score:
        """Run ``detector`` over the split, in evaluation mode and on the device of its weights."""
        check_names(detector.spec.classes, detector.spec.name)
        device, was_training = detector.mean.device, detector.training
        detector.eval()
        found: dict[Hashable, Detections] = {}
        cut = 0
        for batch in self.loader:
            seen, more = detect(detector, batch.to(device))
            cut += more
            for name, one in zip(batch.ids, seen, strict=True):
                found[name] = relabeled(one, detector.spec.classes, self.source.classes)
        detector.train(was_training)
        most = detector.spec.inference.keep
        return Score(evaluate(self.truth, found, self.source.classes, most), found, cut)

    def draw(self, score: Score, folder: Path) -> None:
        """Write the precision-recall curves, and the confusion matrix at the threshold that maximizes F1."""
        most = score.evaluation.most
        curves = precision_recall(self.truth, score.detections, self.source.classes, most=most)
        draw_precision_recall(curves.recall, curves.precision, curves.classes, folder / "precision_recall.png")
        counts = confusion(self.truth, score.detections, self.source.classes)
        draw_confusion(counts.counts, counts.classes, folder / "confusion.png", counts.score)


def detect(detector: Detector, batch: Batch) -> tuple[list[Detections], int]:
    """The detections of each image, on the CPU, and the number of images of which some detections were dropped."""
    keep = detector.spec.inference.keep
    found = [one.to("cpu") for one in detector.detect(batch, replace(detector.spec.inference, keep=keep + 1))]
    more = sum(len(one.scores) > keep for one in found)
    return [one.map(lambda values: values[:keep]) for one in found], more


def crowded(truth: Sequence[Reference], most: int) -> str | None:
    """A sentence if images have more objects than the largest number of detections, else None."""
    loads = [int((~as_array(one.crowd)).sum()) for one in truth]
    over = sum(load > most for load in loads)
    if not over:
        return None
    return (
        f"{over} of {len(loads)} images hold more than {most} objects (up to {max(loads)}), but at most {most} are "
        f"found in each: --max-det {max(loads)} finds more"
    )


def relabeled(found: Detections, predicted: Sequence[str], classes: Sequence[str]) -> Detections:
    """Convert labels from the classes ``predicted`` to ``classes``; detections of other classes are dropped."""
    if tuple(predicted) == tuple(classes):
        return found
    label = torch.tensor([classes.index(name) if name in classes else -1 for name in predicted])[found.labels]
    known = label >= 0
    return Detections(found.boxes[known], found.scores[known], label[known])


def _references(source: Source, indices: Sequence[int]) -> list[Reference]:
    if isinstance(source, DatasetSource):
        return [source.dataset.images[index] for index in indices]
    samples = (source.sample(index) for index in indices)
    return [_Truth(s.id, *s.original, s.boxes, s.labels, s.crowd) for s in samples]
