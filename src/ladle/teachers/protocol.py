"""What it means to be a teacher."""

from __future__ import annotations

from typing import Any, Protocol, TypeAlias, runtime_checkable

import torch

from ladle.distillers import Head
from ladle.networks import NetworkInfo
from ladle.types import Batch, Output, Priors, Pyramid

__all__ = ["Observation", "Teacher"]

Observation: TypeAlias = Any
"""What a teacher keeps of a batch between :meth:`Teacher.observe` and :meth:`Teacher.predict_at`; its own business."""


@runtime_checkable
class Teacher(Protocol):
    """A network that no longer learns: it predicts at the student's priors, or shows its feature maps.

    It is no ``torch.nn.Module`` that an objective could register: it must never be trained, saved with the student or
    wrapped for data parallelism. All its answers are without gradient, with classes in the student's order.

    Example:
        >>> from ladle.families import detector_spec
        >>> from ladle.teachers import FrozenDetector, Teacher
        >>> isinstance(FrozenDetector(detector_spec("paa-tiny", ["cat"]).build(), ["cat"]), Teacher)
        True
    """

    @property
    def info(self) -> NetworkInfo:
        """What it predicts and what its feature maps are like."""
        ...

    @property
    def pyramid(self) -> Pyramid:
        """What its feature maps are like."""
        ...

    @property
    def head(self) -> Head | None:
        """The head of its last stage, to be entered half-way; None where that cannot be done."""
        ...

    def observe(self, batch: Batch) -> Observation:
        """Run it on the images of a batch, once, as far as no priors are needed."""
        ...

    def predict_at(
        self,
        seen: Observation,
        priors: Priors,
        stage: int = 0,
        class_agnostic: bool = False,
        tower_depth: int | None = None,
    ) -> Output:
        """What its stage ``stage``, or its last if it has fewer, predicts at the student's ``priors``.

        With ``class_agnostic`` the student's stage has one score, "any object". ``tower_depth`` also asks for the maps
        after so many convolutions of the towers of a dense head, see :class:`~ladle.distillers.CrossKD`.
        """
        ...

    def to(self, device: torch.device | str) -> Teacher:
        """Move to a device, in place."""
        ...
