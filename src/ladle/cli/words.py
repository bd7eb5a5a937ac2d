"""Telling the arguments that stand without a flag from flags and their values."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence
from difflib import get_close_matches
from pathlib import Path

__all__ = ["ALONE", "FALSE", "TRUE", "is_assignment", "part_words"]

ALONE = ("help", "print_config")
"""The flags that take no value."""
TRUE, FALSE = ("true", "yes", "on"), ("false", "no", "off")


def part_words(
    words: Sequence[str], name: str, several: bool, flags: Collection[str], switches: Collection[str] = ()
) -> tuple[list[str], list[str]]:
    """The values of ``name``, which need no flag in front of them, and all other words.

    After ``--`` every word is such a value, and so is the name of a file, whatever it looks like. Only where there may
    be ``several`` values is it also taken from behind its own flag, and more than one without. Of the ``flags``,
    ``switches`` take no value but true or false.
    """
    rest, values, others = deque(words), list[str](), list[str]()
    most = len(words) if several else 1
    while rest:
        word = rest.popleft()
        if word == "--":
            values += rest
            break
        if len(values) < most and _is_value(word, flags):
            values.append(word)
        elif several and word.removeprefix("--").startswith(f"{name}="):
            values.append(word.partition("=")[2])
        elif several and word == f"--{name}" and rest:
            values.append(rest.popleft())
        else:
            others.append(word)
            if rest and _takes_next(word, rest[0], switches):
                others.append(rest.popleft())
    return values[:most], [*others, *values[most:]]


def is_assignment(word: str) -> bool:
    """Whether a word is a flag and its value, without the dashes."""
    key, equals, _ = word.partition("=")
    return bool(equals) and key.isidentifier()


def _is_value(word: str, flags: Collection[str]) -> bool:
    name = word.lstrip("-").partition("=")[0].replace("-", "_")
    if word.startswith("-"):
        return name not in (*flags, *ALONE) and Path(word).exists()
    if not is_assignment(word) or Path(word).exists():
        return True
    return name not in flags and not get_close_matches(name, flags, n=1)


def _takes_next(word: str, following: str, switches: Collection[str]) -> bool:
    flag = word.removeprefix("--").replace("-", "_")
    if not word.startswith("--") or "=" in word or flag in ALONE or following.startswith("--"):
        return False
    return flag not in switches or following.lower() in (*TRUE, *FALSE)
