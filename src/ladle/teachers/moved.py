"""A Ladle detector as a teacher of students with other strides or anchors."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from ladle.distillers import Head
from ladle.networks import NetworkInfo, StageInfo
from ladle.teachers.detections import TeacherDetections, identity_frame
from ladle.teachers.foreign import predictions_at
from ladle.teachers.frozen import FrozenDetector, Observed
from ladle.types import Batch, Output, Priors, Pyramid

__all__ = ["MovedTeacher", "moved_info"]


class MovedTeacher:
    """A frozen detector that predicts at its own priors; its predictions are moved to the student's.

    Those of a one-stage detector are re-sampled to the student's grids, the detections of a two-stage detector are
    placed at its priors; see :func:`~ladle.teachers.resample` and :func:`~ladle.teachers.place`. A region head
    predicts at the student's proposals as it is, and feature maps stay the same.

    Examples:
        >>> from ladle.families import detector_spec
        >>> from ladle.teachers import FrozenDetector, MovedTeacher, Teacher
        >>> teacher = MovedTeacher(FrozenDetector(detector_spec("fcos-tiny", ["cat"]).build(), ["cat"]))
        >>> isinstance(teacher, Teacher), teacher.head is None
        (True, True)
    """

    head: Head | None = None

    def __init__(self, frozen: FrozenDetector) -> None:
        """Take a frozen detector with the student's classes."""
        self.frozen = frozen
        self.info = moved_info(frozen.info)

    def to(self, device: torch.device | str) -> MovedTeacher:
        """Move the detector to ``device``, in place."""
        self.frozen.to(device)
        return self

    @property
    def pyramid(self) -> Pyramid:
        """Channels and strides of its feature maps."""
        return self.frozen.pyramid

    @torch.no_grad()
    def observe(self, batch: Batch) -> Moving:
        """Its feature maps of a batch, and what it finds there."""
        seen = self.frozen.observe(batch)
        return Moving(seen, self._find(seen, batch), batch.sizes)

    @torch.no_grad()
    def predict_at(
        self,
        seen: Moving,
        priors: Priors,
        stage: int = 0,
        class_agnostic: bool = False,
        tower_depth: int | None = None,
    ) -> Output:
        """Its predictions, moved to ``priors``; those of its region heads at proposals as they are."""
        if stage and len(self.frozen.detector.chain) > 1:
            return self.frozen.predict_at(seen.observed, priors, stage, class_agnostic)
        predictions = predictions_at(seen.found, priors, seen.sizes, class_agnostic)
        return Output(predictions, priors, seen.observed.features, seen.observed.sizes)

    def _find(self, seen: Observed, batch: Batch) -> TeacherDetections:
        detector, outputs = self.frozen.detector, list[Output]()
        for stage in detector.chain:
            at = stage.propose(seen.features, outputs[-1] if outputs else None, None, batch.sizes)
            predictions, _ = stage(seen.features, at, None)
            outputs.append(Output(predictions, at, seen.features, batch.sizes))
        last = detector.joined(outputs)
        if len(outputs) > 1:
            found = detector.spec.inference.find(last, batch.sizes, batch.sizes)
            every = TeacherDetections.of_each(found, len(detector.spec.classes))
            return every.replaced(logits=every.logits.index_select(-1, self.frozen.order))
        made = self.frozen.reorder(last.predictions)
        boxes = made.boxes.float()
        edges, quality = made.edges, made.quality
        return TeacherDetections(boxes, made.log_odds, identity_frame(boxes), quality, edges, last.priors.grids)


class Moving(NamedTuple):
    """What a frozen detector observes in a batch, what it finds there, and the sizes of the images."""

    observed: Observed
    found: TeacherDetections
    sizes: Tensor


def moved_info(info: NetworkInfo) -> NetworkInfo:
    """The description of a detector whose predictions are moved: it predicts at any priors, but has no towers there.

    Its detections can be placed at proposals too: as if it had two stages.
    """
    first, *regions = info.stages
    if regions:
        return replace(info, stages=(StageInfo(regions[-1].classes), *regions))
    stage = replace(first, priors=None, tower_depth=0, tower_width=0)
    return replace(info, stages=(stage, replace(stage, bins=0, quality=None)))
