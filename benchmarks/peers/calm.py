"""How much of the machine other processes take, so that timings are taken, and believed, in calm only.

Two threads that meet at a barrier wait a whole time slice for each other as soon as a third process wants a core: a
few percent of foreign load turn 3 ms into 30 for whoever runs in parallel, and leave alone who does not.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

STAT = Path("/proc/stat")
CALM = 0.03
"""Share of the machine below which others do not disturb."""


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


def _ticks() -> tuple[int, int]:
    if not STAT.exists():
        return 0, 0
    user, nice, system, idle, waiting, hard, soft, stolen = map(int, STAT.read_text().split("\n", 1)[0].split()[1:9])
    busy = user + nice + system + hard + soft + stolen
    return busy, busy + idle + waiting


def _own() -> float:
    return sum(os.times()[:2]) * os.sysconf("SC_CLK_TCK")
