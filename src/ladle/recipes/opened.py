"""A teacher of another origin that all parts of a run share, so that its file is read once."""

from __future__ import annotations

from typing import Any

import torch

from ladle.detectors import DetectorSpec
from ladle.families import network_info
from ladle.teachers import DenseTeacher, ForeignTeacher, TimmTeacher, open_any

__all__ = ["OpenedTeacher"]


class OpenedTeacher:
    """A foreign teacher, opened when it is first asked for.

    A copy in another process opens it there. Opening draws no random numbers, so that it does not matter for what
    follows when that is.
    """

    def __init__(self, text: str, student: DetectorSpec) -> None:
        """Take the text of the teacher and the student; nothing is opened yet."""
        self.text, self._student = text, student
        self._teacher: ForeignTeacher | TimmTeacher | DenseTeacher | None = None

    def __call__(self) -> ForeignTeacher | TimmTeacher | DenseTeacher:
        """The teacher; raises :class:`UserError` if it cannot be opened."""
        if self._teacher is None:
            with torch.random.fork_rng(devices=[]):
                found = open_any(self.text, self._student.classes, self._student.category_ids)
            if isinstance(found, DenseTeacher):
                found = found.for_student(network_info(self._student))
            self._teacher = found
        return self._teacher

    def close(self) -> None:
        """Give its memory back; it is opened again if it is asked for again."""
        self._teacher = None

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_teacher": None}
