"""Restore saved states of networks and optimizers; states that do not fit are rejected before any change."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["UNFIT", "restore", "restore_optimizer"]

UNFIT = (RuntimeError, ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError, MemoryError)
"""Exceptions that a state of another network, or a damaged one, can raise."""
_FORMER = {
    "teachings.": "distillation.",
    ".own_context.": ".student_context.",
    ".guide_context.": ".teacher_context.",
}
"""Former parts of the names of weights that distillers train, and their present ones."""
_PER_PARAMETER = {"exp_avg", "exp_avg_sq", "max_exp_avg_sq", "momentum_buffer"}
"""What optimizers keep in the shape of a parameter; anything else is a single number."""
_FREE = {"lr", "fused", "foreach"}
"""The settings of an optimizer that may differ from the saved ones."""
_NEEDED: dict[type, set[str]] = {torch.optim.AdamW: {"step", "exp_avg", "exp_avg_sq"}}
"""Entries that an optimizer needs for each parameter."""


def restore(module: nn.Module, state: Mapping[str, Any]) -> None:
    """Load every parameter and buffer of ``module``; raises one of :data:`UNFIT` unless names, kinds and shapes fit."""
    state = {_renamed(name): kept for name, kept in state.items()}
    for name, value in module.state_dict().items():
        _check(name, value, state[name])
    module.load_state_dict(state)


def restore_optimizer(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Load the state of each parameter; raises one of :data:`UNFIT` if the settings differ.

    Learning rates may differ, since the schedule sets them before every step, and so may the implementation, which
    depends on the device.
    """
    groups = optimizer.state_dict()["param_groups"]
    for group, saved in zip(groups, state["param_groups"], strict=True):
        differing = [name for name in group.keys() & saved.keys() - _FREE if group[name] != saved[name]]
        if differing:
            raise ValueError(f"{differing[0]} is {saved[differing[0]]}, not {group[differing[0]]}")
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for number, kept in state["state"].items():
        missing = _NEEDED.get(type(optimizer), set()) - kept.keys()
        if missing:
            raise KeyError(missing.pop())
        for name, value in kept.items():
            if value is not None:
                _check(name, parameters[number] if name in _PER_PARAMETER else torch.zeros(()), value)
    optimizer.load_state_dict({"state": state["state"], "param_groups": groups})


def _renamed(name: str) -> str:
    if not name.startswith(("teachings.", "distillation.")):
        return name
    for former, now in _FORMER.items():
        name = name.replace(former, now)
    return name


def _check(name: str, value: Tensor, kept: Tensor) -> None:
    same = value.shape == kept.shape and value.dtype == kept.dtype and kept.layout is torch.strided
    if not same:
        raise ValueError(f"{name} is {kept.dtype} of shape {tuple(kept.shape)}")
