"""A teacher of another origin that all parts of a run share, so that its file is read once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ladle.teachers import ForeignTeacher, TimmTeacher, open_any

__all__ = ["OpenedTeacher"]


class OpenedTeacher:
    """A foreign teacher, opened when it is first asked for.

    A copy in another process opens it there. Opening draws no random numbers, so that it does not matter for what
    follows when that is.
    """

    def __init__(self, text: str, classes: Sequence[str], category_ids: Sequence[int]) -> None:
        """Take the text of the teacher, and the classes of the data with their ids; nothing is opened yet."""
        self.text, self._classes, self._ids = text, tuple(classes), tuple(category_ids)
        self._teacher: ForeignTeacher | TimmTeacher | None = None

    def __call__(self) -> ForeignTeacher | TimmTeacher:
        """The teacher; raises :class:`UserError` if it cannot be opened."""
        if self._teacher is None:
            with torch.random.fork_rng(devices=[]):
                self._teacher = open_any(self.text, self._classes, self._ids)
        return self._teacher

    def close(self) -> None:
        """Give its memory back; it is opened again if it is asked for again."""
        self._teacher = None

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_teacher": None}
