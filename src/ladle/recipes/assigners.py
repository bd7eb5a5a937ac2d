"""Assigners by name, as ``--assigner`` takes them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import is_dataclass
from difflib import get_close_matches
from inspect import signature
from typing import cast

from ladle import assigners
from ladle.assigners import Assigner
from ladle.errors import UserError

__all__ = ["ASSIGNERS", "assigner_named"]

_TAKES = ["self", "predictions", "priors", "truth"]


def _assigners() -> Iterator[Assigner]:
    for part in vars(assigners).values():
        if isinstance(part, type) and is_dataclass(part):
            called = vars(part).get("__call__")
            if called is not None and list(signature(called).parameters) == _TAKES:
                yield cast(Assigner, part())


ASSIGNERS: dict[str, Assigner] = {type(rule).__name__: rule for rule in _assigners()}
"""Every assigner of ``ladle.assigners`` by the name of its class, with the settings of its paper."""


def assigner_named(name: str) -> Assigner:
    """The assigner of a name, however it is capitalized or hyphenated; raises :class:`UserError` for an unknown one."""
    known = {known.lower(): known for known in ASSIGNERS}
    plain = name.replace("-", "").replace("_", "").lower()
    if plain in known:
        return ASSIGNERS[known[plain]]
    close = get_close_matches(plain, known, n=1)
    hint = f"did you mean {known[close[0]]}?" if close else f"take one of {', '.join(ASSIGNERS)}"
    raise UserError(f"--assigner {name}: no assigner is called that; {hint}")
