"""The protocol of a teacher."""

from __future__ import annotations

from typing import Any, Protocol, TypeAlias, runtime_checkable

import torch

from ladle.distillers import Head
from ladle.networks import NetworkInfo
from ladle.types import Batch, Output, Priors, Pyramid

__all__ = ["Observation", "Teacher"]

Observation: TypeAlias = Any
"""What a teacher keeps of a batch between :meth:`Teacher.observe` and :meth:`Teacher.predict_at`, of any type."""


@runtime_checkable
class Teacher(Protocol):
    """A frozen network that predicts at the student's priors, or gives feature maps only.

    It must not be a ``torch.nn.Module`` that an objective would register, since it is never trained, saved with the
    student or wrapped for data parallelism. Its outputs have no gradient and the student's order of classes.

    Examples:
        >>> from ladle.families import detector_spec
        >>> from ladle.teachers import FrozenDetector, Teacher
        >>> isinstance(FrozenDetector(detector_spec("paa-tiny", ["cat"]).build(), ["cat"]), Teacher)
        True
    """

    @property
    def info(self) -> NetworkInfo:
        """Its stages, classes and feature maps."""
        ...

    @property
    def pyramid(self) -> Pyramid:
        """Channels and strides of its feature maps."""
        ...

    @property
    def head(self) -> Head | None:
        """The head of its last stage, for CrossKD; None if that has no towers."""
        ...

    def observe(self, batch: Batch) -> Observation:
        """Run the part of the network that needs no priors, once for a batch."""
        ...

    def predict_at(
        self,
        seen: Observation,
        priors: Priors,
        stage: int = 0,
        class_agnostic: bool = False,
        tower_depth: int | None = None,
    ) -> Output:
        """The predictions of its stage ``stage``, or its last one if it has fewer, at the student's ``priors``.

        With ``class_agnostic`` there is one score, "any object". With ``tower_depth`` the output also has the maps
        after so many convolutions of the towers of a dense head, see :class:`~ladle.distillers.CrossKD`.
        """
        ...

    def to(self, device: torch.device | str) -> Teacher:
        """Move to a device, in place."""
        ...
