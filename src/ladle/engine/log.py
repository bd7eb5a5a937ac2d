"""Output of a run: metrics.jsonl, results.csv and the terminal."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Column

from ladle.files import append_line, write_atomically

__all__ = ["Display", "Journal", "Row", "write_results"]

Row = Mapping[str, float | int]
"""The values of one step or epoch by name."""


class Journal:
    """metrics.jsonl: one JSON object for each reading of the losses and for each epoch; values not finite are null.

    Opened at ``epoch`` > 0 it drops lines of later epochs, an incomplete last line, and lines that cannot be read;
    ``unreadable`` is the number of the latter.
    """

    def __init__(self, path: Path, epoch: int) -> None:
        self._path = path
        lines = path.read_bytes().splitlines() if epoch and path.is_file() else []
        epochs = [_epoch_of(line) for line in lines]
        self.unreadable = epochs[:-1].count(None)
        kept = [line + b"\n" for line, one in zip(lines, epochs, strict=True) if one is not None and one <= epoch]
        write_atomically(path, lambda temporary: temporary.write_bytes(b"".join(kept)), only_changes=True)

    def write(self, kind: str, row: Row) -> None:
        """Append one line, ``kind`` being "step" or "epoch"; an epoch's line is synced to disk with all before it."""
        finite = {name: value if math.isfinite(value) else None for name, value in row.items()}
        append_line(self._path, json.dumps({"kind": kind} | finite), sync=kind == "epoch")


def _epoch_of(line: bytes) -> float | None:
    """The epoch of a line; None if it cannot be read."""
    try:
        epoch = float(json.loads(line)["epoch"])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None
    return epoch if math.isfinite(epoch) else None


def write_results(path: Path, rows: Sequence[Row]) -> None:
    """Write results.csv anew: one row per epoch.

    Columns are in the order of first appearance and empty for an epoch without such a value, so that new columns are
    only appended.
    """
    header = list(dict.fromkeys(name for row in rows for name in row))

    def write(temporary: Path) -> None:
        with temporary.open("w", newline="", encoding="utf-8") as file:
            table = csv.DictWriter(file, header, restval="", lineterminator="\n")
            table.writeheader()
            table.writerows(rows)

    write_atomically(path, write, only_changes=True)


class Display:
    """The terminal output of a run: a progress bar on a terminal, otherwise plain lines.

    ``quiet`` prints nothing.
    """

    def __init__(self, quiet: bool, console: Console | None = None) -> None:
        self._console = console or Console(quiet=quiet)
        self._bar: Progress | None = None
        if self._console.is_terminal and not quiet:
            text = TextColumn("{task.description}", markup=False, table_column=Column(ratio=1, no_wrap=True))
            self._bar = Progress(BarColumn(10), text, console=self._console, transient=True, expand=True)
            self._task = self._bar.add_task("starting", total=1.0)

    def start(self) -> None:
        """Show the progress bar."""
        if self._bar:
            self._bar.start()

    def stop(self) -> None:
        """Remove the progress bar."""
        if self._bar:
            self._bar.stop()

    def step(self, text: str, done: float) -> None:
        """Show a temporary line and the fraction of the run that is ``done``."""
        if self._bar:
            self._bar.update(self._task, description=text, completed=done)
        else:
            self.say(text)

    def say(self, text: str) -> None:
        """Print a line that stays."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)
