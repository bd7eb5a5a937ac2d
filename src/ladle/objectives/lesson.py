"""What one stage of a detector is taught."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from ladle.assigners import Assigner
from ladle.distillers import Distiller
from ladle.types import Assignment, GroundTruth, Output, Term

__all__ = ["Criterion", "Lesson"]


@runtime_checkable
class Criterion(Protocol):
    """The losses of an output under an assignment."""

    def __call__(self, output: Output, truth: GroundTruth, assignment: Assignment, /) -> dict[str, Term]:
        """Terms by name, each still to be normalised."""
        ...


@dataclass(frozen=True)
class Lesson:
    """Which prior learns which object, what that costs, and what else the teacher teaches.

    Without a ``criterion`` the objects serve the distillers alone: learning from the teacher without ground truth.
    """

    assign: Assigner
    criterion: Criterion | None
    distillers: tuple[Distiller, ...] = ()
