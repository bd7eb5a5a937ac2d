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

from ladle.engine.checkpoint import TrainState
from ladle.engine.metrics import MetricTracker
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
    """Train an :class:`~ladle.engine.Objective`; write its students' weights, logs and a resume file to ``folder``.

    Other parameters of the objective are trained too, but not saved as weights. ``evaluate`` and ``save_student`` run
    on rank 0 only. With ``resume`` the run continues after the last epoch in ``folder/resume.pt``, on the CPU bit for
    bit as without the interruption.

    Raises :class:`UserError` if a loss is not finite, if a distillation loss is always 0, if the resume file does not
    fit, and if the loader is empty.
    """
    run = prepare(fabric, objective, loader, settings, folder)
    state = take_up(run, save_student) if resume else TrainState()
    with Reporter(run, state.epoch, state.step) as reporter:
        if state.epoch >= settings.epochs:
            reporter.note(f"finished: all {state.epoch} epochs are done, nothing to train; give --epochs N to go on")
            if state.epoch and not state.best_epoch:  # it was stopped before its first evaluation
                metrics = _evaluate(run, state, evaluate)
                better = _judge(state, metrics, run.students)
                state.rows = (*state.rows[:-1], state.rows[-1] | metrics)
                save(run, state, better, save_student)
        while state.epoch < settings.epochs and not _is_stuck(state, settings):
            started = time.monotonic()
            means = _train_epoch(run, state, loader, reporter)
            metrics = _evaluate(run, state, evaluate)
            better = _judge(state, metrics, run.students)
            _close_epoch(state, time.monotonic() - started, means | metrics)
            reporter.epoch(state.rows[-1])
            save(run, state, better, save_student)
        if state.epoch < settings.epochs:
            best = max(state.best_epoch.values())
            reporter.note(f"stopped early: no AP above that of epoch {best}; resume it with more --patience to go on")
    return Result(state.best_ap, state.best_epoch, state.metrics, list(state.rows), state.seconds)


def _train_epoch(run: Run, state: TrainState, loader: Loader, reporter: Reporter) -> dict[str, float]:
    state.epoch += 1
    loader.set_epoch(state.epoch - 1)
    run.module.train()
    reporter.start_epoch(state)
    tracker = MetricTracker(run.fabric)
    for window in reporter.waiting(windows(loader, run.settings.accumulate)):
        take_step(run, state, window, tracker)
        reporter.count(sum(len(batch.ids) for batch in window))
        if state.step % run.settings.log_every == 0:
            run.non_finite.check()
            run.zero_loss.check()
            reporter.step(state, {"lr": learning_rate(run)} | tracker.read())
    run.non_finite.check()
    run.zero_loss.check()
    tracker.read()
    return {"lr": learning_rate(run)} | tracker.means()


def _evaluate(run: Run, state: TrainState, evaluate: Evaluate | None) -> dict[str, float]:
    due = state.epoch % run.settings.eval_every == 0 or state.epoch == run.settings.epochs
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


def _judge(state: TrainState, metrics: Mapping[str, float], students: Iterable[str]) -> list[str]:
    """Store the metrics in ``state``; return the students whose AP is their best so far, ties excluded."""
    if not metrics:
        return []
    state.metrics = dict(metrics)
    better = []
    for student in students:
        ap, best = metrics[prefix(student, "/") + "ap"], state.best_ap.get(student)
        # As long as no AP is known, since nothing can be found in the images, the latest weights are the best.
        if best is None or ap > best or isnan(best):
            state.best_ap[student], state.best_epoch[student] = ap, state.epoch
            better.append(student)
    return better


def _close_epoch(state: TrainState, seconds: float, values: Mapping[str, float]) -> None:
    state.seconds += seconds
    row: dict[str, float | int] = {"epoch": state.epoch, "step": state.step, "seconds": round(seconds, 3)}
    state.rows += (row | dict(values),)


def _is_stuck(state: TrainState, settings: Settings) -> bool:
    """Whether an evaluation has just shown that no AP has grown for as many epochs as the patience has."""
    if settings.patience is None or not state.best_epoch or state.epoch % settings.eval_every:
        return False
    return state.epoch - max(state.best_epoch.values()) >= settings.patience
