"""How much of the machine other processes take, so that timings are taken, and believed, in calm only.

Two threads that meet at a barrier wait a whole time slice for each other as soon as a third process wants a core: a
few percent of foreign load turn 3 ms into 30 for whoever runs in parallel, and leave alone who does not.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

STAT = Path("/proc/stat")
CALM = 0.03
"""Share of the machine below which others do not disturb."""
PATIENCE = 60.0
"""Seconds to wait for a calm machine before each round."""


class Watch:
    """Watches other processes from its making on; where the kernel does not tell, they are taken to be calm."""

    def __init__(self) -> None:
        self.busy, self.all = _ticks()
        self.own = _own()

    @property
    def share(self) -> float:
        """Share of the machine's time that others took since, other virtual machines on the same host included."""
        busy, total = _ticks()
        foreign = busy - self.busy - (_own() - self.own)
        return max(0.0, foreign / (total - self.all)) if total > self.all else 0.0


def wait(patience: float) -> None:
    """Return as soon as others are calm for a second, or after ``patience`` seconds."""
    end = time.monotonic() + patience
    while time.monotonic() < end:
        watch = Watch()
        time.sleep(1.0)
        if watch.share < CALM:
            return


def take_turns(
    every: Mapping[str, Callable[[], object]], rounds: int, device: str, patience: float = PATIENCE
) -> tuple[dict[str, list[float]], float]:
    """Seconds of everyone's work in every round, and the most that others took of the machine in a round.

    Each works twice in its turn, of which the second time counts: the first finds the heap as another left it. A first
    round is not counted. ``patience`` is the longest wait for a calm machine before a round, in seconds.
    """
    times: dict[str, list[float]] = {name: [] for name in every}
    foreign = []
    for number in range(rounds + 1):
        wait(patience)
        watch = Watch()
        for name, work in every.items():
            work()
            _settle(device)
            start = time.perf_counter()
            work()
            _settle(device)
            if number:
                times[name].append(time.perf_counter() - start)
        foreign.append(watch.share)
    return times, max(foreign[1:])


def _settle(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()


def _ticks() -> tuple[int, int]:
    if not STAT.exists():
        return 0, 0
    user, nice, system, idle, waiting, hard, soft, stolen = map(int, STAT.read_text().split("\n", 1)[0].split()[1:9])
    busy = user + nice + system + hard + soft + stolen
    return busy, busy + idle + waiting


def _own() -> float:
    return sum(os.times()[:2]) * os.sysconf("SC_CLK_TCK")
