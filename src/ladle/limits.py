"""Strict validation of records by their type hints: types, ranges and lengths.

A record is a dataclass of numbers, text, tuples and other records. Limits are part of the type hints:
``width: Annotated[int, Range(1, 4096)]``. Conditions between fields are checked by ``__post_init__``, which raises
ValueError.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from difflib import get_close_matches
from reprlib import Repr
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from ladle.errors import UserError

__all__ = [
    "Length",
    "MismatchError",
    "Range",
    "converted",
    "flag",
    "hints_of",
    "shortened",
    "verify",
    "verify_arguments",
    "words",
]

T = TypeVar("T")

_KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", NoneType: "nothing"}
_MOST_ITEMS = 100_000
"""Most values of a list without a ``Length``."""
_MOST_TEXT = 10_000
"""Most characters of a text without a ``Length``."""


@dataclass(frozen=True)
class Range:
    """The smallest and the largest value of a number, both included unless ``above`` or ``below`` is set.

    Numbers must be finite unless ``finite`` is False.
    """

    least: float = -math.inf
    most: float = math.inf
    above: bool = False
    below: bool = False
    finite: bool = True

    def allows(self, value: float) -> bool:
        """Whether ``value`` lies in the range."""
        if isinstance(value, float) and not math.isfinite(value):
            return not self.finite
        low = value > self.least if self.above else value >= self.least
        return low and (value < self.most if self.below else value <= self.most)

    def __str__(self) -> str:
        if math.isfinite(self.least) and math.isfinite(self.most) and not self.above and not self.below:
            return f" from {self.least} to {self.most}"
        low = f"{'above' if self.above else 'of at least'} {self.least}" if math.isfinite(self.least) else ""
        high = f"{'below' if self.below else 'at most'} {self.most}" if math.isfinite(self.most) else ""
        return "".join(f" {part}" for part in (low, "and" if low and high else "", high) if part)


@dataclass(frozen=True)
class Length:
    """The smallest and the largest number of items of a tuple or characters of a text."""

    least: int = 0
    most: int = _MOST_ITEMS

    def allows(self, value: Any) -> bool:
        """Whether the length of ``value`` is allowed."""
        return self.least <= len(value) <= self.most

    def __str__(self) -> str:
        return f" of length {self.least} to {self.most}"


class MismatchError(ValueError):
    """A value does not match its type hint; ``path`` is its place in the data."""

    def __init__(self, path: str, expected: str, found: str) -> None:
        super().__init__(f"expected {expected}{f' at {path}' if path else ''}, found {found}")
        self.path, self.expected, self.found = path, expected, found


def converted(hint: Any, value: object, path: str = "") -> Any:
    """Convert ``value`` from JSON or YAML to the type ``hint``.

    Lists become tuples unless the hint is a list, mappings become records, and integers become floats. Nothing else is
    converted: true and "1" are not numbers, and NaN is only one if the hint allows it. ``path`` is the place of the
    value in messages.

    Raises:
        MismatchError: if the value does not match the hint.
    """
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _limited(hint, value, path)
    if origin in (Union, UnionType):
        return _one_of(hint, value, path)
    if origin is Literal:
        if any(value == choice and type(value) is type(choice) for choice in args):
            return value
        raise MismatchError(path, words(hint), shortened(value))
    if origin in (tuple, list):
        return origin(_items(hint, value, path))
    if origin is dict:
        return _mapping(hint, value, path)
    return _record(hint, value, path) if is_dataclass(hint) else _scalar(hint, value, path)


def words(hint: Any) -> str:
    """A description of a hint for messages."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return words(args[0]) + "".join(map(str, args[1:]))
    if origin in (Union, UnionType):
        return " or ".join(dict.fromkeys(words(part) for part in args))
    if origin is Literal:
        return ("one of " if len(args) > 1 else "") + ", ".join(map(str, args))
    if origin is tuple and args[-1] is not Ellipsis:
        return f"a list of {len(args)}, each {words(args[0])}"
    if origin in (tuple, list):
        return "a list"
    return _KINDS.get(hint, "a mapping" if is_dataclass(hint) else f"a {hint.__name__}")


def shortened(value: object) -> str:
    """A value as one short line of text, however large or nested it is."""
    short = Repr()
    short.maxstring = short.maxother = short.maxlong = 60
    short.maxlevel = 2
    try:
        return " ".join(short.repr(value).split())[:200]
    except ValueError:
        return "a number of very many digits"


def flag(name: str) -> str:
    """The flag of an argument on the command line."""
    return f"--{name.replace('_', '-')}"


def verify(record: Any, spell: Callable[[str], str] = flag) -> None:
    """Raise :class:`UserError` for the first field of a record that does not match its hint.

    ``spell`` converts the name of a field to the name in the message.
    """
    _verify(type(record), {field.name: getattr(record, field.name) for field in fields(record)}, spell)


def verify_arguments(function: Callable[..., Any], **given: Any) -> None:
    """Raise :class:`UserError` for the first argument that does not match the function's hints."""
    _verify(function, given, flag)


def _verify(kind: Any, values: Mapping[str, Any], spell: Callable[[str], str]) -> None:
    hints = hints_of(kind)
    for name, value in values.items():
        try:
            converted(hints[name], value)
        except MismatchError as wrong:
            raise UserError(f"{spell(name)} {wrong.found}: expected {wrong.expected}") from None


def hints_of(kind: Any) -> Mapping[str, Any]:
    """The type hints of a record's fields or of a function's arguments, with limits."""
    return get_type_hints(kind, include_extras=True)


def _limited(hint: Any, value: object, path: str) -> Any:
    kind, *every = get_args(hint)
    limits = [limit for limit in every if isinstance(limit, Range | Length)]
    ranges = [limit for limit in limits if isinstance(limit, Range)]
    if isinstance(value, float) and not math.isfinite(value) and any(limit.allows(value) for limit in ranges):
        return value
    try:
        made = converted(kind, value, path)
    except MismatchError as wrong:
        # An error inside the value has a more specific message of its own.
        raise wrong if wrong.path != path else MismatchError(path, words(hint), wrong.found) from None
    if not all(limit.allows(made) for limit in limits):
        raise MismatchError(path, words(hint), shortened(value))
    return made


def _one_of(hint: Any, value: object, path: str) -> Any:
    """Convert to a union: a mapping to the record with most of its keys, other values to the first type that fits."""
    records = [part for part in get_args(hint) if is_dataclass(part)]
    if isinstance(value, dict) and records:
        return _record(max(records, key=lambda kind: _likeness(kind, value)), value, path)
    for part in get_args(hint):
        try:
            return converted(part, value, path)
        except MismatchError as wrong:
            # An error inside the value is more specific than the message about the union.
            if wrong.path != path:
                raise
    raise MismatchError(path, words(hint), shortened(value))


def _likeness(kind: Any, value: Mapping[object, object]) -> int:
    names = {field.name for field in fields(kind)}
    return sum(1 if key in names else -1 for key in value)


def _items(hint: Any, value: object, path: str) -> Iterator[Any]:
    kinds = get_args(hint) if get_origin(hint) is tuple else (*get_args(hint), ...)
    if not isinstance(value, list | tuple) or len(value) > _MOST_ITEMS:
        raise MismatchError(path, words(hint), shortened(value))
    if kinds[-1] is Ellipsis:
        kinds = kinds[:1] * len(value)
    if len(kinds) != len(value):
        raise MismatchError(path, words(hint), f"{len(value)} values")
    pairs = zip(kinds, value, strict=True)
    return (converted(kind, item, f"{path}[{place}]") for place, (kind, item) in enumerate(pairs))


def _mapping(hint: Any, value: object, path: str) -> dict[Any, Any]:
    of_keys, of_values = get_args(hint)
    if not isinstance(value, dict) or len(value) > _MOST_ITEMS:
        raise MismatchError(path, words(hint), shortened(value))
    items = ((converted(of_keys, key, _inside(path, key)), _inside(path, key), item) for key, item in value.items())
    return {key: converted(of_values, item, where) for key, where, item in items}


def _record(kind: Any, value: object, path: str) -> Any:
    if isinstance(value, kind):
        value = {field.name: getattr(value, field.name) for field in fields(kind)}
    if not isinstance(value, dict):
        raise MismatchError(path, words(kind), shortened(value))
    known = {field.name: field for field in fields(kind) if field.init}
    for key in value:
        if key not in known:
            close = get_close_matches(key, known, n=1) if isinstance(key, str) else []
            raise MismatchError(path, f"the key {close[0]}" if close else "known keys", f"the key {shortened(key)}")
    missing = [name for name, field in known.items() if name not in value and _is_needed(field)]
    if missing:
        raise MismatchError(path, f"the key {missing[0]}", "none")
    hints = hints_of(kind)
    made = {name: converted(hints[name], item, _inside(path, name)) for name, item in value.items()}
    try:
        return kind(**made)
    except ValueError as error:
        raise MismatchError(path, "values that fit together", str(error)) from None


def _is_needed(field: Field[Any]) -> bool:
    return field.default is MISSING and field.default_factory is MISSING


def _inside(path: str, key: object) -> str:
    name = key if isinstance(key, str) and key.isidentifier() else f"[{shortened(key)}]"
    return f"{path}.{name}" if path else str(name)


def _scalar(kind: Any, value: object, path: str) -> Any:
    if kind not in _KINDS and isinstance(value, kind):
        return value  # an object made in Python, which JSON and YAML cannot contain
    if kind is float and type(value) is int and abs(value) <= 2**1023:
        value = float(value)
    fits = type(value) is kind and (not isinstance(value, float) or math.isfinite(value))
    if not fits or (isinstance(value, str) and len(value) > _MOST_TEXT):
        raise MismatchError(path, words(kind), shortened(value))
    return value
