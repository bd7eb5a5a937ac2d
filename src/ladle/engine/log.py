"""What a run says while it runs: metrics.jsonl, results.csv and the terminal."""

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

    Opened at ``epoch`` > 0 it drops what a killed process wrote of later epochs, a torn last line, and what else cannot
    be read: so many lines are ``unreadable``.
    """

    def __init__(self, path: Path, epoch: int) -> None:
        self._path = path
        lines = path.read_bytes().splitlines() if epoch and path.is_file() else []
        epochs = [_epoch_of(line) for line in lines]
        self.unreadable = epochs[:-1].count(None)
        kept = [line + b"\n" for line, one in zip(lines, epochs, strict=True) if one is not None and one <= epoch]
        write_atomically(path, lambda temporary: temporary.write_bytes(b"".join(kept)), only_changes=True)

    def write(self, kind: str, row: Row) -> None:
        """Append one line, ``kind`` being "step" or "epoch"; with an epoch's all lines are on the disk."""
        finite = {name: value if math.isfinite(value) else None for name, value in row.items()}
        append_line(self._path, json.dumps({"kind": kind} | finite), sync=kind == "epoch")


def _epoch_of(line: bytes) -> float | None:
    """The epoch of a line; None where there is none to be read."""
    try:
        epoch = float(json.loads(line)["epoch"])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None
    return epoch if math.isfinite(epoch) else None


def write_results(path: Path, rows: Sequence[Row]) -> None:
    """Write results.csv anew: one row per epoch.

    Columns stand in the order in which they first appeared and are empty where an epoch has no such value, so that the
    header only ever grows at its end.
    """
    header = list(dict.fromkeys(name for row in rows for name in row))

    def write(temporary: Path) -> None:
        with temporary.open("w", newline="", encoding="utf-8") as file:
            table = csv.DictWriter(file, header, restval="", lineterminator="\n")
            table.writeheader()
            table.writerows(rows)

    write_atomically(path, write, only_changes=True)


class Display:
    """The terminal's view of a run: a live bar where there is a terminal, plain lines where there is none.

    ``quiet`` shows nothing at all.
    """

    def __init__(self, quiet: bool, console: Console | None = None) -> None:
        self._console = console or Console(quiet=quiet)
        self._bar: Progress | None = None
        if self._console.is_terminal and not quiet:
            text = TextColumn("{task.description}", markup=False, table_column=Column(ratio=1, no_wrap=True))
            self._bar = Progress(BarColumn(10), text, console=self._console, transient=True, expand=True)
            self._task = self._bar.add_task("starting", total=1.0)

    def start(self) -> None:
        """Take the last line of the terminal for the bar."""
        if self._bar:
            self._bar.start()

    def stop(self) -> None:
        """Give the terminal back."""
        if self._bar:
            self._bar.stop()

    def step(self, text: str, done: float) -> None:
        """Show a passing line and the share of the run that is ``done``."""
        if self._bar:
            self._bar.update(self._task, description=text, completed=done)
        else:
            self.say(text)

    def say(self, text: str) -> None:
        """Leave a line behind."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)
