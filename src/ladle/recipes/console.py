"""What a person reads while a job runs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

__all__ = ["say", "table", "warn"]


def say(text: object = "", quiet: bool = False) -> None:
    """Print a line, or anything rich can render."""
    if not quiet:
        from rich.console import Console

        Console(highlight=False, soft_wrap=True).print(text, markup=False)


def warn(text: str) -> None:
    """Print a line on standard error."""
    from rich.console import Console

    Console(stderr=True, highlight=False, soft_wrap=True).print(text, markup=False)


def table(title: str, rows: Sequence[Mapping[str, object]]) -> object:
    """A table of rows that share their keys; nan reads as a dash."""
    from rich import box
    from rich.table import Table

    drawn = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", title_style="bold")
    for name in rows[0] if rows else ():
        numeric = isinstance(rows[0][name], (int, float))
        drawn.add_column(name, justify="right" if numeric else "left", no_wrap=True)
    for row in rows:
        drawn.add_row(*(_cell(value) for value in row.values()))
    return drawn


def _cell(value: object) -> str:
    if isinstance(value, float):
        return "–" if math.isnan(value) else f"{value:.1f}"
    return str(value)
