"""Recorded dense predictions as a teacher, which is then not in memory during training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ladle.detectors import DetectorSpec
from ladle.distillers import Head
from ladle.errors import UserError
from ladle.families import network_info
from ladle.networks import NetworkInfo, StageInfo, prior_mismatches
from ladle.teachers.classes import ClassTable, match_classes
from ladle.teachers.dense_file import MAP, DenseFile, DenseHeader, grids_of, read_header
from ladle.teachers.detections import LEAST_LOGIT, TeacherDetections
from ladle.teachers.foreign import predictions_at
from ladle.teachers.moved import moved_info
from ladle.teachers.uri import TeacherURI
from ladle.types import Batch, Output, Predictions, Priors, Pyramid

__all__ = ["DenseTeacher", "open_dense"]


class DenseTeacher:
    """Recorded predictions of a teacher at its own places, for images that are only resized.

    It gives what the teacher itself gives: at the same priors the predictions as they are, else moved to the student's,
    see :func:`~ladle.teachers.resample`; and feature maps if they were recorded. It has no towers.

    Args:
        file: the recording.
        spec: the detector, if it is one of Ladle's.
        table: the teacher's class for each of the student's.
        moved: whether its predictions are moved to the student's priors.
    """

    head: Head | None = None

    def __init__(self, file: DenseFile, spec: DetectorSpec | None, table: ClassTable, moved: bool = True) -> None:
        self.file, self.spec, self.table, self.moved = file, spec, table, moved
        maps = sum(name.startswith(MAP) for name in file.header.shapes)
        self._maps = tuple(f"{MAP}{number}" for number in range(maps))
        self._grids, self._device = grids_of(file.header), torch.device("cpu")
        self.pyramid = spec.pyramid if spec is not None and maps else Pyramid((), ())
        self.info = self._info()

    @property
    def header(self) -> DenseHeader:
        """What was recorded."""
        return self.file.header

    @property
    def about(self) -> tuple[str, ...]:
        """What it gives, in words."""
        header, maps = self.header, " and feature maps" if self._maps else ""
        return (
            f"gives dense predictions{maps} of {header.images} images, recorded from {header.teacher} at "
            f"{header.imgsz} px; batches are padded to {header.side} x {header.side} px as they were",
        )

    def for_student(self, student: NetworkInfo) -> DenseTeacher:
        """The teacher of a student: its predictions are moved unless the student has the same priors."""
        moved = self.spec is None or bool(prior_mismatches(student, network_info(self.spec)))
        return DenseTeacher(self.file, self.spec, self.table, moved)

    def _info(self) -> NetworkInfo:
        if self.spec is None:
            bins = self.header.shapes["edges"][-1] if "edges" in self.header.shapes else 0
            stage = StageInfo(len(self.table.classes), None, bins)
            return NetworkInfo(self.header.name, self.table.classes, self.pyramid, (stage, stage))
        info = network_info(self.spec)
        stage = replace(info.stage(0), classes=len(self.table.classes), tower_depth=0, tower_width=0)
        info = replace(info, classes=self.table.classes, pyramid=self.pyramid, stages=(stage,))
        return moved_info(info) if self.moved else info

    def to(self, device: torch.device | str) -> DenseTeacher:
        """Move what is read to ``device``."""
        self._device = torch.device(device)
        return self

    @torch.no_grad()
    def observe(self, batch: Batch) -> Recorded:
        """What was recorded for the images of a batch, which are found by their ids."""
        side, found = self.header.side, tuple(batch.images.shape[-2:])
        if found != (side, side):
            raise UserError(
                f"--teacher {self.file.folder}: recorded for batches padded to {side} x {side} px, found "
                f"{found[0]} x {found[1]}"
            )
        rows = {name: one.to(self._device) for name, one in self.file.rows(batch.ids).items()}
        maps = tuple(rows[name].contiguous(memory_format=torch.channels_last) for name in self._maps)
        detections = TeacherDetections(
            rows["boxes"], rows["logits"], rows["frame"], rows.get("quality"), rows.get("edges"), self._grids
        )
        return Recorded(detections, maps, batch.sizes, rows.get("center_prior"))

    @torch.no_grad()
    def predict_at(
        self,
        seen: Recorded,
        priors: Priors,
        stage: int = 0,
        class_agnostic: bool = False,
        tower_depth: int | None = None,
    ) -> Output:
        """What was recorded as predictions at ``priors``."""
        found = seen.found
        if self.moved or not class_agnostic:
            found = found.replaced(logits=self.table.columns_of(found.logits, LEAST_LOGIT))
        if self.moved:
            return Output(predictions_at(found, priors, seen.sizes, class_agnostic), priors, seen.maps, seen.sizes)
        logits, spread = found.logits, seen.center_prior
        if class_agnostic:
            logits = logits.amax(-1, keepdim=True)
        elif spread is not None:
            spread = spread.index_select(1, torch.tensor(self.table.columns, device=spread.device))
        predictions = Predictions(logits, found.boxes, found.quality, found.edges, spread)
        return Output(predictions, priors, seen.maps, seen.sizes)


class Recorded(NamedTuple):
    """What was recorded for a batch: predictions with the teacher's classes, feature maps, sizes of the images."""

    found: TeacherDetections
    maps: tuple[Tensor, ...]
    sizes: Tensor
    center_prior: Tensor | None


def open_dense(uri: TeacherURI, classes: Sequence[str], mapping: dict[str, str] | None = None) -> DenseTeacher:
    """Open a folder that ``ladle teacher cache --dense`` wrote, for a student's classes.

    Raises:
        UserError: for another folder, one that is incomplete, and for a detector of Ladle's that lacks a class.
    """
    uri.check(("class_map",))
    folder = Path(uri.path)
    header, spec = read_header(folder)
    table = match_classes(header.classes, classes, mapping)
    if spec is not None and table.missing:
        raise UserError(
            f"the teacher does not know {', '.join(map(repr, table.missing))}: it knows {', '.join(header.classes)}; "
            "train a teacher on the student's classes"
        )
    return DenseTeacher(DenseFile(folder, header), spec, table)
