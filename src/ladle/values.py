"""Parse text such as ``PAA``, ``PAA(topk=13)`` or ``mymodule:Mine(size=3)`` into values.

The same text is used on the command line, in YAML and in the ``config.yaml`` of a run.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from difflib import get_close_matches
from importlib import import_module
from inspect import signature
from types import MappingProxyType
from typing import Any, NamedTuple

from ladle.errors import UserError
from ladle.limits import MismatchError, converted, hints_of, shortened

__all__ = [
    "Kind",
    "Named",
    "as_text",
    "first_sentence",
    "known_name",
    "named",
    "offered",
    "set_field",
    "split_sum",
    "text_of",
    "value_of",
    "with_fields",
]

_NAMED = re.compile(r"\s*(?P<name>[A-Za-z_][\w-]*|[A-Za-z_][\w.]*:[A-Za-z_][\w.]*)\s*(?P<fields>\(.*\))?\s*", re.DOTALL)


_CALL = re.compile(r"[A-Za-z_]\w*\(.*\)", re.DOTALL)


class Kind(NamedTuple):
    """A kind of value that a flag takes.

    Attributes:
        flag: such as ``--assigner``.
        noun: its name in messages, such as ``assigner``.
        classes: Ladle's classes of this kind, by name.
        example: a class with a field, for messages.
        inner: classes that only fields take, such as ``SimD`` in ``MaxIoU(overlap=SimD(m=6.1, n=4.6))``.
    """

    flag: str
    noun: str
    classes: Mapping[str, type]
    example: str
    inner: Mapping[str, type] = MappingProxyType({})

    def malformed(self, text: str) -> UserError:
        """The error about a text that is neither a name nor a name with fields."""
        plain = self.example.partition("(")[0]
        return UserError(
            f"{self.flag} {shortened(text)}: expected a name such as {plain}, or one with fields such as {self.example}"
        )


class Named(NamedTuple):
    """A parsed text: the name, and the expression of its fields with its parentheses, or empty."""

    name: str
    fields: str


def offered(package: object, member: str, takes: Sequence[str] | None = None) -> dict[str, type]:
    """The dataclasses of a package that define a method ``member``, by name; ``takes`` are its arguments' names."""
    found = {}
    for name, one in vars(package).items():
        method = vars(one).get(member) if isinstance(one, type) and is_dataclass(one) else None
        if method is not None and (takes is None or list(signature(method).parameters)[1:] == list(takes)):
            found[name] = one
    return found


def as_text(given: object) -> str | None:
    """The text for a YAML value: text as it is, ``{class: PAA, topk: 13}``, or a list of these, joined by ``+``."""
    if given is None or isinstance(given, str):
        return given
    if isinstance(given, Mapping):
        inner = ", ".join(f"{key}={_literal(value)}" for key, value in given.items() if key != "class")
        return f"{given.get('class', '')}({inner})" if inner else str(given.get("class", ""))
    if isinstance(given, list | tuple):
        return "+".join(str(as_text(one)) for one in given)
    return str(given)


def _literal(value: object) -> str:
    return str(as_text(value)) if isinstance(value, Mapping) else repr(value)


def split_sum(text: str) -> list[str]:
    """The parts of a sum; a ``+`` in parentheses or quotes does not separate."""
    parts, depth, quote = [""], 0, ""
    for letter in text:
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"":
            quote = letter
        else:
            depth += (letter in "([{") - (letter in ")]}")
        if letter == "+" and depth == 0 and not quote:
            parts.append("")
        else:
            parts[-1] += letter
    return parts


def named(kind: Kind, text: str) -> Named:
    """The name and the fields of a text; raises :class:`UserError` for any other form."""
    found = _NAMED.fullmatch(text)
    if found is None or len(text) > 10_000:
        raise kind.malformed(text)
    return Named(found["name"], found["fields"] or "")


def value_of(kind: Kind, text: str, imports: bool = True) -> Any:
    """The value that a text names.

    A name is that of one of Ladle's classes, in any capitalization and with or without hyphens, or ``module:Name``,
    which is imported. Importing runs code, so ``imports=False`` forbids it. A dataclass is made with the given fields.

    Raises:
        UserError: for an unknown name or field, and for a value that does not fit its field.

    Examples:
        >>> from ladle.recipes.parts import ASSIGNER
        >>> from ladle.values import value_of
        >>> value_of(ASSIGNER, "max-iou(positive=0.6)").positive
        0.6
    """
    name, given = named(kind, text)
    if ":" in name:
        return _imported(kind, name, given, text, imports)
    found = kind.classes[known_name(kind, name, text)]
    return _made(kind, found, _call(kind, given, text), text)


def text_of(kind: Kind, value: object) -> str:
    """The text from which :func:`value_of` makes the value again: its class and its non-default fields.

    A class that is not Ladle's is written as ``module:Name``.
    """
    if isinstance(value, type) or not is_dataclass(value):
        return _class_name(kind, value if isinstance(value, type) or callable(value) else type(value))
    given = [(one.name, getattr(value, one.name)) for one in fields(value) if one.init]
    usual = _defaults(type(value))
    inner = ", ".join(
        f"{name}={_expression(kind, one)}" for name, one in given if name not in usual or usual[name] != one
    )
    name = _class_name(kind, type(value))
    return f"{name}({inner})" if inner else name


def known_name(kind: Kind, name: str, text: str) -> str:
    """The exact name of a class; raises :class:`UserError` for an unknown one."""
    known = {one.lower(): one for one in kind.classes}
    plain = name.replace("_", "").replace("-", "").lower()
    if plain in known:
        return known[plain]
    close = get_close_matches(plain, known, n=1)
    hint = f"did you mean {known[close[0]]}?" if close else f"take one of {', '.join(kind.classes)}, or module:Name"
    raise UserError(f"{kind.flag} {text}: no {kind.noun} is called that; {hint}")


def first_sentence(found: type) -> str:
    """The first sentence of a class's docstring, without its source in parentheses."""
    first = " ".join((found.__doc__ or "").split("\n\n")[0].split())
    return first.partition(" (")[0].removesuffix(".") + "."


def set_field(text: str, path: Sequence[str], value: str) -> str:
    """A text with one more field: ``PAA`` and ``["topk"]`` give ``PAA(topk=13)``, ``lad+pkd`` and ``["pkd", "weight"]``
    give ``lad+pkd(weight=2)``.

    ``value`` is a literal, a class with its fields such as ``SimD(m=6, n=5)``, or is taken as text. Raises
    :class:`UserError` for a part that the text does not have.
    """
    *part, field = path
    try:
        ast.literal_eval(value)
    except (ValueError, SyntaxError):
        value = value if _CALL.fullmatch(value) else repr(value)
    parts = split_sum(text)
    for place, one in enumerate(parts):
        name, opening, fields = one.partition("(")
        if not part or name == part[0]:
            inner = fields.rstrip().removesuffix(")") if opening else ""
            parts[place] = f"{name}({f'{inner}, ' if inner else ''}{field}={value})"
            return "+".join(parts)
    raise UserError(f"--method.{'.'.join(path)} {value}: {part[0]!r} is no part of {text}")


def with_fields(kind: Kind, value: Any, given: str, text: str) -> Any:
    """A dataclass with the fields replaced that an expression such as ``(weight=2)`` names."""
    if not given:
        return value
    now = {one.name: getattr(value, one.name) for one in fields(value) if one.init}
    return _made(kind, type(value), _call(kind, given, text), text, now)


def _imported(kind: Kind, name: str, given: str, text: str, imports: bool) -> Any:
    """The object ``module:Name``: a dataclass with its fields, or any other object as it is."""
    if not imports:
        raise UserError(
            f"this run was begun with {kind.flag} {text}, which is code of your own; resuming imports nothing, so give "
            f"{kind.flag} '{text}' again"
        )
    module, _, path = name.partition(":")
    try:
        found: Any = import_module(module)
        for part in path.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"{kind.flag} {text}: expected module:Name that can be imported ({error})") from None
    if isinstance(found, type) and is_dataclass(found):
        return _made(kind, found, _call(kind, given, text), text)
    if given or isinstance(found, type):
        raise UserError(f"{kind.flag} {text}: expected a dataclass or an object, found {shortened(found)}")
    return found


def _call(kind: Kind, given: str, text: str) -> ast.Call:
    try:
        node = ast.parse(f"_{given or '()'}", mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        node = None
    if (
        not isinstance(node, ast.Call)
        or not isinstance(node.func, ast.Name)
        or any(one.arg is None for one in node.keywords)
    ):
        raise kind.malformed(text)
    return node


def _made(kind: Kind, found: Any, call: ast.Call, text: str, now: Mapping[str, Any] | None = None) -> Any:
    """An instance with these fields, each checked against its type; the others are as they are ``now``."""
    hints = hints_of(found)
    names = [one.name for one in fields(found) if one.init]
    given = dict(zip(names, call.args, strict=False)) | {str(one.arg): one.value for one in call.keywords}
    unknown = [name for name in given if name not in names]
    if unknown or len(call.args) > len(names):
        what = f"no field {unknown[0]!r}" if unknown else f"{len(names)} fields only"
        raise UserError(f"{kind.flag} {text}: {found.__name__} has {what}; its fields are {', '.join(names) or 'none'}")
    values = {name: _checked(kind, hints[name], name, node, text) for name, node in given.items()}
    needed = [name for name in names if name not in _defaults(found) and name not in values and now is None]
    if needed:
        raise UserError(f"{kind.flag} {text}: {found.__name__} needs {' and '.join(needed)}")
    try:
        return found(**dict(now or {}) | values)
    except (TypeError, ValueError) as error:
        raise UserError(f"{kind.flag} {text}: {error}") from None


def _checked(kind: Kind, hint: Any, name: str, node: ast.expr, text: str) -> Any:
    """The value of a field."""
    value = _word(kind, hint, node)
    value = _evaluated(kind, node, text) if value is None else value
    try:
        value = converted(hint, value)
    except MismatchError as wrong:
        raise UserError(f"{kind.flag} {text}: {name} takes {wrong.expected}, found {wrong.found}") from None
    except TypeError:
        pass  # the hint cannot be checked for plain values: the class checks it
    if isinstance(value, int | float) and value < 0:
        raise UserError(f"{kind.flag} {text}: {name} takes a number of 0 or more, found {value}")
    return value


def _word(kind: Kind, hint: Any, node: ast.expr) -> str | None:
    """A word without quotes that means no class, where the field takes plain values: ``abc`` in ``PAA(topk=abc)``."""
    if not isinstance(node, ast.Name):
        return None
    known = [name.lower() for name in (*kind.classes, *kind.inner)]
    try:
        converted(hint, node.id)
    except MismatchError:
        return None if get_close_matches(node.id.lower(), known, n=1) else node.id
    except TypeError:
        return None
    return None if node.id.lower() in known else node.id


def _evaluated(kind: Kind, node: ast.expr, text: str) -> Any:
    """The value of an expression of literals and Ladle's classes; nothing else is looked up or called."""
    call = ast.Call(node, [], []) if isinstance(node, ast.Name) else node
    if isinstance(call, ast.Call) and isinstance(call.func, ast.Name):
        within = kind._replace(classes={**kind.classes, **kind.inner})
        return _made(kind, within.classes[known_name(within, call.func.id, text)], call, text)
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        raise kind.malformed(text) from None


def _defaults(found: Any) -> dict[str, Any]:
    """The default values of a class."""
    usual = {one.name: one.default for one in fields(found) if one.default is not MISSING}
    made = {one.name: one.default_factory() for one in fields(found) if one.default_factory is not MISSING}
    return usual | made


def _class_name(kind: Kind, found: Any) -> str:
    known = [name for name, one in (*kind.classes.items(), *kind.inner.items()) if one is found]
    return known[0] if known else f"{found.__module__}:{found.__qualname__}"


def _expression(kind: Kind, value: Any) -> str:
    if is_dataclass(value) and not isinstance(value, type):
        return text_of(kind, value)
    if isinstance(value, type) or callable(value):
        return _class_name(kind, value)
    if isinstance(value, tuple):
        inner = ", ".join(_expression(kind, one) for one in value)
        return f"({inner},)" if len(value) == 1 else f"({inner})"
    return repr(value)
