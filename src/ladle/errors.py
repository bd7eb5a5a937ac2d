"""The error for mistakes of the user."""

from __future__ import annotations

__all__ = ["UserError", "first_line", "one_line"]


class UserError(ValueError):
    """A mistake in the user's input: one sentence with the file, what was expected, what was found, and the remedy.

    The command line prints it without a traceback and exits with code 2.
    """


def first_line(error: Exception) -> str:
    r"""The first line of an error of another library, of limited length; its type if it has no message.

    >>> from ladle.errors import first_line
    >>> first_line(ValueError("no such node\nin the graph")), first_line(ValueError())
    ('no such node', 'ValueError')
    """
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__


def one_line(error: Exception) -> str:
    r"""The message of an error of another library on one line, of limited length.

    >>> from ladle.errors import one_line
    >>> one_line(ValueError("no such node\n  in the graph"))
    'no such node in the graph'
    """
    return " ".join(str(error).split())[:200]
