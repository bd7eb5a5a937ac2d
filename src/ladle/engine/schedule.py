"""Learning-rate schedules as pure functions of the step, so that a resumed run needs no schedule state."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

__all__ = ["Cosine", "OneCycle", "Schedule", "Step"]

WARMUP_START = 1e-3
"""The factor at the first step of a warm-up."""


@runtime_checkable
class Schedule(Protocol):
    """A factor on the learning rate for every step of a run."""

    def factor(self, step: int, total: int) -> float:
        """Return the factor at ``step`` (from 0) of ``total`` optimizer steps."""


@dataclass(frozen=True)
class Step:
    """Multiply by ``gamma`` at each milestone, a fraction of the run; the default is the usual 8 and 11 of 12 epochs.

    ``warmup`` counts steps and is cut at half the run.
    """

    milestones: tuple[float, ...] = (8 / 12, 11 / 12)
    gamma: float = 0.1
    warmup: int = 500

    @classmethod
    def at(cls, epochs: tuple[int, ...], of: int, gamma: float = 0.1, warmup: int = 500) -> Step:
        """Place the milestones after so many ``epochs`` ``of`` a run."""
        return cls(milestones=tuple(epoch / of for epoch in epochs), gamma=gamma, warmup=warmup)

    def factor(self, step: int, total: int) -> float:
        """Return the factor at ``step`` (from 0) of ``total`` optimizer steps."""
        passed = sum(step >= round(milestone * total) for milestone in self.milestones)
        return _warm(step, total, self.warmup) * self.gamma**passed


@dataclass(frozen=True)
class Cosine:
    """Fall along half a cosine from 1 after the warm-up to ``final`` at the end of the run (Loshchilov & Hutter 2017).

    ``warmup`` counts steps and is cut at half the run.
    """

    final: float = 0.01
    warmup: int = 500

    def factor(self, step: int, total: int) -> float:
        """Return the factor at ``step`` (from 0) of ``total`` optimizer steps."""
        warmup = min(self.warmup, total // 2)
        done = max(step - warmup, 0) / max(total - warmup, 1)
        return _warm(step, total, self.warmup) * _glide(1.0, self.final, done)


@dataclass(frozen=True)
class OneCycle:
    """Rise along half a cosine from ``start`` to 1 over ``rise`` of the run, then fall to ``final`` (Smith 2018).

    The rise is itself a warm-up; ``warmup`` steps of a linear one may be added.
    """

    rise: float = 0.3
    start: float = 0.04
    final: float = 4e-6
    warmup: int = 0

    def factor(self, step: int, total: int) -> float:
        """Return the factor at ``step`` (from 0) of ``total`` optimizer steps."""
        peak = self.rise * total
        if step < peak:
            cycle = _glide(self.start, 1.0, step / peak)
        else:
            cycle = _glide(1.0, self.final, (step - peak) / max(total - peak, 1))
        return _warm(step, total, self.warmup) * cycle


def _warm(step: int, total: int, warmup: int) -> float:
    # A short run would otherwise never leave a warm-up meant for a long one.
    warmup = min(warmup, total // 2)
    return 1.0 if step >= warmup else WARMUP_START + (1 - WARMUP_START) * step / warmup


def _glide(start: float, end: float, done: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * min(done, 1.0))) / 2
