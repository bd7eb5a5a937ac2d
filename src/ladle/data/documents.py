"""Text and JSON files from untrusted sources: limited in size, in UTF-8, without contradictory keys."""

from __future__ import annotations

import codecs
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ladle.data.values import shown
from ladle.errors import UserError
from ladle.files import read_regular

__all__ = ["decoded", "read_json", "read_text"]

_MOST_TEXT = 2**26
_MOST_JSON = 2**34
_MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16, as PowerShell's > writes it",
    codecs.BOM_UTF16_BE: "UTF-16",
}
_START = 64


def read_text(file: Path, most: int = _MOST_TEXT) -> str:
    """The text of a UTF-8 file of at most ``most`` bytes, with or without a byte order mark.

    Raises:
        UserError: for any other encoding; the message names the file and the probable encoding.
    """
    return decoded(read_regular(file, most), file)


def decoded(content: bytes, file: Path) -> str:
    """Decode bytes as UTF-8; raises UserError with the file and the first invalid byte."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        mark = next((name for mark, name in _MARKS.items() if content.startswith(mark)), None)
        line = content.count(b"\n", 0, error.start) + 1
        found = mark or f"the byte 0x{content[error.start]:02x} in line {line}, perhaps of Windows-1252"
        raise UserError(f"{file}: expected UTF-8 text, found {found}: save it as UTF-8") from error


def read_json(file: Path, lighten: Callable[[dict[str, Any]], object] = dict) -> Any:
    """The value in a JSON file; raises UserError for invalid JSON and for an object with two values for one key.

    ``lighten`` may replace each object by something smaller, so that less memory is taken while the rest is read.
    """
    text = _content(file)
    try:
        return json.loads(text, object_pairs_hook=lambda pairs: lighten(_object(pairs)))
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else error
        raise UserError(f"{file}: expected JSON, found none that can be read ({reason})") from error


def _content(file: Path) -> str:
    content = read_regular(file, _MOST_JSON)
    if not content[:_START].strip(b"\0"):
        raise UserError(f"{file}: expected JSON, found {'zeros' if content else 'an empty file'}")
    return decoded(content, file)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        _refuse_contradiction(pairs)
    return found


def _refuse_contradiction(pairs: list[tuple[str, Any]]) -> None:
    """Raise ValueError if a key has two different values; repetitions of the same value are accepted."""
    known: dict[str, Any] = {}
    for key, value in pairs:
        if known.setdefault(key, value) != value:
            raise ValueError(f"an object has the key {key!r} twice, as {shown(known[key])} and {shown(value)}")
