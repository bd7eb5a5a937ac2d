"""The training loop: epochs of steps, an evaluation, a save; the same on one device and on many."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from math import isnan
from pathlib import Path
from typing import NamedTuple

import torch
from lightning_fabric import Fabric
from torch import nn

from ladle.engine.checkpoint import Standing
from ladle.engine.meter import Meter
from ladle.engine.report import Reporter
from ladle.engine.run import Loader, Run, SaveStudent, prepare, save, take_up
from ladle.engine.settings import Settings
from ladle.engine.step import learning_rate, take_step, windows

__all__ = ["Evaluate", "Result", "fit"]

Evaluate = Callable[[nn.Module], Mapping[str, float]]
"""Scores a network in evaluation mode; "ap" in [0, 1], or nan, decides which weights are the best."""


class Result(NamedTuple):
    """How a run ended: the best AP and its epoch (None and 0 without evaluation), the last metrics, results.csv."""

    best_ap: float | None
    best_epoch: int
    metrics: dict[str, float]
    rows: list[dict[str, float | int]]
    seconds: float


def fit(
    fabric: Fabric,
    objective: nn.Module,
    loader: Loader,
    settings: Settings,
    folder: Path,
    evaluate: Evaluate | None,
    save_student: SaveStudent,
    resume: bool = False,
) -> Result:
    """Train ``objective.student`` and leave its weights, its logs and a resume file in ``folder``.

    ``objective(batch)`` gives named :class:`~ladle.types.Term`; scalars in its attribute ``monitor``, if it has one,
    are logged and never trained on. What it holds besides the student is trained along but not saved as weights.
    ``evaluate`` and ``save_student`` run on rank 0 alone. With ``resume`` the run goes on after the last epoch that
    ``folder/resume.pt`` knows, on the CPU bit for bit as if it had never stopped.

    Raises :class:`UserError` where the losses stop being finite, where the resume file does not fit, and where the
    loader is empty.
    """
    run = prepare(fabric, objective, loader, settings, folder)
    standing = take_up(run) if resume else Standing()
    with Reporter(run, standing.epoch) as reporter:
        while standing.epoch < settings.epochs and not _is_stuck(standing, settings.patience):
            started = time.monotonic()
            means = _train_epoch(run, standing, loader, reporter)
            metrics = _evaluate(run, standing, evaluate)
            best = _judge(standing, metrics)
            _close_epoch(standing, time.monotonic() - started, means | metrics)
            reporter.epoch(standing.rows[-1])
            save(run, standing, best, save_student)
        if standing.epoch < settings.epochs:
            reporter.note(f"stopped early: no AP above that of epoch {standing.best_epoch}")
    return Result(standing.best_ap, standing.best_epoch, standing.metrics, standing.rows, standing.seconds)


def _train_epoch(run: Run, standing: Standing, loader: Loader, reporter: Reporter) -> dict[str, float]:
    standing.epoch += 1
    loader.set_epoch(standing.epoch - 1)
    run.module.train()
    reporter.start_epoch(standing)
    meter = Meter(run.fabric)
    for window in windows(loader, run.settings.accumulate):
        take_step(run, standing, window, meter)
        reporter.count(sum(len(batch.ids) for batch in window))
        if standing.step % run.settings.log_every == 0:
            run.watch.look()
            reporter.step(standing, {"lr": learning_rate(run)} | meter.read())
    run.watch.look()
    meter.read()
    return {"lr": learning_rate(run)} | meter.means()


def _evaluate(run: Run, standing: Standing, evaluate: Evaluate | None) -> dict[str, float]:
    due = standing.epoch % run.settings.eval_every == 0 or standing.epoch == run.settings.epochs
    if evaluate is None or not due:
        return {}
    metrics: dict[str, float] = {}
    if run.fabric.is_global_zero:
        with torch.no_grad():
            metrics = {name: float(value) for name, value in evaluate(run.network.eval()).items()}
    metrics = run.fabric.broadcast(metrics)
    if "ap" not in metrics:
        raise ValueError(f'evaluate must give the average precision as "ap", but gave {sorted(metrics)}')
    return metrics


def _judge(standing: Standing, metrics: Mapping[str, float]) -> bool:
    """Keep the metrics in ``standing`` and say whether this AP is the best so far; the earlier of equals stays."""
    if not metrics:
        return False
    standing.metrics = dict(metrics)
    ap, best = metrics["ap"], standing.best_ap
    better = best is None or ap > best or (isnan(best) and not isnan(ap))
    if better:
        standing.best_ap, standing.best_epoch = ap, standing.epoch
    return better


def _close_epoch(standing: Standing, seconds: float, values: Mapping[str, float]) -> None:
    standing.seconds += seconds
    standing.rows.append({"epoch": standing.epoch, "step": standing.step, "seconds": round(seconds, 3)} | dict(values))


def _is_stuck(standing: Standing, patience: int | None) -> bool:
    judged = patience is not None and standing.best_epoch > 0
    return judged and standing.epoch - standing.best_epoch >= (patience or 0)
