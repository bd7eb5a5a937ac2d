"""A job with everything opened that it needs."""

from __future__ import annotations

from typing import NamedTuple

import torch

from ladle.data.loader import default_workers
from ladle.data.sources import Source
from ladle.recipes.devices import find_device
from ladle.recipes.jobs import Job
from ladle.recipes.options import Run
from ladle.recipes.parts import Parts
from ladle.recipes.preflight import load_teacher
from ladle.recipes.scoring import Evaluator
from ladle.recipes.setup import Setup
from ladle.teachers import FrozenDetector

__all__ = ["Prepared", "workers_of"]

_MORE_WITHOUT_GRADIENTS = 2
"""How many times as many images an evaluation takes at once on a GPU as a training step, which keeps its maps."""


class Prepared(NamedTuple):
    """A job with its images opened and its students resolved.

    ``images`` are the training images with labels. ``views`` are the training images as the loader reads them: with
    what a foreign teacher recorded for them, or with further ones without labels, about which there are lines.
    """

    job: Job
    parts: Parts
    setup: Setup
    images: Source
    views: Source
    val: Source
    notes: list[str]
    resumed: bool
    about_unlabelled: tuple[str, ...] = ()

    def evaluator(self) -> Evaluator:
        """Evaluates on the validation images."""
        run = self.job.run
        pin = find_device(run.device) != "cpu"
        batch = run.val_batch or run.batch_size * (_MORE_WITHOUT_GRADIENTS if pin else 1)
        return Evaluator(self.val, self.setup.imgsz, batch, workers_of(run), pin=pin)

    def judge(self, name: str, device: torch.device) -> FrozenDetector | None:
        """The teacher that judges for a student, if it is a detector of Ladle's that predicts at the same priors."""
        plan, given, file = self.setup.plans[name], self.parts.teacher, self.job.teacher_file
        if plan.lessons[0].judge is None:
            return None
        found = given if given is not None or file is None else load_teacher(file, self.setup.specs[name], plan)
        return found.to(device) if isinstance(found, FrozenDetector) else None


def workers_of(run: Run) -> int:
    """The number of processes that load images for a run."""
    if run.workers is not None:
        return run.workers
    return default_workers(find_device(run.device), run.devices)
