"""Progress of a run on the terminal, in metrics.jsonl and in loggers, on the first rank only."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from datetime import timedelta
from types import TracebackType
from typing import TypeVar

from ladle.engine.checkpoint import TrainState
from ladle.engine.log import Display, Journal, Row
from ladle.engine.loggers import open_loggers
from ladle.engine.run import Run

__all__ = ["Reporter", "phrase"]

T = TypeVar("T")

_NOT_SHOWN = ("epoch", "step", "seconds", "ar", "ap_", "unassigned_")
"""Prefixes of the values that results.csv has and an epoch's line has not: recalls, and values of each size."""


class Reporter:
    """Reports losses and images per second; ``epoch`` and ``step`` are the numbers of those already done."""

    def __init__(self, run: Run, epoch: int, step: int) -> None:
        first = run.fabric.is_global_zero
        self._epochs, self._steps, self._ranks = run.settings.epochs, run.steps, run.fabric.world_size
        self._display = Display(quiet=run.settings.quiet or not first)
        self._journal = Journal(run.folder / "metrics.jsonl", epoch) if first else None
        self._loggers = open_loggers(run.settings.loggers if first else (), run.folder, step, self.note)
        self._images, self._step, self._since, self._waited = 0, 0, time.monotonic(), 0.0
        if self._journal and self._journal.unreadable:
            self.note(f"left out of metrics.jsonl: {self._journal.unreadable} lines that cannot be read")

    def __enter__(self) -> Reporter:
        self._display.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._display.stop()
        self._loggers.close()

    def start_epoch(self, state: TrainState) -> None:
        """Start the clock, so that evaluating and saving do not count as training."""
        self._images, self._step, self._since, self._waited = 0, state.step, time.monotonic(), 0.0

    def waiting(self, windows: Iterator[T]) -> Iterator[T]:
        """Pass on the batches, and measure how long the training waits for them."""
        while True:
            began = time.monotonic()
            window = next(windows, None)
            self._waited += time.monotonic() - began
            if window is None:
                return
            yield window

    def count(self, images: int) -> None:
        """Count this rank's images of a step; the other ranks are assumed to have as many."""
        self._images += images * self._ranks

    def step(self, state: TrainState, losses: Mapping[str, float]) -> None:
        """Report the losses, images per second and the time to the last step, without evaluation."""
        seconds = max(time.monotonic() - self._since, 1e-9)
        speed, waited = self._images / seconds, self._waited / seconds
        left = timedelta(seconds=round(seconds / (state.step - self._step) * (self._steps - state.step)))
        self._display.step(
            # The most important values come first, since a narrow terminal cuts the end.
            f"epoch {state.epoch}/{self._epochs}  step {state.step}/{self._steps}  ETA {left}"
            f"  {speed:.1f} images/s  {waited:.0%} waiting for data  {phrase(losses)}",
            state.step / self._steps,
        )
        if self._journal:
            place = {"epoch": state.epoch, "step": state.step}
            speeds = {"images_per_second": speed, "waiting_for_data": waited}
            self._journal.write("step", place | dict(losses) | speeds)
            self._loggers.log(state.step, {f"step/{name}": one for name, one in (dict(losses) | speeds).items()})
        self.start_epoch(state)

    def epoch(self, row: Row) -> None:
        """Report the row of a finished epoch."""
        shown = {name: value for name, value in row.items() if not name.rpartition("/")[2].startswith(_NOT_SHOWN)}
        self.note(f"epoch {row['epoch']}/{self._epochs}  {phrase(shown)}  {row['seconds']:.0f} s")
        if self._journal:
            self._journal.write("epoch", row)
            self._loggers.log(int(row["step"]), {name: one for name, one in row.items() if name != "step"})

    def note(self, text: str) -> None:
        """Print a line on the terminal."""
        self._display.say(text)


def phrase(values: Mapping[str, float]) -> str:
    """Names and values on one line, four digits each."""
    return "  ".join(f"{name} {value:.4g}" for name, value in values.items())
