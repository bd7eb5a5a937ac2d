"""Running averages of a network's weights."""

from __future__ import annotations

import math

import torch
from torch import nn

__all__ = ["move_average"]


@torch.no_grad()
def move_average(average: nn.Module, network: nn.Module, decay: float, updates: int, tau: float) -> None:
    """Move the parameters of an average one step towards a network; buffers are copied.

    The decay after ``updates`` steps is ``decay * (1 - exp(-updates / tau))``: early on the average follows the network
    closely, so that the initial weights have little influence.

    Examples:
        >>> import torch
        >>> from ladle.averaging import move_average
        >>> average, network = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)
        >>> before = average.weight.item()
        >>> move_average(average, network, decay=0.5, updates=10**6, tau=1.0)
        >>> abs(average.weight.item() - (before + network.weight.item()) / 2) < 1e-6
        True
    """
    kept = decay * (1 - math.exp(-updates / tau))
    torch._foreach_lerp_(list(average.parameters()), list(network.parameters()), 1 - kept)
    for mean, current in zip(average.buffers(), network.buffers(), strict=True):
        mean.copy_(current)
