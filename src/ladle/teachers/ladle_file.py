"""Ladle's own detectors as detectors of any other origin: their final boxes."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import torch

from ladle.detectors import Detector, load_detector
from ladle.teachers.detections import TeacherDetections
from ladle.teachers.uri import TeacherURI
from ladle.types import Batch

__all__ = ["LadleTeacher", "open_ladle"]


class LadleTeacher(NamedTuple):
    """The detections of a Ladle detector, as for a cache or an ensemble; see ``Foreign``."""

    detector: Detector
    bins: int = 0
    about: tuple[str, ...] = ("gives final boxes",)

    @property
    def name(self) -> str:
        """The name of the detector."""
        return self.detector.spec.name

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of its classes."""
        return self.detector.spec.classes

    def to(self, device: torch.device | str) -> LadleTeacher:
        """Move the detector to ``device``, in place."""
        self.detector.to(device)
        return self

    @torch.no_grad()
    def find(self, batch: Batch) -> TeacherDetections:
        """Its detections by its own rule of scores and suppression, those of low scores included."""
        found = self.detector.detect(
            batch.replaced(originals=batch.sizes), replace(self.detector.spec.inference, threshold=0.01, keep=300)
        )
        return TeacherDetections.of_each(found, len(self.classes))


def open_ladle(uri: TeacherURI) -> LadleTeacher:
    """Load weights saved by Ladle."""
    return LadleTeacher(load_detector(uri.path).requires_grad_(False).eval())
