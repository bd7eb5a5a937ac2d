"""The training loop: epochs of steps, an evaluation, a save; the same on one device and on many."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from math import isnan
from pathlib import Path
from typing import NamedTuple

import torch
from lightning_fabric import Fabric
from torch import nn

from ladle.engine.checkpoint import Standing
from ladle.engine.meter import Meter
from ladle.engine.report import Reporter
from ladle.engine.run import Loader, Run, SaveStudent, prefix, prepare, save, take_up
from ladle.engine.settings import Settings
from ladle.engine.step import learning_rate, take_step, windows

__all__ = ["Evaluate", "Result", "fit"]

Evaluate = Callable[[nn.Module], Mapping[str, float]]
"""Scores a network in evaluation mode; "ap" in [0, 1], or nan, decides which weights are the best."""


class Result(NamedTuple):
    """How a run ended: each student's best AP and its epoch (none without evaluation), last metrics, results.csv."""

    best_ap: dict[str, float]
    best_epoch: dict[str, int]
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
    """Train an :class:`~ladle.engine.Objective`; leave its students' weights, logs and a resume file in ``folder``.

    What it holds besides its students is trained along but not saved as weights. ``evaluate`` and ``save_student`` run
    on rank 0 alone. With ``resume`` the run goes on after the last epoch that ``folder/resume.pt`` knows, on the CPU
    bit for bit as if it had never stopped.

    Raises :class:`UserError` where the losses stop being finite or are not heard, where the resume file does not fit,
    and where the loader is empty.
    """
    run = prepare(fabric, objective, loader, settings, folder)
    standing = take_up(run, save_student) if resume else Standing()
    with Reporter(run, standing.epoch) as reporter:
        if standing.epoch >= settings.epochs:
            reporter.note(f"finished: all {standing.epoch} epochs are done, nothing to train; give --epochs N to go on")
        while standing.epoch < settings.epochs and not _is_stuck(standing, settings.patience):
            started = time.monotonic()
            means = _train_epoch(run, standing, loader, reporter)
            metrics = _evaluate(run, standing, evaluate)
            better = _judge(standing, metrics, run.students)
            _close_epoch(standing, time.monotonic() - started, means | metrics)
            reporter.epoch(standing.rows[-1])
            save(run, standing, better, save_student)
        if standing.epoch < settings.epochs:
            best = max(standing.best_epoch.values())
            reporter.note(f"stopped early: no AP above that of epoch {best}; resume it with more --patience to go on")
    return Result(standing.best_ap, standing.best_epoch, standing.metrics, list(standing.rows), standing.seconds)


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
            run.silence.listen()
            reporter.step(standing, {"lr": learning_rate(run)} | meter.read())
    run.watch.look()
    run.silence.listen()
    meter.read()
    return {"lr": learning_rate(run)} | meter.means()


def _evaluate(run: Run, standing: Standing, evaluate: Evaluate | None) -> dict[str, float]:
    due = standing.epoch % run.settings.eval_every == 0 or standing.epoch == run.settings.epochs
    if evaluate is None or not due:
        return {}
    metrics: dict[str, float] = {}
    if run.fabric.is_global_zero:
        with torch.no_grad():
            for student, network in run.networks.items():
                scores = evaluate(network.eval())
                metrics |= {prefix(student, "/") + name: float(value) for name, value in scores.items()}
    metrics = run.fabric.broadcast(metrics)
    if not all(prefix(student, "/") + "ap" in metrics for student in run.students):
        raise ValueError(f'evaluate must give the average precision as "ap", but gave {sorted(metrics)}')
    return metrics


def _judge(standing: Standing, metrics: Mapping[str, float], students: Iterable[str]) -> list[str]:
    """Keep the metrics in ``standing`` and say whose AP is the best so far; the earlier of equals stays."""
    if not metrics:
        return []
    standing.metrics = dict(metrics)
    better = []
    for student in students:
        ap, best = metrics[prefix(student, "/") + "ap"], standing.best_ap.get(student)
        if best is None or ap > best or (isnan(best) and not isnan(ap)):
            standing.best_ap[student], standing.best_epoch[student] = ap, standing.epoch
            better.append(student)
    return better


def _close_epoch(standing: Standing, seconds: float, values: Mapping[str, float]) -> None:
    standing.seconds += seconds
    row: dict[str, float | int] = {"epoch": standing.epoch, "step": standing.step, "seconds": round(seconds, 3)}
    standing.rows += (row | dict(values),)


def _is_stuck(standing: Standing, patience: int | None) -> bool:
    if patience is None or not standing.best_epoch:
        return False
    return standing.epoch - max(standing.best_epoch.values()) >= patience
