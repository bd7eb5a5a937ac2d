"""Evaluation of a detector on a split."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ladle.data.loader import lost_workers_told, make_loader
from ladle.data.samples import stretched
from ladle.data.sources import DatasetSource, Source, Subset, evenly
from ladle.detectors import Detector
from ladle.evaluation import Evaluation, check_names, confusion, evaluate, precision_recall
from ladle.evaluation.average_precision import Reference, as_array
from ladle.teachers import ForeignTeacher
from ladle.types import Batch, Detections
from ladle.visual import draw_confusion, draw_precision_recall

__all__ = ["USUAL_LEAST", "USUAL_MOST", "Evaluator", "Find", "Score", "crowded", "detect", "find_of", "relabeled"]


USUAL_MOST = 100
"""Detections of an image that count, as in COCO."""
USUAL_LEAST = 0.05
"""The score above which a teacher's boxes are detections."""

Find = Callable[[Batch], tuple[list[Detections], int]]
"""The detections of each image of a batch, on the CPU, and the number of images of which some were dropped."""


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
    limited by the detector's ``inference``. ``pin`` is as in :func:`~ladle.data.loader.make_loader`. ``views`` are the
    same images as the loader reads them, such as with recorded predictions.
    """

    def __init__(
        self,
        source: Source,
        imgsz: int,
        batch: int,
        workers: int = 0,
        limit: int | None = None,
        pin: bool = False,
        views: Source | None = None,
    ) -> None:
        check_names(source.classes)
        count = len(source)
        every = evenly(count, count if limit is None else limit)
        self.source = source if len(every) == count else Subset(source, every)
        self.truth = _references(source, every)
        loaded = source if views is None else views
        loaded = loaded if len(every) == count else Subset(loaded, every)
        self.loader = make_loader(loaded, batch, imgsz, workers=workers, pin=pin)

    def __call__(self, detector: Detector) -> Score:
        """Run ``detector`` over the split, in evaluation mode and on the device of its weights."""
        check_names(detector.spec.classes, detector.spec.name)
        device, was_training = detector.mean.device, detector.training
        detector.eval()
        score = self.score(
            lambda batch: detect(detector, batch.to(device, non_blocking=True)),
            detector.spec.classes,
            detector.spec.inference.keep,
        )
        detector.train(was_training)
        return score

    @lost_workers_told()
    def score(self, find: Find, classes: Sequence[str], most: int) -> Score:
        """Evaluate what ``find`` detects, up to ``most`` objects of ``classes`` in an image."""
        found: dict[Hashable, Detections] = {}
        cut = 0
        for batch in self.loader:
            seen, more = find(batch)
            cut += more
            for name, one in zip(batch.ids, seen, strict=True):
                found[name] = relabeled(one, classes, self.source.classes)
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


def find_of(teacher: ForeignTeacher, device: str, most: int = USUAL_MOST, least: float = USUAL_LEAST) -> Find:
    """The detections of a foreign teacher in a batch with scores above ``least``, with the student's classes."""

    def find(batch: Batch) -> tuple[list[Detections], int]:
        batch = batch.to(device)
        seen, _ = teacher.observe(batch)
        found = [one.to("cpu") for one in seen.detections(batch, most + 1, least)]
        more = sum(len(one.scores) > most for one in found)
        return [one.map(lambda values: values[:most]) for one in found], more

    return find


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
    # Detections are in pixels of the file, but the boxes of a sample in those of its image, which may be smaller.
    return [_Truth(s.id, *s.original, stretched(s.boxes, s.size, s.original), s.labels, s.crowd) for s in samples]
