"""Class names that can be printed, drawn, saved and told apart."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from pathlib import Path

from ladle.data.values import shown
from ladle.errors import UserError

__all__ = ["check_distinct", "clean_name"]

_LONGEST = 200
_INVISIBLE = frozenset("\u200b\u2060\ufeff\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Characters of no width, and those that turn the direction of the text around them."""
_UNPRINTABLE = frozenset({"Cc", "Zl", "Zp"})


def clean_name(raw: object, stand_in: str) -> tuple[str, str | None]:
    """A class name as text on one line, and what had to be done to the raw one, None where nothing was.

    Letters with accents become single characters (NFC), as far as there are such, so that no two classes look the same;
    control characters become blanks, and blanks at the ends and repeated ones go; half a surrogate pair becomes U+FFFD;
    what is longer than 200 characters is cut. ``stand_in`` is the name of a class that has none.
    """
    if not isinstance(raw, str):
        is_value = isinstance(raw, bool | int | float)
        name = str(raw).lower() if is_value else stand_in
        return name, f"class name is {shown(raw)}, no text; read as {name!r}"
    given, raw = raw, unicodedata.normalize("NFC", raw)
    if raw == given and raw.isprintable() and len(raw) <= _LONGEST and raw == " ".join(raw.split()) != "":
        return raw, None
    name = " ".join("".join(map(_printable, raw[: 2 * _LONGEST])).split())
    if not name:
        return stand_in, f"class without a name; called {stand_in!r}"
    if len(raw) > _LONGEST:
        return name[:_LONGEST].rstrip(), f"class name of {len(raw)} characters; cut after {_LONGEST}"
    odd = "in another Unicode form" if name == raw else "with blanks or unprintable characters"
    return name, None if name == given else f"class name {odd}; read as {name!r}"


def _printable(character: str) -> str:
    if character.isascii():
        return character if character.isprintable() else " "
    category = unicodedata.category(character)
    if category == "Cs":
        return "\ufffd"
    return "" if character in _INVISIBLE else " " if category in _UNPRINTABLE else character


def check_distinct(names: Mapping[int, str], file: Path) -> None:
    """Raise UserError for classes that share a name: predictions and scores are told apart by name alone."""
    owners: dict[str, list[int]] = {}
    for number, name in names.items():
        owners.setdefault(name, []).append(number)
    shared = [f"{shown(name)} for {', '.join(map(str, ids))}" for name, ids in owners.items() if len(ids) > 1]
    if shared:
        raise UserError(
            f"{file}: expected classes with different names, found {'; '.join(shared)}: "
            "rename them, or merge them into one"
        )
