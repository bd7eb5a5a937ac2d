"""What a data set is for in an export: images to calibrate 8 bits with, and AP before and after."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

from ladle.data.loader import make_loader
from ladle.data.sources import Source, Subset, evenly
from ladle.detectors import Detector
from ladle.errors import UserError
from ladle.exporting import OnnxDetector
from ladle.recipes.console import say
from ladle.recipes.options import OnDefect
from ladle.recipes.scoring import Evaluator
from ladle.recipes.sources import known_remarks, open_known, remarks
from ladle.types import Batch

__all__ = ["Scores", "calibration_batches", "open_calibration", "open_validation", "score_file"]

_CALIBRATED = 64
"""Images that show the ranges of activations, spread over the training split."""


class Scores(NamedTuple):
    """AP from 0 to 1 of a detector in PyTorch and of its file, over so many images."""

    detector: float
    file: float
    images: int

    def in_words(self) -> str:
        """Both as text; nan means that the images hold no object."""
        both = f"{100 * self.detector:.2f} in PyTorch, {100 * self.file:.2f} in the file"
        return f"AP on {self.images} validation images: {'no objects to score' if math.isnan(self.detector) else both}"


def open_validation(data: str, detector: Detector, model: str, on_defect: OnDefect) -> Source:
    """The validation split as the detector takes it; prints the notes about it."""
    source, spec = _open(data, "val", detector, model, on_defect), detector.spec
    for line in known_remarks(source, "val", spec.imgsz, spec.name, spec.classes):
        say(line)
    return source


def open_calibration(data: str, detector: Detector, model: str, on_defect: OnDefect) -> Source:
    """Images of the training split, as many as it takes to see the ranges of activations; prints the notes about it."""
    source = _open(data, "train", detector, model, on_defect)
    for line in remarks(source, "train", detector.spec.imgsz):
        say(line)
    if not len(source):
        raise UserError(f"--data {data}: its training split has no image, and --int8 needs some for calibration")
    return Subset(source, evenly(len(source), _CALIBRATED))


def calibration_batches(source: Source, detector: Detector, at_once: int) -> Iterable[Batch]:
    """The images in their order, without augmentation."""
    return make_loader(source, at_once, detector.spec.imgsz)


def score_file(written: bytes, detector: Detector, source: Source, at_once: int) -> Scores:
    """Evaluate a detector and its ONNX file on the same images."""
    evaluator, file = Evaluator(source, detector.spec.imgsz, at_once), OnnxDetector(written)
    spec = detector.spec
    scored = evaluator.score(lambda batch: (file.detect(batch), 0), spec.classes, spec.inference.keep)
    return Scores(evaluator(detector).evaluation.ap, scored.evaluation.ap, len(source))


def _open(data: str, split: str, detector: Detector, model: str, on_defect: OnDefect) -> Source:
    spec = detector.spec
    return open_known(data, split, spec.imgsz, model, spec.classes, spec.value_range, on_defect)
