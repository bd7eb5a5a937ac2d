"""What a run of the training loop is told, apart from what it trains on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from ladle.engine.optimizer import SGD, OptimizerSpec
from ladle.engine.schedule import Schedule, Step
from ladle.errors import UserError

__all__ = ["Balance", "Settings"]

Balance = Literal["none", "moments", "norm"]
"""How the gradients of distillers meet those of detection: added, or as ``engine/balance.py`` says."""


@dataclass(frozen=True)
class Settings:
    """How long and how to train.

    ``clip`` bounds the norm of all gradients together. ``accumulate`` batches make one optimizer step: each is
    normalised by its own counts and their gradients are averaged. ``ema`` is the decay of a running average of the
    student, ramped over ``ema_tau`` steps; where it is on, the average is what is evaluated and saved. ``patience``
    stops the run after so many epochs without a better AP. ``eval_every`` counts epochs (the last is always
    evaluated), ``log_every`` optimizer steps. ``seed`` is for what is random during training (rank r uses seed + r);
    the initial weights and the loader's order are the caller's. ``balance`` and ``balance_share`` say whose gradients
    move the layers that detection and distillers share.
    """

    epochs: int = 12
    optimizer: OptimizerSpec = field(default_factory=lambda: SGD(lr=0.01))
    schedule: Schedule = field(default_factory=Step)
    clip: float | None = None
    accumulate: int = 1
    precision: Literal["fp32", "bf16"] = "fp32"
    ema: float | None = None
    ema_tau: float = 2000.0
    patience: int | None = None
    eval_every: int = 1
    log_every: int = 50
    seed: int = 0
    quiet: bool = False
    balance: Balance = "none"
    balance_share: float = 1.0

    def __post_init__(self) -> None:
        if self.balance not in get_args(Balance):
            raise UserError(f"balance {self.balance!r} is unknown: use --balance {', '.join(get_args(Balance))}")
        if not 0 < self.balance_share < float("inf"):
            raise UserError(f"--balance-share {self.balance_share}: expected a number above 0, such as 0.5")
        counts = {"epochs": self.epochs, "accumulate": self.accumulate, "patience": self.patience}
        counts |= {"eval_every": self.eval_every, "log_every": self.log_every}
        for name, count in counts.items():
            if count is not None and count < 1:
                raise UserError(f"{name} must be at least 1, but is {count}: give --{name} a positive whole number")
        if self.ema is not None and not 0 <= self.ema < 1:
            raise UserError(f"ema is a decay in [0, 1), but is {self.ema}: give --ema something like 0.999")
        if self.clip is not None and not self.clip > 0:
            raise UserError(f"clip bounds a norm and must be above 0, but is {self.clip}: leave it out to not clip")
        if self.precision not in ("fp32", "bf16"):
            raise UserError(f"precision {self.precision!r} is unknown: use --precision fp32 or bf16")
