"""The one error a user is meant to see."""

from __future__ import annotations

__all__ = ["UserError"]


class UserError(ValueError):
    """A mistake in what the user gave: one sentence that names the file, what was expected, what was found, the mend.

    The command line prints it without a traceback and exits with code 2.
    """
