"""Class names that can be printed, drawn and saved, and that are distinct."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from pathlib import Path

from ladle.data.values import shown
from ladle.errors import UserError

__all__ = ["check_distinct", "clean_name"]

_LONGEST = 200
_INVISIBLE = frozenset("\u200b\u2060\ufeff\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Characters without width, and those that change the direction of text."""
_UNPRINTABLE = frozenset({"Cc", "Zl", "Zp"})


def clean_name(raw: object, stand_in: str) -> tuple[str, str | None]:
    """A class name as text on one line, and a description of the change to the raw name, or None.

    The name is normalized to NFC, so that classes that look the same are equal. Control characters become blanks;
    repeated blanks and blanks at the ends are removed; half a surrogate pair becomes U+FFFD; names are cut after 200
    characters. ``stand_in`` is used for a class without a name.
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
    """Raise UserError for classes with the same name, because predictions and scores are matched by name."""
    owners: dict[str, list[int]] = {}
    for number, name in names.items():
        owners.setdefault(name, []).append(number)
    shared = [f"{shown(name)} for {', '.join(map(str, ids))}" for name, ids in owners.items() if len(ids) > 1]
    if shared:
        raise UserError(
            f"{file}: expected classes with different names, found {'; '.join(shared)}: "
            "rename them, or merge them into one"
        )
