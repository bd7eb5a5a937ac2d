"""Console output of the recipes."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from ladle.names import printable

__all__ = ["say", "shown", "shown_progress", "table", "warn"]

_SENTENCE = 40
"""Columns with longer cells are wrapped if the terminal is narrow; names and numbers never are."""


def say(text: object = "", quiet: bool = False) -> None:
    """Print lines, or anything rich can render; terminal control characters are escaped."""
    if quiet:
        return
    from rich.console import Console
    from rich.text import Text

    # As a Text, since rich would read "[red]" and ":cat:" in a plain string.
    lines = Text("\n".join(map(shown, text.split("\n")))) if isinstance(text, str) else text
    Console(highlight=False, soft_wrap=True).print(lines)


def warn(text: str) -> None:
    """Print one line to standard error."""
    print(printable(text, _encoding(sys.stderr)), file=sys.stderr, flush=True)  # noqa: T201


@contextmanager
def shown_progress(seconds: float = 5.0) -> Iterator[Callable[[str, int, int], None]]:
    """A function that shows on standard error what is done, of how many; called often, it prints every few seconds.

    On a terminal the line is replaced by the next one and removed at the end.
    """
    last, width = time.monotonic(), 0

    def show(what: str, done: int, of: int) -> None:
        nonlocal last, width
        if time.monotonic() - last < seconds:
            return
        text = printable(f"{what}: {done:,} of {of:,}", _encoding(sys.stderr))
        live = sys.stderr.isatty()
        print(f"\r{text:{width}}" if live else text, end="" if live else "\n", file=sys.stderr, flush=True)  # noqa: T201
        last, width = time.monotonic(), len(text) if live else 0

    try:
        yield show
    finally:
        if width:
            print(f"\r{'':{width}}\r", end="", file=sys.stderr, flush=True)  # noqa: T201


def shown(text: str) -> str:
    """Escape what standard output cannot show."""
    return printable(text, _encoding(sys.stdout))


def table(title: str, rows: Sequence[Mapping[str, object]]) -> object:
    """A table of rows with the same keys; nan is shown as a dash."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    heading = Text("\n".join(map(shown, title.split("\n"))), style="bold")
    drawn = Table(title=heading, box=box.SIMPLE_HEAD, title_justify="left")
    for name in rows[0] if rows else ():
        numeric = isinstance(rows[0][name], (int, float))
        whole = all(len(str(row[name])) <= _SENTENCE for row in rows)
        # Where a line has too little room, names give way; numbers do not, and their headings go on in a second line.
        parts = [*name.split(), *(_cell(row[name]) for row in rows)]
        drawn.add_column(
            Text(shown(name)),
            justify="right" if numeric else "left",
            no_wrap=whole and not numeric,
            min_width=max(map(len, parts)) if numeric else None,
        )
    for row in rows:
        drawn.add_row(*(Text(shown(_cell(value))) for value in row.values()))
    return drawn


def _cell(value: object) -> str:
    if isinstance(value, float):
        return "–" if math.isnan(value) else f"{value:.1f}"
    return str(value)


def _encoding(stream: object) -> str:
    return getattr(stream, "encoding", None) or "utf-8"
