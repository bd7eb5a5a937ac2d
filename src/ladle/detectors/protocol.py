"""Protocols of a student and of its stages, as the training step uses them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from torch import Tensor

from ladle.types import GroundTruth, Output, Predictions, Priors

__all__ = ["DualStudent", "Stage", "Student", "Towers"]

Towers = tuple[tuple[Tensor, Tensor], ...]
"""The maps inside the class tower and the box tower of a dense head, level by level."""


@runtime_checkable
class Stage(Protocol):
    """One step from feature maps to predictions: a dense head, a proposal network, a region head.

    Calling it predicts at ``priors``; with ``tower_depth`` it also returns the maps of its towers after so many
    convolutions, if it has towers.
    """

    @property
    def classes(self) -> int:
        """The number of class scores."""
        ...

    @property
    def class_agnostic(self) -> bool:
        """Whether its one score means "any object", as in a proposal network."""
        ...

    @property
    def samples_first(self) -> bool:
        """Whether it predicts only at a sample of its priors in training, drawn before it is called."""
        ...

    def propose(
        self, features: Sequence[Tensor], previous: Output | None, truth: GroundTruth | None, sizes: Tensor | None
    ) -> Priors:
        """The priors of a batch; with ``truth``, as in training, a region head adds the objects to its proposals."""
        ...

    def __call__(
        self, features: Sequence[Tensor], priors: Priors, tower_depth: int | None = None
    ) -> tuple[Predictions, Towers | None]:
        """Predict at the priors."""
        ...


@runtime_checkable
class Student(Protocol):
    """A ``torch.nn.Module`` that the training step can train: feature maps, and stages that predict from them."""

    @property
    def chain(self) -> Sequence[Stage]:
        """The stages in order."""
        ...

    def extract_features(self, images: Tensor) -> tuple[Tensor, ...]:
        """The feature maps of images (B,3,H,W), bytes or floats in [0, 1], finest first."""
        ...


@runtime_checkable
class DualStudent(Student, Protocol):
    """A student that may have a one-to-one head beside its stages, which predicts at the priors of a dense head."""

    @property
    def one_to_one(self) -> Stage | None:
        """That head; None if there is none."""
        ...
