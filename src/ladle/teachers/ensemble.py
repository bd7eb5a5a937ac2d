"""Several teachers as one: their final boxes together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from ladle.teachers.classes import ClassTable, columns_of
from ladle.teachers.detections import LEAST_LOGIT, TeacherDetections
from ladle.teachers.foreign import Foreign
from ladle.types import Batch

__all__ = ["EnsembleTeacher", "Member", "ensemble_of"]


class Member(NamedTuple):
    """A detector of an ensemble.

    Attributes:
        detector: it.
        table: its class for each of the student's.
        columns: the number of its class for each of the ensemble's; -1 where it knows none.
    """

    detector: Foreign
    table: ClassTable
    columns: tuple[int, ...]


class EnsembleTeacher(NamedTuple):
    """The final boxes of several detectors, suppressed together; see ``Foreign``.

    Each member's classes are matched with the student's by themselves, and have the student's names; a class that the
    student does not have keeps its own. Of boxes that several find, the one with the highest score remains.
    """

    members: tuple[Member, ...]
    classes: tuple[str, ...]
    bins: int = 0

    @property
    def name(self) -> str:
        """The names of all members."""
        return "+".join(one.detector.name for one in self.members)

    @property
    def about(self) -> tuple[str, ...]:
        """The lines of all members, and how their classes match."""
        return tuple(
            f"{one.detector.name}: {line}"
            for one in self.members
            for line in (*one.detector.about, one.table.summary())
        )

    def to(self, device: torch.device | str) -> EnsembleTeacher:
        """Move all members to ``device``, in place."""
        for one in self.members:
            one.detector.to(device)
        return self

    def find(self, batch: Batch) -> TeacherDetections:
        """What any of them finds, after NMS in each class."""
        found = [self._widened(one, _final(one.detector.find(batch), batch)) for one in self.members]
        boxes, logits = torch.cat([one.boxes for one in found], 1), torch.cat([one.logits for one in found], 1)
        return found[0].replaced(boxes=boxes, logits=logits).suppressed(batch.sizes)

    def _widened(self, member: Member, found: TeacherDetections) -> TeacherDetections:
        """What a member finds, with the classes of all."""
        return found.replaced(logits=columns_of(found.logits, member.columns, LEAST_LOGIT))


def ensemble_of(members: Sequence[tuple[Foreign, ClassTable]]) -> EnsembleTeacher:
    """Several detectors as one, each with its class for each of the student's."""
    numbers = [_by_name(detector, table) for detector, table in members]
    classes = tuple(dict.fromkeys(name for one in numbers for name in one))
    every = (
        Member(detector, table, tuple(one.get(name, -1) for name in classes))
        for (detector, table), one in zip(members, numbers, strict=True)
    )
    return EnsembleTeacher(tuple(every), classes)


def _final(found: TeacherDetections, batch: Batch) -> TeacherDetections:
    return found if found.grids is None else found.suppressed(batch.sizes)


def _by_name(detector: Foreign, table: ClassTable) -> dict[str, int]:
    """The numbers of a member's classes by the names that they have in the ensemble."""
    known = {name: column for name, column in zip(table.classes, table.columns, strict=True) if column >= 0}
    others = {name: column for column, name in enumerate(detector.classes) if column not in known.values()}
    every = known | {name: column for name, column in others.items() if name not in table.classes}
    return dict(sorted(every.items(), key=lambda one: one[1]))
