"""Balancing the gradients of distillation and detection losses in the layers that both train."""

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
from ladle.engine.weighing import GradientWeight

__all__ = ["SHARED", "Balancer"]

SHARED = re.compile(r"(student|students\.\w+)\.(backbone|neck)\.")
"""The layers that get gradients from detection losses and from distillers."""


class Balancer:
    """Keeps the gradients of distillers separate in the shared layers, and combines them at an optimizer step.

    Adam divides a gradient by its RMS, so that of two losses whose gradients are added the one with the larger
    gradient determines the step. There are two remedies:

    ``moments`` has a second optimizer for the gradients of distillers, of the same kind and without weight decay. Each
    of the two then moves the layers by about a learning rate, the distillers' times ``share``, whatever the size of its
    loss.

    ``norm`` scales the gradients of distillers down if their norm over the shared layers exceeds ``share`` times that
    of detection, before they are added.

    With a ``weight`` gradients are only measured and added: it is a factor on the losses that are kept apart.

    In all other layers, the heads and the parameters of distillers, gradients are added. Both parts are averaged over
    the batches of a window and over ranks first.
    """

    def __init__(
        self, objective: nn.Module, optimizer: OptimizerSpec, balance: Balance, share: float, weighs: bool = False
    ) -> None:
        """Raise ValueError if no shared layer of the objective is trained."""
        trained = [(name, one) for name, one in objective.named_parameters() if one.requires_grad]
        self.shared = [one for name, one in trained if SHARED.match(name)]
        self.rest = [one for name, one in trained if not SHARED.match(name)]
        if not self.shared:
            raise ValueError("there is nothing to balance: no backbone and no neck of a student is trained")
        self.share = share
        self.optimizer = optimizer.build(objective) if balance == "moments" else None
        for group in self.optimizer.param_groups if self.optimizer is not None else ():
            # The optimizer of detection alone decays the weights.
            group["weight_decay"] = 0.0
        self.weight = GradientWeight(share, self.shared[0].device) if weighs else None
        self._gradients: list[Tensor] | None = None

    def collect(self, distilled: Float[Tensor, ""]) -> None:
        """Differentiate the distillation loss of a batch; the gradients of shared layers are kept for the step."""
        found = torch.autograd.grad(distilled, [*self.shared, *self.rest], allow_unused=True)
        count = len(self.shared)
        gradients = [
            torch.zeros_like(one) if g is None else g for one, g in zip(self.shared, found[:count], strict=True)
        ]
        if self._gradients is not None:
            gradients = [kept + one for kept, one in zip(self._gradients, gradients, strict=True)]
        self._gradients = gradients
        for parameter, gradient in zip(self.rest, found[count:], strict=True):
            if gradient is not None:
                parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient

    def settle(self, fabric: Fabric, clip: float | None) -> dict[str, Float[Tensor, ""]]:
        """Average gradients over ranks, then add or clip those of distillers; call it before detection's are clipped.

        Returns the norm of the distillers' gradients over the shared layers before clipping, if there are any, and the
        weight that their losses had, if it follows the gradients.
        """
        used = [one for one in (*self.shared, *self.rest) if one.grad is not None]
        for parameter, mean in zip(used, _averaged(fabric, [_gradient(one) for one in used]), strict=True):
            parameter.grad = mean
        if self._gradients is None:
            return {}
        self._gradients = _averaged(fabric, self._gradients)
        norm = nn.utils.get_total_norm(self._gradients)
        if self.optimizer is None:
            detection = nn.utils.get_total_norm([one.grad for one in self.shared if one.grad is not None])
            if self.weight is not None:
                now = self.weight.value
                self.weight.note(detection, norm)
                self._join(torch.ones_like(norm))
                return {"distilled_gradient_norm": norm, "distilled_weight": now}
            most = self.share * detection
            self._join(torch.where(norm > most, most / norm, 1.0))
        elif clip is not None:
            factor = (clip / (norm + 1e-6)).clamp(max=1.0)
            self._gradients = [factor * one for one in self._gradients]
        return {"distilled_gradient_norm": norm}

    def step(self, factor: float) -> None:
        """Step with the gradients of distillers at ``factor`` times the learning rate; call it after detection's step.

        No gradients remain afterwards.
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
        """The optimizer state of the distillers' gradients, or their weight; nothing else lives from step to step."""
        return {
            "optimizer": self.optimizer.state_dict() if self.optimizer is not None else None,
            "weight": self.weight.state_dict() if self.weight is not None else None,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load the state of another balancer; raises one of :data:`UNFIT` if it does not fit."""
        if (state["optimizer"] is None) != (self.optimizer is None):
            raise ValueError("one of the two has moments of its own for what is distilled, the other has not")
        weight = state.get("weight")  # which runs of earlier versions lack
        if (weight is None) != (self.weight is None):
            raise ValueError("one of the two has a weight that follows the gradients, the other has not")
        if self.optimizer is not None:
            restore_optimizer(self.optimizer, state["optimizer"])
        if self.weight is not None and weight is not None:
            self.weight.load_state_dict(weight)

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
