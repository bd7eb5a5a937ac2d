"""A job with everything opened that it needs."""

from __future__ import annotations

from typing import NamedTuple

from ladle.data.loader import default_workers
from ladle.data.sources import Source
from ladle.recipes.devices import find_device
from ladle.recipes.jobs import Job
from ladle.recipes.options import Run
from ladle.recipes.parts import Parts
from ladle.recipes.scoring import Evaluator
from ladle.recipes.setup import Setup

__all__ = ["Prepared", "workers_of"]

_MORE_WITHOUT_GRADIENTS = 2
"""How many times as many images an evaluation takes at once on a GPU as a training step, which keeps its maps."""


class Prepared(NamedTuple):
    """A job with its images opened and its students resolved."""

    job: Job
    parts: Parts
    setup: Setup
    images: Source
    val: Source
    notes: list[str]
    resumed: bool

    def evaluator(self) -> Evaluator:
        """Evaluates on the validation images."""
        run = self.job.run
        pin = find_device(run.device) != "cpu"
        batch = run.val_batch or run.batch_size * (_MORE_WITHOUT_GRADIENTS if pin else 1)
        return Evaluator(self.val, self.setup.imgsz, batch, workers_of(run), pin=pin)


def workers_of(run: Run) -> int:
    """The number of processes that load images for a run."""
    if run.workers is not None:
        return run.workers
    return default_workers(find_device(run.device), run.devices)
