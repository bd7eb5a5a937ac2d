"""What is distilled beside what is detected: whose gradient moves the layers that both reach."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from lightning_fabric import Fabric
from torch import Tensor, nn

from ladle.engine.optimizer import OptimizerSpec
from ladle.engine.restoring import restore_optimizer
from ladle.engine.settings import Balance

__all__ = ["SHARED", "Balancer"]

SHARED = re.compile(r"(student|students\.\w+)\.(backbone|neck)\.")
"""The layers that the losses of detection and those of distillers both reach."""


class Balancer:
    """Keeps the gradients of distillers apart in the layers that they share with detection, and joins them at a step.

    Adam divides a gradient by its own usual size, so that of two losses whose gradients are added the one with the
    larger gradient takes the step. Two ways out:

    ``moments`` gives what is distilled an optimizer of its own, of the same kind and without weight decay. Each of the
    two then moves the layers by about a learning rate, the distillers' times ``share``, whatever the size of its loss.

    ``norm`` scales the gradients of distillers down, where their norm over the shared layers exceeds ``share`` times
    that of detection, before they are added.

    Elsewhere, in the heads and in what distillers train of their own, gradients are added as ever. Both parts are
    averaged over the batches of a window and over ranks before anything else is done with them.
    """

    def __init__(self, objective: nn.Module, optimizer: OptimizerSpec, balance: Balance, share: float) -> None:
        """Raises ValueError where the objective has no shared layer that is trained."""
        trained = [(name, one) for name, one in objective.named_parameters() if one.requires_grad]
        self.shared = [one for name, one in trained if SHARED.match(name)]
        self.rest = [one for name, one in trained if not SHARED.match(name)]
        if not self.shared:
            raise ValueError("there is nothing to balance: no backbone and no neck of a student is trained")
        self.share = share
        self.optimizer = optimizer.build(objective) if balance == "moments" else None
        for group in self.optimizer.param_groups if self.optimizer is not None else ():
            # The layers are decayed once, by the optimizer of detection.
            group["weight_decay"] = 0.0
        self._gradients: list[Tensor] | None = None

    def collect(self, distilled: Float[Tensor, ""]) -> None:
        """Differentiate what is distilled in a batch; what shared layers get of it is kept for the step."""
        found = torch.autograd.grad(distilled, [*self.shared, *self.rest], allow_unused=True)
        count = len(self.shared)
        mine = [torch.zeros_like(one) if g is None else g for one, g in zip(self.shared, found[:count], strict=True)]
        if self._gradients is not None:
            mine = [kept + one for kept, one in zip(self._gradients, mine, strict=True)]
        self._gradients = mine
        for parameter, gradient in zip(self.rest, found[count:], strict=True):
            if gradient is not None:
                parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient

    def settle(self, fabric: Fabric, clip: float | None) -> dict[str, Float[Tensor, ""]]:
        """Before the gradients of detection are clipped: average over ranks, and join or clip what is distilled.

        Returns the norm of the distillers' gradients over the shared layers, if there are any, as it was found.
        """
        own = [one for one in (*self.shared, *self.rest) if one.grad is not None]
        for parameter, mean in zip(own, _averaged(fabric, [_gradient(one) for one in own]), strict=True):
            parameter.grad = mean
        if self._gradients is None:
            return {}
        self._gradients = _averaged(fabric, self._gradients)
        norm = nn.utils.get_total_norm(self._gradients)
        if self.optimizer is None:
            detection = nn.utils.get_total_norm([one.grad for one in self.shared if one.grad is not None])
            most = self.share * detection
            self._join(torch.where(norm > most, most / norm, 1.0))
        elif clip is not None:
            factor = (clip / (norm + 1e-6)).clamp(max=1.0)
            self._gradients = [factor * one for one in self._gradients]
        return {"distilled_gradient_norm": norm}

    def step(self, factor: float) -> None:
        """After the optimizer of detection took its step at ``factor`` times its learning rate: take the distillers'.

        Leaves no gradient behind.
        """
        gradients, self._gradients = self._gradients, None
        if self.optimizer is None or gradients is None:
            return
        self.optimizer.zero_grad()
        for parameter, gradient in zip(self.shared, gradients, strict=True):
            parameter.grad = gradient
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor * self.share
        self.optimizer.step()
        self.optimizer.zero_grad()

    def state_dict(self) -> dict[str, Any]:
        """The moments of what is distilled; between two steps there is nothing else to keep."""
        return {"optimizer": self.optimizer.state_dict() if self.optimizer is not None else None}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up the moments of another; raises one of :data:`UNFIT` where it does not fit."""
        if (state["optimizer"] is None) != (self.optimizer is None):
            raise ValueError("one of the two has moments of its own for what is distilled, the other has not")
        if self.optimizer is not None:
            restore_optimizer(self.optimizer, state["optimizer"])

    def _join(self, factor: Float[Tensor, ""]) -> None:
        assert self._gradients is not None
        for parameter, gradient in zip(self.shared, self._gradients, strict=True):
            scaled = factor * gradient
            parameter.grad = scaled if parameter.grad is None else parameter.grad + scaled
        self._gradients = None


def _gradient(parameter: nn.Parameter) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad


def _averaged(fabric: Fabric, gradients: Sequence[Tensor]) -> list[Tensor]:
    """The mean over ranks, in one message."""
    if fabric.world_size == 1 or not gradients:
        return list(gradients)
    flat = torch.cat([one.flatten() for one in gradients])
    total = fabric.all_reduce(flat, reduce_op="sum")
    assert isinstance(total, Tensor)
    parts = (total / fabric.world_size).split([one.numel() for one in gradients])
    return [part.view_as(one) for part, one in zip(parts, gradients, strict=True)]
