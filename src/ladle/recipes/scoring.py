"""How well a detector does on a split."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ladle.data.loader import lost_workers_told, make_loader
from ladle.data.samples import Sample
from ladle.data.sources import CatalogueSource, Source
from ladle.detectors import Detector
from ladle.evaluation import Evaluation, confusion, evaluate, precision_recall
from ladle.evaluation.average_precision import Reference
from ladle.types import Detections
from ladle.visual import draw_confusion, draw_precision_recall

__all__ = ["Examiner", "Score"]


class Score(NamedTuple):
    """The numbers, and what they were computed from."""

    evaluation: Evaluation
    detections: dict[Hashable, Detections]


class _Truth(NamedTuple):
    id: int | str
    height: int
    width: int
    boxes: Tensor
    labels: Tensor
    crowd: Tensor


class Examiner:
    """Asks detectors about the pictures of one split, always the same way.

    Classes are matched by name: what a detector knows beyond the data set's classes does not count. ``limit`` looks at
    that many pictures only, spread over the split.
    """

    def __init__(self, source: Source, imgsz: int, batch: int, workers: int = 0, limit: int | None = None) -> None:
        count = len(source)
        looks = count if limit is None else min(limit, count)
        every = [look * count // looks for look in range(looks)]
        self.source = source if len(every) == count else _Part(source, every)
        self.truth = _references(source, every)
        self.loader = make_loader(self.source, batch, imgsz, workers=workers)

    @lost_workers_told()
    def __call__(self, detector: Detector) -> Score:
        """Run ``detector``, in evaluation mode and on its own device, over the split."""
        device, was_training = detector.mean.device, detector.training
        detector.eval()
        found: dict[Hashable, Detections] = {}
        for batch in self.loader:
            moved = batch.to(device)
            for name, one in zip(batch.ids, detector.detect(moved), strict=True):
                found[name] = _relabelled(one.to("cpu"), detector.spec.classes, self.source.classes)
        detector.train(was_training)
        return Score(evaluate(self.truth, found, self.source.classes), found)

    def draw(self, score: Score, folder: Path) -> None:
        """Write the precision-recall curves and the confusion matrix of a score."""
        curves = precision_recall(self.truth, score.detections, self.source.classes)
        draw_precision_recall(curves.recall, curves.precision, curves.classes, folder / "precision_recall.png")
        counts = confusion(self.truth, score.detections, self.source.classes)
        draw_confusion(counts.counts, counts.classes, folder / "confusion.png")


def _relabelled(found: Detections, spoken: Sequence[str], classes: Sequence[str]) -> Detections:
    if tuple(spoken) == tuple(classes):
        return found
    label = torch.tensor([classes.index(name) if name in classes else -1 for name in spoken])[found.labels]
    known = label >= 0
    return Detections(found.boxes[known], found.scores[known], label[known])


class _Part:
    """Some of the samples of a source."""

    def __init__(self, source: Source, indices: Sequence[int]) -> None:
        self.source, self.indices = source, indices
        self.classes, self.category_ids = source.classes, source.category_ids

    def __len__(self) -> int:
        return len(self.indices)

    def sample(self, index: int) -> Sample:
        return self.source.sample(self.indices[index])


def _references(source: Source, indices: Sequence[int]) -> list[Reference]:
    if isinstance(source, CatalogueSource):
        return [source.catalogue.pictures[index] for index in indices]
    samples = (source.sample(index) for index in indices)
    return [_Truth(s.id, *s.original, s.boxes, s.labels, s.crowd) for s in samples]
