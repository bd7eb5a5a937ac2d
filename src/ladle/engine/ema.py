"""A running average of the trained network."""

from __future__ import annotations

import math
from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import torch
from torch import nn

from ladle.engine.restoring import restore

__all__ = ["Ema"]


class Ema:
    """An exponential moving average of a network's parameters; buffers such as batch-norm statistics are copied.

    The decay after t updates is ``decay * (1 - exp(-t / tau))``: early on the average follows the network closely, so
    that the initial weights have little influence. ``module`` is the averaged network, without gradients and in
    evaluation mode.
    """

    def __init__(self, network: nn.Module, decay: float, tau: float) -> None:
        self.decay = decay
        self.tau = tau
        self.updates = 0
        self.module = deepcopy(network).requires_grad_(False).eval()

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Move the average towards ``network`` by one step."""
        self.updates += 1
        decay = self.decay * (1 - math.exp(-self.updates / self.tau))
        torch._foreach_lerp_(list(self.module.parameters()), list(network.parameters()), 1 - decay)
        for average, current in zip(self.module.buffers(), network.buffers(), strict=True):
            average.copy_(current)

    def state_dict(self) -> dict[str, Any]:
        """Return the averaged weights and the number of updates."""
        return {"updates": self.updates, "module": self.module.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from what :meth:`state_dict` gave."""
        restore(self.module, state["module"])
        self.updates = int(state["updates"])
