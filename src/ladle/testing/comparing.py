"""Comparison of plans."""

from __future__ import annotations

import torch
from torch import Tensor

from ladle.testing.scenes import Scene
from ladle.types import Assignment

__all__ = ["assert_equal", "assert_same_plan"]


def assert_equal(first: Tensor, second: Tensor) -> None:
    """Assert that two tensors are equal, element by element."""
    assert torch.equal(first, second), f"{int((first != second).sum())} of {first.numel()} entries differ"


def assert_same_plan(first: Assignment, second: Assignment, scene: Scene) -> None:
    """Assert that two plans of one scene have equal affinities and background weights."""
    objects = scene[2].labels.shape[1]
    assert_equal(first.dense(objects), second.dense(objects))
    assert_equal(first.background, second.background)
