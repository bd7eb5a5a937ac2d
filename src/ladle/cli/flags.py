"""Parse command lines and files of flags into the typed arguments of a verb."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from difflib import get_close_matches
from inspect import Parameter
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from ladle.errors import UserError
from ladle.limits import MismatchError, converted, flag, shortened, words
from ladle.untrusted import parse_yaml
from ladle.values import as_text, set_field

__all__ = ["NEEDED", "Argument", "Verb", "check_complete", "read_flags"]

NEEDED = Parameter.empty
"""The default of an argument that has none."""

_ALONE = ("help", "print_config")
"""The flags that take no value."""
_PLAIN = (str, Path, int, float, bool, NoneType)
_TRUE, _FALSE = ("true", "yes", "on"), ("false", "no", "off")
_INT = re.compile(r"[-+]?\d{1,100}", re.ASCII)
_FLOAT = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?|[-+]?(inf|nan)", re.ASCII | re.IGNORECASE)


class Argument(NamedTuple):
    """One argument of a verb: its type with its limits, and its default."""

    hint: Any
    default: Any

    @property
    def is_value(self) -> bool:
        """Whether it takes text for a value with fields, such as an assigner."""
        if get_origin(self.hint) not in (Union, UnionType):
            return False
        return any(part not in _PLAIN and get_origin(part) is None for part in get_args(self.hint))


class Verb(NamedTuple):
    """A verb's arguments by name, the one that needs no flag, whether it has several values, other names of flags."""

    name: str
    arguments: Mapping[str, Argument]
    bare: str | None = None
    several: bool = False
    also: Mapping[str, str] = {}


def read_flags(verb: Verb, line: Sequence[str]) -> dict[str, Any]:
    """The typed arguments of a command line; raises :class:`UserError` for invalid flags or values.

    Flags override files, later files and flags override earlier ones.
    """
    parts = list(_spelled(verb, line))
    values = [text for name, text in parts if name is None]
    pairs = [(name, text) for name, text in parts if name is not None]
    given: dict[str, Any] = {}
    for name, text in pairs:
        if name == "config":
            given |= _from_file(verb, _needed(name, text, "a YAML file of flags"))
    for name, text in pairs:
        if name not in ("config", *_ALONE) and "." not in name:
            hint = _argument(verb, name).hint
            given[name] = _typed(name, hint, _needed(name, text, _in_words(hint)))
    for name, text in pairs:
        if "." in name:
            _add_field(verb, given, name, _needed(name, text, "the value of a field"))
    if verb.bare is not None and values:
        given[verb.bare] = values if len(values) > 1 else values[0]
    return given


def check_complete(verb: Verb, given: Collection[str]) -> None:
    """Raise :class:`UserError` if an argument without a default is missing."""
    missing = [name for name, one in verb.arguments.items() if one.default is NEEDED and name not in given]
    if missing:
        raise UserError(f"give {' and '.join(map(flag, missing))} (`ladle {verb.name} --help`)")


def _spelled(verb: Verb, line: Sequence[str]) -> Iterator[tuple[str | None, str | None]]:
    """Names and values in all accepted spellings: ``name=value``, dashes in names, switches.

    Values of the argument that needs no flag have no name. Every word after ``--`` is such a value, and so is the name
    of an existing file. More than one value, also after its flag, is accepted only if the verb takes several.
    """
    known, rest = {*verb.arguments, *verb.also, "config"}, deque(line)
    places = 0 if verb.bare is None else len(line) if verb.several else 1
    marked = False
    while rest:
        word = rest.popleft()
        if word == "--" and verb.bare is not None and not marked:
            marked = True
            while rest and places:
                places -= 1
                yield None, rest.popleft()
            continue
        if places and _is_value(word, known):
            places -= 1
            yield None, word
            continue
        yield _flag(verb, word, rest)


def _flag(verb: Verb, word: str, rest: deque[str]) -> tuple[str | None, str | None]:
    """The name of a flag and its value, which is the next word if it is not part of ``word``."""
    if _is_assignment(word):
        word = f"--{word}"
    if not word.startswith("--") or word == "--":
        raise UserError(f"expected flags such as --name value, found {_quoted(word)} (`ladle {verb.name} --help`)")
    name, equals, value = word[2:].partition("=")
    name = name.replace("-", "_")
    name = verb.also.get(name, name)
    is_one_of_several = verb.several and name == verb.bare
    if is_one_of_several and (equals or rest):
        return None, value if equals else rest.popleft()
    if equals:
        return name, value
    if name in verb.arguments and verb.arguments[name].hint is bool:
        # A word that is neither a flag nor a value of the verb itself is meant as the value, right or wrong.
        takes_word = rest and (rest[0].lower() in (*_TRUE, *_FALSE) or _is_meant(verb, rest[0]))
        return name, rest.popleft() if takes_word else "true"
    return name, None if name in _ALONE or not rest or rest[0].startswith("--") else rest.popleft()


def _is_meant(verb: Verb, word: str) -> bool:
    """Whether a word can only be the value of the flag before it, where the verb takes no word without a flag."""
    return verb.bare is None and not word.startswith("-") and not _is_assignment(word)


def _is_assignment(word: str) -> bool:
    """Whether a word is a flag and its value, without the dashes."""
    key, equals, _ = word.partition("=")
    return bool(equals) and key.isidentifier()


def _is_value(word: str, known: Collection[str]) -> bool:
    """Whether a word is a value without a flag, rather than a flag, possibly misspelled."""
    name = word.lstrip("-").partition("=")[0].replace("-", "_")
    if word.startswith("-"):
        return name not in (*known, *_ALONE) and Path(word).exists()
    if not _is_assignment(word) or Path(word).exists():
        return True
    return name not in known and not get_close_matches(name, known, n=1)


def _argument(verb: Verb, name: str, where: str = "") -> Argument:
    if name in verb.arguments:
        return verb.arguments[name]
    close = get_close_matches(name, verb.arguments, n=1)
    hint = f"did you mean {flag(close[0])}?" if close else f"`ladle {verb.name} --help` lists the flags"
    raise UserError(f"{where}there is no flag {_quoted(flag(name))}; {hint}")


def _add_field(verb: Verb, given: dict[str, Any], name: str, text: str) -> None:
    """Set the field given by a flag such as ``--assigner.topk`` in an argument such as ``assigner``."""
    argument, *path = name.split(".")
    one = _argument(verb, argument)
    if not one.is_value or not all(path):
        raise UserError(f"there is no flag {_quoted(flag(name))}: {flag(argument)} has no fields")
    base = given.get(argument, one.default)
    given[argument] = set_field("" if base is None else base, path, text)


def _needed(name: str, text: str | None, wanted: str) -> str:
    if text is None:
        raise UserError(f"{flag(name)} takes {wanted}, found nothing behind it")
    return text


def _from_file(verb: Verb, file: str) -> dict[str, Any]:
    """The flags of a YAML file, typed."""
    path = Path(file)
    if not path.is_file():
        raise UserError(f"--config {file}: expected a YAML file of flags, found no file there")
    with path.open("rb") as stream:
        values = parse_yaml(stream.read(1_000_000), f"--config {file}")
    if not isinstance(values, dict):
        raise UserError(f"--config {file}: expected flags such as `epochs: 12`, found {shortened(values)}")
    given: dict[str, Any] = {}
    for key, value in values.items():
        name = str(key).replace("-", "_")
        name = verb.also.get(name, name)
        if name in given:
            raise UserError(f"--config {file}: expected {flag(name)} once, found it again as {_quoted(str(key))}")
        argument = _argument(verb, name, f"--config {file}: ")
        hint, value = argument.hint, as_text(value) if argument.is_value else _as_word(argument.hint, value)
        try:
            given[name] = converted(hint, value)
        except MismatchError as wrong:
            raise UserError(f"--config {file}: {flag(name)} takes {_in_words(hint)}, found {wrong.found}") from None
    return given


def _as_word(hint: Any, value: object) -> object:
    """A value of a YAML file as one writes it on the command line, for an argument that takes text alone."""
    if not set(_kinds(hint)) <= {str, NoneType}:
        return value
    if isinstance(value, list) and value and all(map(_is_plain, value)):
        return ",".join(map(str, value))
    return str(value) if _is_plain(value) else value


def _is_plain(value: object) -> bool:
    return isinstance(value, int | float | str) and not isinstance(value, bool)


def _typed(name: str, hint: Any, text: str) -> Any:
    """Convert a word to the type of an argument."""
    try:
        return converted(hint, _value(set(_kinds(hint)), text))
    except MismatchError:
        raise UserError(f"{flag(name)} takes {_in_words(hint)}, found {_quoted(text)}") from None


def _value(kinds: set[Any], text: str) -> object:
    """Convert a word to one of these types if possible; otherwise return the word."""
    if NoneType in kinds and text == "null":
        return None
    if bool in kinds and text.lower() in (*_TRUE, *_FALSE):
        return text.lower() in _TRUE
    if int in kinds and _INT.fullmatch(text):
        return int(text)
    return float(text) if float in kinds and _FLOAT.fullmatch(text) else text


def _kinds(hint: Any) -> Iterator[Any]:
    """The plain types in a type hint."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        yield from _kinds(args[0])
    elif origin in (Union, UnionType):
        for part in args:
            yield from _kinds(part)
    else:
        yield str if origin is Literal or hint is Path else hint


def _in_words(hint: Any) -> str:
    """Describe a type in words, without None; a path is a text here."""
    parts = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    plain = [part for part in parts if part in _PLAIN or get_origin(part) is not None]
    return " or ".join(words(part) for part in plain or parts if part not in (NoneType, Path))


def _quoted(text: str) -> str:
    return text if text.isprintable() and 0 < len(text) <= 60 else shortened(text)
