"""One optimizer step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ladle.engine.checkpoint import TrainState
from ladle.engine.metrics import MetricTracker
from ladle.engine.normalizing import normalize, normalize_apart
from ladle.engine.run import Loader, Run
from ladle.types import Batch, Term

__all__ = ["learning_rate", "take_step", "windows"]


def windows(loader: Loader, accumulate: int) -> Iterator[list[Batch]]:
    """The batches of an epoch, ``accumulate`` at a time; the last window holds what is left."""
    batches = iter(loader)
    while window := list(islice(batches, accumulate)):
        yield window


def take_step(run: Run, state: TrainState, window: Sequence[Batch], tracker: MetricTracker) -> None:
    """Take one optimizer step on a window of batches, and count it in ``state``."""
    state.step += 1
    run.typed_objective.set_time(state.step / run.steps_per_epoch, state.step)
    for number, batch in enumerate(window, start=1):
        moved = batch.to(run.fabric.device, non_blocking=True)
        # A balancer averages over ranks itself, since one forward pass has two gradients.
        no_sync = number < len(window) or run.balancer is not None
        with run.fabric.no_backward_sync(run.module, enabled=no_sync):
            # Fabric's precision plugin cannot convert a frozen dataclass, which a batch is.
            with torch.autocast(moved.images.device.type, torch.bfloat16, enabled=run.settings.precision == "bf16"):
                terms = run.module(moved)
            losses = _backward(run, state, moved, terms, len(window))
        total = {"loss": torch.stack(list(losses.values())).sum()}
        tracker.add(total | {f"loss/{name}": one for name, one in losses.items()} | run.typed_objective.monitor)
    norms = run.balancer.settle(run.fabric, run.settings.clip) if run.balancer is not None else {}
    norms = {"gradient_norm": _gradient_norm(run)} | norms
    run.non_finite.note(state.epoch, state.step, sum((b.ids for b in window), ()), norms)
    tracker.add(norms)
    _update(run, run.settings.schedule.factor(state.step - 1, run.steps))


def _update(run: Run, factor: float) -> None:
    """Move the weights and their running averages, at ``factor`` times the initial learning rates."""
    for group in run.optimizer.param_groups:
        group["lr"] = group["initial_lr"] * factor
    run.optimizer.step()
    run.optimizer.zero_grad()
    if run.balancer is not None:
        run.balancer.step(factor)
    for name, average in (run.ema or {}).items():
        average.update(run.students[name])


def learning_rate(run: Run) -> float:
    """The learning rate of the step just taken: the largest of the groups."""
    return float(max(group["lr"] for group in run.optimizer.param_groups))


def _backward(
    run: Run, state: TrainState, batch: Batch, terms: dict[str, Term], share: int
) -> dict[str, Float[Tensor, ""]]:
    """Add the gradients of a batch, one of ``share`` in a step; returns its losses by name."""
    fabric, distilled_names = run.fabric, run.typed_objective.distilled
    distilled: Tensor | None = None
    apart = frozenset(run.settings.weighed) or distilled_names
    if run.balancer is not None and terms.keys() & apart and terms.keys() - apart:
        loss, distilled, losses = normalize_apart(terms, apart, fabric)
        if run.balancer.weight is not None:
            weight = run.balancer.weight.value
            distilled, losses = (
                distilled * weight,
                losses | {name: weight * losses[name] for name in losses.keys() & apart},
            )
    else:
        loss, losses = normalize(terms, fabric)
    run.non_finite.note(state.epoch, state.step, batch.ids, losses)
    run.zero_loss.note(losses, distilled_names, batch.truth)
    fabric.backward(loss / share, retain_graph=distilled is not None)
    if run.balancer is not None and distilled is not None:
        run.balancer.collect(distilled / share)
    return losses


def _gradient_norm(run: Run) -> Float[Tensor, ""]:
    parameters = [parameter for group in run.optimizer.param_groups for parameter in group["params"]]
    if run.settings.clip is not None:
        return nn.utils.clip_grad_norm_(parameters, run.settings.clip)
    return nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
