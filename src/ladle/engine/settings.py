"""Settings of the training loop."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from ladle.engine.optimizer import SGD, OptimizerSpec
from ladle.engine.schedule import Schedule, Step
from ladle.limits import Range, verify

__all__ = ["Balance", "Settings"]

Balance = Literal["none", "moments", "norm"]
"""How the gradients of distillers and of detection are combined: added, or as in ``engine/balance.py``."""

_Count = Annotated[int, Range(1, 1_000_000_000)]


@dataclass(frozen=True)
class Settings:
    """How long and how to train.

    ``clip`` bounds the norm of all gradients together. ``accumulate`` batches make one optimizer step: each is
    normalized by its own counts and their gradients are averaged. ``ema`` is the decay of a running average of the
    student, ramped over ``ema_tau`` steps; where it is on, the average is what is evaluated and saved. ``patience``
    stops the run after so many epochs without a better AP. ``eval_every`` counts epochs (the last is always
    evaluated), ``log_every`` optimizer steps. ``seed`` is for what is random during training (rank r uses seed + r);
    the initial weights and the loader's order are the caller's. ``balance`` and ``balance_share`` are for the
    layers that detection and distillers share, see :class:`~ladle.engine.balance.Balancer`. ``weighed`` are the names
    of the terms whose common weight follows the ratio of gradient norms, of which ``balance_share`` is then the target.
    ``loggers`` names the services that get the scalars besides the files of the run, see ``engine/loggers.py``.
    """

    epochs: _Count = 12
    optimizer: OptimizerSpec = field(default_factory=lambda: SGD(lr=0.01))
    schedule: Schedule = field(default_factory=Step)
    clip: Annotated[float, Range(0, above=True)] | None = None
    accumulate: _Count = 1
    precision: Literal["fp32", "bf16"] = "fp32"
    ema: Annotated[float, Range(0, 1, below=True)] | None = None
    ema_tau: Annotated[float, Range(0, above=True)] = 2000.0
    patience: _Count | None = None
    eval_every: _Count = 1
    log_every: _Count = 50
    seed: Annotated[int, Range(0, 2**63 - 1)] = 0
    quiet: bool = False
    balance: Balance = "none"
    balance_share: Annotated[float, Range(0, above=True)] = 1.0
    weighed: tuple[str, ...] = ()
    loggers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Raise :class:`UserError` for values out of their limits."""
        verify(self)
