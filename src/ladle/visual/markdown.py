"""Pieces of Markdown; every text from a data set is escaped here, so that no name is read as markup."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from html import escape

from ladle.names import printable

__all__ = ["block", "literal", "table"]

_MARKUP = re.compile(r"([\\`*_{}\[\]()#+!|~$-])")


def literal(text: str) -> str:
    r"""The text on one line, as a reader of the rendered page sees it.

    >>> literal("a|b <i>*new*</i>")
    'a\\|b &lt;i&gt;\\*new\\*&lt;/i&gt;'
    """
    return escape(_MARKUP.sub(r"\\\1", printable(text)), quote=False)


def block(text: str, language: str = "") -> str:
    """A block of code; its fence is longer than any row of backticks in the text."""
    longest = max((len(row) for row in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text}\n{fence}"


def table(rows: Sequence[Mapping[str, object]]) -> str:
    """A table whose columns are the keys of the first row; numbers have one digit after the point, None is a dash."""
    names = list(rows[0])
    lines = [names, ["---"] * len(names), *([_cell(row.get(name)) for name in names] for row in rows)]
    lines[0] = [literal(name) for name in names]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: object) -> str:
    if value is None:
        return "–"
    return f"{value:.1f}" if isinstance(value, float) else literal(str(value))
