"""Assigners by name and fields, as ``--assigner`` takes them and ``config.yaml`` keeps them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from inspect import signature
from typing import Any, cast

from ladle import assigners
from ladle.assigners import Assigner
from ladle.errors import UserError
from ladle.limits import MismatchError, converted, hints_of
from ladle.testing import example_scene

__all__ = ["ASSIGNERS", "assigner_named", "text_of"]

_TAKES = ["self", "predictions", "priors", "truth"]


def _assigners() -> Iterator[Assigner]:
    for part in vars(assigners).values():
        if isinstance(part, type) and is_dataclass(part):
            called = vars(part).get("__call__")
            if called is not None and list(signature(called).parameters) == _TAKES:
                yield cast(Assigner, part())


ASSIGNERS: dict[str, Assigner] = {type(rule).__name__: rule for rule in _assigners()}
"""Every assigner of ``ladle.assigners`` by the name of its class, with the settings of its paper."""
_KINDS = {type(rule) for rule in ASSIGNERS.values()}


def assigner_named(text: str) -> Assigner:
    """The assigner that ``text`` names, perhaps with fields: ``PAA``, ``paa``, ``PAA(topk=13, pool=MaxIoU(0.2, 0.2))``.

    Raises :class:`UserError` for an unknown name or field, and for values that the assigner does not take.
    """
    plain = text.replace("-", "_") if re.fullmatch(r"[\w-]+", text) else text
    try:
        rule = _value(ast.parse(plain, mode="eval").body, text)
    except UserError:
        raise
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        rule = None
    if type(rule) not in _KINDS:
        raise UserError(f"--assigner {text}: expected a name such as PAA, or one with fields such as PAA(topk=13)")
    try:
        serves = bool(cast(Assigner, rule)(*example_scene()).positive.any())
    except Exception as error:  # values that contradict each other show in many ways
        raise UserError(f"--assigner {text} does not work: {' '.join(str(error).split())[:200]}") from None
    if not serves:
        raise UserError(f"--assigner {text} does not work: in a scene full of objects no prior learns any")
    return cast(Assigner, rule)


def text_of(assigner: Assigner) -> str:
    """The text by which :func:`assigner_named` knows an assigner; raises :class:`UserError` where it is not Ladle's."""
    if type(assigner) not in _KINDS:
        raise UserError(
            f"{type(assigner).__name__} is not in ladle.assigners: put it into a Lesson and train with an objective of "
            "your own, as the tutorial shows"
        )
    return _expression(assigner)


def _value(node: ast.expr, text: str) -> Any:
    """The value of an expression of literals and assigners; nothing else is looked up or called."""
    if isinstance(node, ast.Name):
        return ASSIGNERS[_known(node.id, text)]
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
        return ast.literal_eval(node)
    kind: Any = type(ASSIGNERS[_known(node.func.id, text)])
    hints, names = hints_of(kind), [one.name for one in fields(kind)]
    given = dict(zip(names, node.args, strict=False)) | {str(one.arg): one.value for one in node.keywords}
    unknown = [name for name in given if name not in names]
    if unknown or len(node.args) > len(names):
        what = f"no field {unknown[0]!r}" if unknown else f"{len(names)} fields only"
        raise UserError(f"--assigner {text}: {kind.__name__} has {what}; its fields are {', '.join(names)}")
    values = {name: _value(one, text) for name, one in given.items()}
    for name, value in values.items():
        try:
            values[name] = converted(hints[name], value)
        except MismatchError as wrong:
            raise UserError(f"--assigner {text}: {name} takes {wrong.expected}, found {wrong.found}") from None
        if isinstance(value, int | float) and value < 0:
            raise UserError(f"--assigner {text}: {name} takes a number of 0 or more, found {value}")
    return kind(**values)


def _known(name: str, text: str) -> str:
    """The name as it is written here, however it is capitalized or hyphenated."""
    known = {known.lower(): known for known in ASSIGNERS}
    plain = name.replace("_", "").lower()
    if plain in known:
        return known[plain]
    close = get_close_matches(plain, known, n=1)
    hint = f"did you mean {known[close[0]]}?" if close else f"take one of {', '.join(ASSIGNERS)}"
    raise UserError(f"--assigner {text}: no assigner is called that; {hint}")


def _expression(value: Any) -> str:
    """An expression of a value, with those fields of an assigner that differ from its own defaults."""
    if type(value) not in _KINDS:
        return repr(value)
    usual = type(value)()
    given = [(one.name, getattr(value, one.name)) for one in fields(value)]
    inner = ", ".join(f"{name}={_expression(one)}" for name, one in given if one != getattr(usual, name))
    return f"{type(value).__name__}({inner})" if inner else type(value).__name__
