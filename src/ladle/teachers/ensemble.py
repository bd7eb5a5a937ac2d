"""Several teachers as one: their final boxes together."""

from __future__ import annotations

from typing import NamedTuple

import torch

from ladle.teachers.detections import LEAST_LOGIT, TeacherDetections
from ladle.teachers.foreign import Foreign
from ladle.types import Batch

__all__ = ["EnsembleTeacher", "ensemble_of"]


class EnsembleTeacher(NamedTuple):
    """The final boxes of several detectors, suppressed together; see ``Foreign``.

    A class has the name that the first of them has for it. Of boxes that several find, the one with the highest score
    remains.
    """

    members: tuple[Foreign, ...]
    classes: tuple[str, ...]
    bins: int = 0

    @property
    def name(self) -> str:
        """The names of all members."""
        return "+".join(one.name for one in self.members)

    @property
    def about(self) -> tuple[str, ...]:
        """The lines of all members."""
        return tuple(f"{one.name}: {line}" for one in self.members for line in one.about)

    def to(self, device: torch.device | str) -> EnsembleTeacher:
        """Move all members to ``device``, in place."""
        for one in self.members:
            one.to(device)
        return self

    def find(self, batch: Batch) -> TeacherDetections:
        """What any of them finds, after NMS in each class."""
        found = [self._widened(one, _final(one.find(batch), batch)) for one in self.members]
        boxes, logits = torch.cat([one.boxes for one in found], 1), torch.cat([one.logits for one in found], 1)
        return found[0].replaced(boxes=boxes, logits=logits).suppressed(batch)

    def _widened(self, member: Foreign, found: TeacherDetections) -> TeacherDetections:
        """What a member finds, with the classes of all."""
        logits = found.logits.new_full((*found.logits.shape[:2], len(self.classes)), LEAST_LOGIT)
        logits[..., [self.classes.index(name) for name in member.classes]] = found.logits
        return found.replaced(logits=logits)


def _final(found: TeacherDetections, batch: Batch) -> TeacherDetections:
    return found if found.grids is None else found.suppressed(batch)


def ensemble_of(members: tuple[Foreign, ...]) -> EnsembleTeacher:
    """Several detectors as one, with the classes of all by name."""
    return EnsembleTeacher(members, tuple(dict.fromkeys(name for one in members for name in one.classes)))
