"""A running average of the trained network."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from torch import nn

from ladle.averaging import move_average
from ladle.engine.restoring import restore

__all__ = ["Ema"]


class Ema:
    """An exponential moving average of a network's parameters; buffers such as batch-norm statistics are copied.

    See :func:`~ladle.averaging.move_average`. ``module`` is the averaged network, without gradients and in evaluation
    mode.
    """

    def __init__(self, network: nn.Module, decay: float, tau: float) -> None:
        self.decay = decay
        self.tau = tau
        self.updates = 0
        self.module = deepcopy(network).requires_grad_(False).eval()

    def update(self, network: nn.Module) -> None:
        """Move the average towards ``network`` by one step."""
        self.updates += 1
        move_average(self.module, network, self.decay, self.updates, self.tau)

    def state_dict(self) -> dict[str, Any]:
        """Return the averaged weights and the number of updates."""
        return {"updates": self.updates, "module": self.module.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from what :meth:`state_dict` gave."""
        restore(self.module, state["module"])
        self.updates = int(state["updates"])
