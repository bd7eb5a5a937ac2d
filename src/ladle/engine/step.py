"""One optimizer step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ladle.engine.checkpoint import Standing
from ladle.engine.meter import Meter
from ladle.engine.normalising import normalise
from ladle.engine.run import Loader, Run
from ladle.types import Batch

__all__ = ["learning_rate", "take_step", "windows"]


def windows(loader: Loader, accumulate: int) -> Iterator[list[Batch]]:
    """The batches of an epoch, ``accumulate`` at a time; the last window holds what is left."""
    batches = iter(loader)
    while window := list(islice(batches, accumulate)):
        yield window


def take_step(run: Run, standing: Standing, window: Sequence[Batch], meter: Meter) -> None:
    """Learn from a window of batches with one step of the optimizer, and count it in ``standing``."""
    standing.step += 1
    _tell_the_time(run.objective, standing.step / run.steps_per_epoch, standing.step)
    for number, batch in enumerate(window, start=1):
        _backward(run, standing, batch, len(window), last=number == len(window), meter=meter)
    norm = _gradient_norm(run)
    run.watch.note(standing.epoch, standing.step, sum((b.ids for b in window), ()), {"gradient_norm": norm})
    meter.add({"gradient_norm": norm})
    factor = run.settings.schedule.factor(standing.step - 1, run.steps)
    for group in run.optimizer.param_groups:
        group["lr"] = group["initial_lr"] * factor
    run.optimizer.step()
    run.optimizer.zero_grad()
    for name, average in (run.ema or {}).items():
        average.update(run.students[name])


def learning_rate(run: Run) -> float:
    """The learning rate of the step just taken: the largest of the groups."""
    return float(max(group["lr"] for group in run.optimizer.param_groups))


def _backward(run: Run, standing: Standing, batch: Batch, share: int, last: bool, meter: Meter) -> None:
    fabric, ids = run.fabric, batch.ids
    batch = batch.to(fabric.device, non_blocking=True)
    with fabric.no_backward_sync(run.module, enabled=not last):
        # Fabric's own precision plugin cannot walk a frozen dataclass, which a batch is.
        with torch.autocast(fabric.device.type, torch.bfloat16, enabled=run.settings.precision == "bf16"):
            terms = run.module(batch)
        loss, losses = normalise(terms, fabric)
        run.watch.note(standing.epoch, standing.step, ids, losses)
        run.silence.note(losses, getattr(run.objective, "given", ()), batch.truth)
        fabric.backward(loss / share)
    total = {"loss": torch.stack(list(losses.values())).sum()}
    meter.add(total | {f"loss/{name}": value for name, value in losses.items()} | _monitor(run.objective))


def _tell_the_time(objective: nn.Module, epoch: float, step: int) -> None:
    """Some of what an objective teaches comes and goes; the step about to be taken counts as done."""
    at = getattr(objective, "at", None)
    if at is not None:
        at(epoch, step)


def _monitor(objective: nn.Module) -> dict[str, Float[Tensor, ""]]:
    return dict(getattr(objective, "monitor", {}))


def _gradient_norm(run: Run) -> Float[Tensor, ""]:
    parameters = [parameter for group in run.optimizer.param_groups for parameter in group["params"]]
    if run.settings.clip is not None:
        return nn.utils.clip_grad_norm_(parameters, run.settings.clip)
    return nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
