"""JSON and YAML from untrusted sources, read in limited time and memory and converted to records; tensors as data.

Every error is one sentence with the file, the place in it, what was expected, and what was found.
"""

from __future__ import annotations

import json
import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any, TypeVar

import yaml

from ladle.errors import UserError
from ladle.limits import MismatchError, converted, shortened

__all__ = ["parse_json", "parse_yaml", "read_record", "read_weights"]

T = TypeVar("T")

_MOST_JSON = 4_000_000
_MOST_YAML = 32_000
"""Most bytes of a text."""
_DEEPEST = 50
"""Most levels of lists and mappings in YAML; JSON is limited by the interpreter's recursion limit."""


def read_record(kind: type[T], value: object, where: str, mend: str) -> T:
    """Convert plain data to a record of type ``kind``.

    Args:
        kind: the type of the record.
        value: data from JSON or YAML.
        where: their source, for messages.
        mend: what the user can do about an error.

    Raises:
        UserError: if the data do not match the type.
    """
    try:
        record: T = converted(kind, value)
        return record
    except MismatchError as wrong:
        raise UserError(f"{where}: {wrong}; {mend}") from None


def parse_json(text: str | bytes, where: str, most: int = _MOST_JSON) -> Any:
    """The data of a JSON text of at most ``most`` bytes; raises :class:`UserError` for anything else.

    Repeated keys are refused. NaN and infinity are accepted here; the record decides whether they are allowed.
    """
    text = _checked(text, where, "JSON", most)
    try:
        return json.loads(text, object_pairs_hook=_without_repeats)
    except RecursionError:
        raise UserError(f"{where}: expected plain JSON, found brackets nested too deeply") from None
    except ValueError as error:
        raise UserError(f"{where}: expected JSON, found none that can be read ({_line(error)})") from None


def parse_yaml(text: str | bytes, where: str, most: int = _MOST_YAML) -> Any:
    """The data of a YAML text of at most ``most`` bytes; raises :class:`UserError` for anything else.

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
    """The message of an error on one line of limited length."""
    return " ".join(str(error).split())[:200]


class _NotPlain(yaml.YAMLError):
    """The YAML contains something that JSON cannot express."""


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, limited to what JSON can express, with the numbers of YAML 1.2."""

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


def read_weights(file: Path) -> Any:
    """The tensors of a file that another program wrote, .safetensors or torch's format; pickled code is never run.

    Each format raises errors of its own, of any type, for what it cannot read.
    """
    if file.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(file)
    import torch

    return torch.load(file, map_location="cpu", weights_only=True)
