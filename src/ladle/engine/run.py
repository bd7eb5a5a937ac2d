"""The parts of a run, and how they are saved and resumed."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import partial
from math import ceil
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from lightning_fabric import Fabric
from lightning_fabric.wrappers import _FabricModule
from torch import nn

from ladle.engine.balance import Balancer
from ladle.engine.checkpoint import Checkpoint, TrainState, load_checkpoint, save_checkpoint
from ladle.engine.ema import Ema
from ladle.engine.log import write_results
from ladle.engine.non_finite import NonFiniteGuard
from ladle.engine.objective import Objective, as_objective
from ladle.engine.processes import gather
from ladle.engine.randomness import random_state, restore_random_state, seed_everything
from ladle.engine.restoring import UNFIT, restore, restore_optimizer
from ladle.engine.settings import Settings
from ladle.engine.zero_loss import ZeroLossGuard
from ladle.errors import UserError
from ladle.files import write_atomically
from ladle.types import Batch

__all__ = ["Loader", "Run", "SaveStudent", "prefix", "prepare", "save", "take_up"]

SaveStudent = Callable[[nn.Module, Path], None]
"""Writes a student's weights to a path."""

RESUME = "resume.pt"
"""The resume file; weights and results.csv are restored from it."""
ONLY = "student"
"""The name of a single student of an objective."""


@runtime_checkable
class Loader(Protocol):
    """Batches of one rank, equally many on each; their order is a function of the epoch and the global seeds."""

    def __len__(self) -> int:
        """The number of batches in an epoch."""

    def __iter__(self) -> Iterator[Batch]:
        """One epoch of batches."""

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the epoch (from 0) that is about to start."""


@dataclass(frozen=True)
class Run:
    """The parts of a run that do not change from step to step.

    ``module`` is ``objective`` as the strategy wrapped it: call that one, so that gradients are averaged over
    ranks. ``typed_objective`` is ``objective`` as the protocol that the loop calls.
    """

    fabric: Fabric
    objective: nn.Module
    typed_objective: Objective
    module: _FabricModule
    optimizer: torch.optim.Optimizer
    balancer: Balancer | None
    ema: dict[str, Ema] | None
    settings: Settings
    steps_per_epoch: int
    non_finite: NonFiniteGuard
    zero_loss: ZeroLossGuard
    folder: Path

    @property
    def students(self) -> dict[str, nn.Module]:
        """The networks as they are trained."""
        return dict(self.typed_objective.students.items())

    @property
    def networks(self) -> dict[str, nn.Module]:
        """The networks that are evaluated and saved: the students or their running averages."""
        return {name: average.module for name, average in self.ema.items()} if self.ema else self.students

    @property
    def steps(self) -> int:
        """The number of optimizer steps from the first epoch to the last."""
        return self.steps_per_epoch * self.settings.epochs


def prefix(student: str, joint: str) -> str:
    """The prefix of the names of a student's metrics and files; empty for a single student."""
    return "" if student == ONLY else student + joint


def prepare(fabric: Fabric, objective: nn.Module, loader: Loader, settings: Settings, folder: Path) -> Run:
    """Seed, move ``objective`` to its device, and build optimizer, averages and guards."""
    lengths = gather(fabric, len(loader))
    if min(lengths) == 0:
        raise UserError("an epoch has no batch: there are fewer training images than one --batch; make it smaller")
    if len(set(lengths)) > 1:
        raise ValueError(f"every rank needs the same number of batches, but they have {lengths}")
    (folder / "weights").mkdir(parents=True, exist_ok=True)
    seed_everything(settings.seed + fabric.global_rank)
    module = fabric.setup(objective)
    typed, averages = as_objective(objective), None
    if settings.ema is not None:
        averages = {name: Ema(one, settings.ema, settings.ema_tau) for name, one in typed.students.items()}
    return Run(
        fabric=fabric,
        objective=objective,
        typed_objective=typed,
        module=module,
        optimizer=settings.optimizer.build(objective),
        balancer=_balancer(objective, settings),
        ema=averages,
        settings=settings,
        steps_per_epoch=ceil(len(loader) / settings.accumulate),
        non_finite=NonFiniteGuard(fabric, folder),
        zero_loss=ZeroLossGuard(fabric),
        folder=folder,
    )


def _balancer(objective: nn.Module, settings: Settings) -> Balancer | None:
    if settings.balance == "none" and not settings.weighed:
        return None
    return Balancer(objective, settings.optimizer, settings.balance, settings.balance_share, bool(settings.weighed))


def save(run: Run, state: TrainState, better: Collection[str], save_student: SaveStudent) -> None:
    """Write the resume file, which completes the epoch, and then weights and results, which it can restore.

    ``better`` names the students whose AP is their best so far.
    """
    states = gather(run.fabric, random_state(run.fabric.device))
    if run.fabric.is_global_zero:
        checkpoint = Checkpoint(
            state=state,
            steps_per_epoch=run.steps_per_epoch,
            objective=run.objective.state_dict(),
            optimizer=run.optimizer.state_dict(),
            ema={name: average.state_dict() for name, average in run.ema.items()} if run.ema else None,
            random=states,
            balancer=run.balancer.state_dict() if run.balancer is not None else None,
        )
        save_checkpoint(checkpoint, run.folder / RESUME)
        _save_the_rest(run, state, better, save_student)
    run.fabric.barrier()


def take_up(run: Run, save_student: SaveStudent) -> TrainState:
    """Restore a run from its resume file, also weights and results that :func:`save` could not write; return its state.

    If the best weights are missing, those of the last epoch take their place. If the run had fewer ranks, a rank
    without a saved random state keeps its new seed.
    """
    path = run.folder / RESUME
    checkpoint = load_checkpoint(path)
    _check(run, checkpoint, path)
    try:
        restore(run.objective, checkpoint.objective)
        restore_optimizer(run.optimizer, checkpoint.optimizer)
        if run.balancer is not None:
            run.balancer.load_state_dict(checkpoint.balancer or {})
        for name, average in (run.ema or {}).items():
            average.load_state_dict((checkpoint.ema or {})[name])
        if run.fabric.global_rank < len(checkpoint.random):
            restore_random_state(checkpoint.random[run.fabric.global_rank], run.fabric.device)
    except UNFIT as error:
        raise UserError(
            f"{path}: expected the state of this student and optimizer, found another's; resume with the flags it was "
            "started with"
        ) from error
    state = checkpoint.state
    missing = [name for name in state.best_epoch if not _weights(run, name, "best").exists()]
    for student in run.fabric.broadcast(missing):
        # The best weights are lost: those of the last epoch take their place.
        state.best_ap[student] = float(state.rows[-1].get(prefix(student, "/") + "ap", math.nan))
        state.best_epoch[student] = state.epoch
    if run.fabric.is_global_zero:
        last = [name for name, epoch in state.best_epoch.items() if epoch == state.epoch]
        _save_the_rest(run, state, last, save_student)
    run.fabric.barrier()
    return state


def _save_the_rest(run: Run, state: TrainState, better: Collection[str], save_student: SaveStudent) -> None:
    """Write the weights and results.csv, unless the files are already the same."""
    for student, network in run.networks.items():
        for name in ("best", "last") if student in better else ("last",):
            write_atomically(_weights(run, student, name), partial(save_student, network), only_changes=True)
    write_results(run.folder / "results.csv", state.rows)


def _weights(run: Run, student: str, name: str) -> Path:
    return run.folder / "weights" / f"{prefix(student, '-')}{name}.safetensors"


def _check(run: Run, checkpoint: Checkpoint, path: Path) -> None:
    """Raise :class:`UserError` if a checkpoint is of another run."""
    state, steps = checkpoint.state, checkpoint.steps_per_epoch
    if steps != run.steps_per_epoch:
        raise UserError(
            f"{path}: expected {run.steps_per_epoch} steps an epoch, found {steps}; "
            "resume with the --data, --batch and --device it was started with"
        )
    if (checkpoint.ema is None) != (run.ema is None):
        raise UserError(
            f"{path}: expected a run {'with' if run.ema else 'without'} a running average, found one "
            f"{'without' if run.ema else 'with'}; resume with the --ema it was started with"
        )
    if (checkpoint.balancer is None) != (run.balancer is None):
        raise UserError(f"{path}: this run was started with another --balance; resume with that")
    counted = state.epoch == len(state.rows) >= 1 and state.step == state.epoch * steps
    judged = state.best_ap.keys() == state.best_epoch.keys() <= run.students.keys()
    if not counted or not judged or any(not 1 <= epoch <= state.epoch for epoch in state.best_epoch.values()):
        raise UserError(f"{path}: its counts of epochs, steps and students contradict each other; start the run anew")
