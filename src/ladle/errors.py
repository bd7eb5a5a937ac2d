"""The error for mistakes of the user."""

from __future__ import annotations

__all__ = ["UserError"]


class UserError(ValueError):
    """A mistake in the user's input: one sentence with the file, what was expected, what was found, and the remedy.

    The command line prints it without a traceback and exits with code 2.
    """
