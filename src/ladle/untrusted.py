"""JSON and YAML that anybody may have written, read in bounded time and memory and turned into records.

Whatever is wrong is one sentence: the file, where in it, what was expected, what was found.
"""

from __future__ import annotations

import json
import re
from collections.abc import Hashable
from typing import Any, TypeVar

import yaml

from ladle.errors import UserError
from ladle.limits import MismatchError, converted, shortened

__all__ = ["parse_json", "parse_yaml", "read_record"]

T = TypeVar("T")

_MOST_JSON = 4_000_000
_MOST_YAML = 32_000
"""So many bytes a text may have."""
_DEEPEST = 50
"""So many levels of lists and mappings YAML may have; JSON is stopped by the interpreter's own limit."""


def read_record(kind: type[T], value: object, where: str, mend: str) -> T:
    """The record of type ``kind`` that plain data describe.

    ``where`` is what they were read from, ``mend`` what the user can do about it. Raises :class:`UserError`.
    """
    try:
        record: T = converted(kind, value)
        return record
    except MismatchError as wrong:
        raise UserError(f"{where}: {wrong}; {mend}") from None


def parse_json(text: str | bytes, where: str, most: int = _MOST_JSON) -> Any:
    """The plain data of a JSON text of at most ``most`` bytes; raises :class:`UserError` for anything else.

    A key that is repeated is refused. NaN and infinities are read: whether they may stand there the record says.
    """
    text = _checked(text, where, "JSON", most)
    try:
        return json.loads(text, object_pairs_hook=_without_repeats)
    except RecursionError:
        raise UserError(f"{where}: expected plain JSON, found brackets nested too deeply") from None
    except ValueError as error:
        raise UserError(f"{where}: expected JSON, found none that can be read ({_line(error)})") from None


def parse_yaml(text: str | bytes, where: str, most: int = _MOST_YAML) -> Any:
    """The plain data of a YAML text of at most ``most`` bytes; raises :class:`UserError` for anything else.

    Aliases, tags, repeated keys and deep nesting are refused. ``1e-3`` is a number; dates, 010 and 1:30 are text.
    """
    text = _checked(text, where, "YAML", most)
    try:
        return yaml.load(text, _Loader)
    except _NotPlain as found:
        raise UserError(f"{where}: expected plain YAML, found {found}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"{where}: expected YAML, found none that can be read ({_line(error)})") from None


def _checked(text: str | bytes, where: str, language: str, most: int) -> str:
    if len(text) > most:
        raise UserError(f"{where}: expected {language} of at most {most} bytes, found {len(text)}")
    try:
        return text if isinstance(text, str) else text.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"{where}: expected {language} in UTF-8, found bytes that are not") from None


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in found if names.count(name) > 1)
        raise ValueError(f"the key {shortened(repeated)} stands there more than once")
    return found


def _line(error: Exception) -> str:
    """The words of an error on one line of bounded length."""
    return " ".join(str(error).split())[:200]


class _NotPlain(yaml.YAMLError):
    """YAML may say more than JSON, and that is refused."""


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader for what JSON could say too, with the numbers of YAML 1.2."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise _NotPlain("an alias, which may stand for anything")
        tag = getattr(self.peek_event(), "tag", None)  # type: ignore[no-untyped-call]
        if tag is not None:
            raise _NotPlain(f"the tag {tag}")
        if self.depth >= _DEEPEST:
            raise _NotPlain(f"more than {_DEEPEST} levels of lists and mappings")
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        found: dict[Hashable, Any] = super().construct_mapping(node, deep)
        if len(found) < len(node.value):
            raise _NotPlain("a key that stands there more than once")
        return found


_INT = r"[-+]?(0|[1-9]\d*)"
_FLOAT = r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+|[-+]?(\d+\.\d*|\.\d+)|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith((":timestamp", ":float", ":int"))]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(f"^(?:{_INT})$", re.ASCII), list("-+0123456789"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(f"^(?:{_FLOAT})$", re.ASCII), list("-+0123456789."))
