"""Numbers, flags and ids as people and programs write them into annotation files."""

from __future__ import annotations

import json
import re

__all__ = ["flag", "number", "numbers", "printable", "shown", "unpacked", "whole"]

_WHOLE = re.compile(r"(-?(?:0|[1-9][0-9]*))(?:\.0*)?")
_LONGEST_WHOLE = 40
_BETWEEN = re.compile(r"[\s,;]+")
_FLAGS = {
    **dict.fromkeys(("", "0", "0.0", "false", "no", "off", "n", "f"), False),
    **dict.fromkeys(("1", "1.0", "true", "yes", "on", "y", "t"), True),
}
_LONGEST_SHOWN, _LONGEST_TEXT = 80, 400


def whole(value: object) -> int | None:
    """The integer of 7, 7.0, "7" or "7.0"; None for other values.

    "007" is not a number, because as an id it differs from 7.
    """
    if type(value) is int:
        return value
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    if not isinstance(value, str) or len(value) > _LONGEST_WHOLE:
        return None
    match = _WHOLE.fullmatch(value.strip())
    return int(match[1]) if match else None


def number(value: object) -> float | None:
    """The value of a number or of a text that is one, possibly infinite or NaN; None for other values."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    if isinstance(value, str) and "_" in value:  # Python would read 1_0 as 10
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None


def numbers(value: object) -> list[float] | None:
    """The values of a list of numbers or texts, or of one text that contains all of them; None for other values."""
    if isinstance(value, str):
        value = unpacked(value)
    if not isinstance(value, list):
        return None
    found = [number(one) for one in value]
    return None if None in found else [one for one in found if one is not None]


def unpacked(text: str) -> object:
    """The list in a text: JSON, or words separated by blanks or commas."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return _BETWEEN.split(text.strip())


def flag(value: object) -> bool | None:
    """The truth value of true, 1, "1", "true", "yes" and so on; None counts as False, other values give None."""
    if value is None or isinstance(value, bool):
        return bool(value)
    if isinstance(value, int | float):
        return bool(value) if value in (0, 1) else None
    return _FLAGS.get(value.strip().lower()) if isinstance(value, str) else None


def printable(text: str) -> str:
    """The text on one line and of limited length, with characters that are not printable as escapes."""
    if len(text) > _LONGEST_TEXT:
        text = f"{text[:_LONGEST_TEXT]}…"
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def shown(value: object) -> str:
    """The value for a message: short, and on one line."""
    text = repr(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…"
