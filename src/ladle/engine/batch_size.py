"""The largest batch that the memory of a device holds, found by trial steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from lightning_fabric import Fabric
from torch import nn

from ladle.device import fits_memory
from ladle.engine.checkpoint import TrainState
from ladle.engine.metrics import MetricTracker
from ladle.engine.run import Run, prepare
from ladle.engine.settings import Settings
from ladle.engine.step import take_step
from ladle.types import Batch

__all__ = ["grow", "largest_batch"]

_HALVED = 8
"""From this number of images on the number halfway to the next power of two is tried too."""


def largest_batch(
    fabric: Fabric, objective: nn.Module, batch_of: Callable[[int], Batch], settings: Settings, most: int
) -> int:
    """The number of images of a batch, up to ``most``, that a training step has memory for; 0 if there is none.

    Steps are whole: losses, gradients, optimizer, running average. The weights of ``objective`` are worthless
    afterwards. ``batch_of`` makes a batch of a number of images; the largest that can occur decides.
    """
    with TemporaryDirectory() as folder:
        run = prepare(fabric, objective, _OneBatch(batch_of(1)), settings, Path(folder))
        run.module.train()
        return grow(lambda count: fits_memory(partial(_take_steps, run, batch_of, count), fabric.device), most)


def grow(fits: Callable[[int], bool], most: int) -> int:
    """The largest of 1, 2, 4, 8, 12, 16, 24, ... up to ``most`` that fits; 0 if none does.

    Examples:
        >>> from ladle.engine.batch_size import grow
        >>> grow(lambda count: count <= 30, most=4096), grow(lambda count: count <= 30, most=20)
        (24, 16)
    """
    best, count = 0, 1
    while count <= most and fits(count):
        best, count = count, 2 * count
    between = 3 * best // 2
    return between if _HALVED <= best < between <= most and fits(between) else best


def _take_steps(run: Run, batch_of: Callable[[int], Batch], count: int) -> None:
    """Two steps: the second finds the memory of the optimizer taken."""
    run.optimizer.zero_grad()  # what a step without enough memory has left
    for _ in range(2):
        take_step(run, TrainState(), [batch_of(count)], MetricTracker(run.fabric))


class _OneBatch:
    """A loader of one batch."""

    def __init__(self, batch: Batch) -> None:
        self._batch = batch

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[Batch]:
        yield self._batch

    def set_epoch(self, epoch: int) -> None:
        """Every epoch is the same."""
