"""What it means to be a distiller."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from ladle.types import Assignment, GroundTruth, Output, Term

__all__ = ["Distiller"]


@runtime_checkable
class Distiller(Protocol):
    """A loss between two outputs at the same priors; its laws stand in ``ladle.testing``."""

    def __call__(
        self, student: Output, teacher: Output, truth: GroundTruth, assignment: Assignment, /
    ) -> dict[str, Term]:
        """Terms to add to the student's own; no gradient reaches the teacher, invalid priors cost nothing."""
        ...
