"""YAML files in which every scalar is text, so that a class called no, 007 or 12:30 keeps its name.

Supported is what data files need: mappings with text as keys, lists, and aliases of limited size. Tags for objects,
repeated keys, and documents that become too large by their aliases are refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

import yaml
from yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)

from ladle.data.documents import read_text
from ladle.data.values import shown
from ladle.errors import UserError

__all__ = ["YamlValue", "read_yaml"]

YamlValue: TypeAlias = str | list[Any] | dict[str, Any]
"""Text, a list of such values, or a mapping from text to such values."""

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_MOST_BYTES = 2**21
_MOST_NODES = 200_000
_MOST_DEPTH = 16
_PLAIN_TAGS = frozenset({None, "!", *(f"tag:yaml.org,2002:{kind}" for kind in ("str", "int", "float", "seq", "map"))})


def read_yaml(file: Path) -> YamlValue:
    """The value in a YAML file; raises UserError for invalid YAML and for repeated keys."""
    text = read_text(file, _MOST_BYTES)
    try:
        return _Builder().document(yaml.parse(text, Loader=_Loader))
    except (yaml.YAMLError, _NoDataFileError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{file}: expected a YOLO data file, found YAML that cannot be read ({reason})") from error


class _NoDataFileError(Exception):
    """The text is valid YAML, but not a data file; the message is the reason."""


class _Builder:
    """Builds the value from a stream of events; an alias counts as many nodes as the value it refers to."""

    def __init__(self) -> None:
        self.anchors: dict[str, tuple[YamlValue, int]] = {}
        self.nodes = 0

    def document(self, events: Iterator[Event]) -> YamlValue:
        starts = 0
        value: YamlValue = ""
        for event in events:
            if isinstance(event, DocumentStartEvent):
                starts += 1
                if starts > 1:
                    raise _NoDataFileError("it holds several documents")
            elif isinstance(event, ScalarEvent | SequenceStartEvent | MappingStartEvent | AliasEvent):
                value = self._value(event, events, 0)
        return value

    def _value(self, event: Event, events: Iterator[Event], depth: int) -> YamlValue:
        if isinstance(event, AliasEvent):
            return self._alias(event)
        assert isinstance(event, ScalarEvent | SequenceStartEvent | MappingStartEvent)
        if depth > _MOST_DEPTH:
            raise _NoDataFileError(f"it is nested more than {_MOST_DEPTH} deep, at {_line(event)}")
        if event.tag not in _PLAIN_TAGS:
            raise _NoDataFileError(f"it has the tag {event.tag!r} at {_line(event)}")
        before = self.nodes
        self._count(1, event)
        value: YamlValue = event.value if isinstance(event, ScalarEvent) else self._collection(event, events, depth)
        if event.anchor is not None:
            self.anchors[event.anchor] = value, self.nodes - before
        return value

    def _collection(self, start: Event, events: Iterator[Event], depth: int) -> YamlValue:
        if isinstance(start, SequenceStartEvent):
            return [self._value(event, events, depth + 1) for event in _until(events, SequenceEndEvent)]
        mapping: dict[str, YamlValue] = {}
        for event in _until(events, MappingEndEvent):
            key = self._value(event, events, depth + 1)
            if not isinstance(key, str) or key == "<<":
                raise _NoDataFileError(f"it has the key {shown(key)} at {_line(event)}, where a word is expected")
            if key in mapping:
                raise _NoDataFileError(f"it has the key {shown(key)} twice, the second time at {_line(event)}")
            mapping[key] = self._value(next(events), events, depth + 1)
        return mapping

    def _alias(self, event: AliasEvent) -> YamlValue:
        if event.anchor not in self.anchors:
            raise _NoDataFileError(f"the alias *{event.anchor} at {_line(event)} stands for nothing before it")
        value, nodes = self.anchors[event.anchor]
        self._count(nodes, event)
        return value

    def _count(self, nodes: int, event: Event) -> None:
        self.nodes += nodes
        if self.nodes > _MOST_NODES:
            raise _NoDataFileError(f"it holds more than {_MOST_NODES} values, at {_line(event)}")


def _until(events: Iterator[Event], end: type[Event]) -> Iterator[Event]:
    for event in events:
        if isinstance(event, end):
            return
        yield event


def _line(event: Event) -> str:
    return f"line {event.start_mark.line + 1}" if event.start_mark else "its start"
