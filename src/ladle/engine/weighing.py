"""A loss weight that follows the ratio of gradient norms."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["EVERY", "GradientWeight"]

EVERY = 20
"""Steps between two changes of the weight."""
_LEAST, _MOST = 0.1, 10.0
"""The factors by which a weight changes at once, at least and at most."""
_TINY = 1e-12


class GradientWeight:
    """A loss weight by which the gradient of a loss has ``share`` times the norm of the gradient of all other losses.

    It starts at 1. After every 20 steps it is multiplied by the target over the ratio of the norms that were measured
    in these steps, at least by 0.1 and at most by 10. This is gradient-guided adaptive modulation (Liao et al. 2025,
    RT-DETRv4), which changes the weight after each epoch. All is computed on the device, which is never waited for.

    Examples:
        >>> import torch
        >>> from ladle.engine.weighing import EVERY, GradientWeight
        >>> weight = GradientWeight(0.5, torch.device("cpu"))
        >>> for _ in range(EVERY):
        ...     weight.note(torch.tensor(4.0), torch.tensor(1.0))
        >>> weight.value
        tensor(2.)
    """

    def __init__(self, share: float, device: torch.device) -> None:
        self.share = share
        self.value: Float[Tensor, ""] = torch.ones((), device=device)
        self.sums: Float[Tensor, " 2"] = torch.zeros(2, device=device)
        self.steps = 0

    def note(self, others: Float[Tensor, ""], weighed: Float[Tensor, ""]) -> None:
        """Note the gradient norms of a step: of all other losses, and of the losses that have this weight."""
        self.sums = self.sums + torch.stack([others, weighed]).detach().float()
        self.steps += 1
        if self.steps == EVERY:
            other, mine = self.sums.unbind()
            factor = torch.where(mine > _TINY, self.share * other / mine.clamp(min=_TINY), 1.0)
            self.value = self.value * factor.clamp(_LEAST, _MOST)
            self.sums, self.steps = torch.zeros_like(self.sums), 0

    def state_dict(self) -> dict[str, Any]:
        """The weight, and what was measured since it changed."""
        return {"value": self.value, "sums": self.sums, "steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load the state of another weight; raises ValueError if it does not fit."""
        if state["value"].shape != () or state["sums"].shape != (2,) or not 0 <= int(state["steps"]) < EVERY:
            raise ValueError("expected a loss weight and two sums of norms")
        self.value, self.sums = (state[name].to(self.value) for name in ("value", "sums"))
        self.steps = int(state["steps"])
