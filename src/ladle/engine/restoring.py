"""Put kept states back into networks and optimizers, and refuse those of others before anything is changed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["UNFIT", "restore", "restore_optimizer"]

UNFIT = (RuntimeError, ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError, MemoryError)
"""What can be raised by a state that is another's or none at all."""
_FORMER = ("teachings.", "distillation.")
"""What the names of weights that distillers train began with, and begin with now."""
_PER_PARAMETER = {"exp_avg", "exp_avg_sq", "max_exp_avg_sq", "momentum_buffer"}
"""What optimizers keep in the shape of a parameter; anything else is a single number."""
_NEEDED: dict[type, set[str]] = {torch.optim.AdamW: {"step", "exp_avg", "exp_avg_sq"}}
"""What an optimizer does not do without."""


def restore(module: nn.Module, state: Mapping[str, Any]) -> None:
    """Load every parameter and buffer of ``module``; raises one of :data:`UNFIT` unless names, kinds and shapes fit."""
    state = {name.replace(*_FORMER) if name.startswith(_FORMER[0]) else name: kept for name, kept in state.items()}
    for name, own in module.state_dict().items():
        _check(name, own, state[name])
    module.load_state_dict(state)


def restore_optimizer(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Load what ``optimizer`` knows of each parameter; raises one of :data:`UNFIT` unless it had the same settings.

    Learning rates are no settings: the schedule sets them before every step.
    """
    groups = optimizer.state_dict()["param_groups"]
    for ours, theirs in zip(groups, state["param_groups"], strict=True):
        differing = [name for name in ours.keys() & theirs.keys() - {"lr"} if ours[name] != theirs[name]]
        if differing:
            raise ValueError(f"{differing[0]} is {theirs[differing[0]]}, not {ours[differing[0]]}")
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for number, kept in state["state"].items():
        missing = _NEEDED.get(type(optimizer), set()) - kept.keys()
        if missing:
            raise KeyError(missing.pop())
        for name, value in kept.items():
            if value is not None:
                _check(name, parameters[number] if name in _PER_PARAMETER else torch.zeros(()), value)
    optimizer.load_state_dict({"state": state["state"], "param_groups": groups})


def _check(name: str, own: Tensor, kept: Tensor) -> None:
    same = own.shape == kept.shape and own.dtype == kept.dtype and kept.layout is torch.strided
    if not same:
        raise ValueError(f"{name} is {kept.dtype} of shape {tuple(kept.shape)}")
