"""Make names of classes, files and titles readable; they come from data sets and may contain anything."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence

__all__ = ["on_one_line", "printable", "readable", "shortened"]

_LONGEST = 40
"""Most characters of a name in a table or a legend."""
_JOINERS = "\u200c\u200d\ufe0e\ufe0f"
"""Zero-width joiners and variation selectors, which are parts of words and emoji but invisible."""


def printable(text: str, encoding: str = "utf-8") -> str:
    r"""The text on one line, with characters that a terminal would interpret or cannot show as escapes (``\x1b``).

    These are control characters, line breaks, marks of writing direction, lone surrogates, and characters that
    ``encoding`` does not have.
    """
    shown = "".join(c if c in _JOINERS or not _is_hidden(c) else ascii(c)[1:-1] for c in text)
    return shown.encode(encoding, "backslashreplace").decode(encoding)


def on_one_line(name: str) -> str:
    """The name in printable form: normalized to NFC, with single blanks instead of other white space."""
    return printable(" ".join(unicodedata.normalize("NFC", name).split()))


def shortened(text: str, most: int) -> str:
    """The text with at most ``most`` characters: its beginning and its end with an ellipsis in between."""
    if len(text) <= most:
        return text
    tail = (most - 1) // 3
    return f"{text[: most - 1 - tail]}…{text[len(text) - tail :]}"


def readable(
    names: Sequence[str],
    kind: str = "class",
    most: int = _LONGEST,
    drawable: Callable[[str], bool] = lambda _: True,
) -> list[str]:
    """Readable and distinct forms of all names, on one line and with at most ``most`` characters.

    A name that is empty or not ``drawable`` becomes its place in the list, such as ``class 1``. Names that would look
    the same, because they are shortened or differ only in blanks, get their place appended.
    """
    places = [f"{kind} {number}" for number in range(1, len(names) + 1)]
    spelled = [on_one_line(name) for name in names]
    texts = [
        shortened(text, most) if _visible(text) and drawable(text) else place
        for text, place in zip(spelled, places, strict=True)
    ]
    with_place = [text == place for text, place in zip(texts, places, strict=True)]
    while doubles := _doubles(texts, with_place):
        for index in doubles:
            place = f" ({places[index]})"
            texts[index] = shortened(spelled[index], max(most - len(place), 3)) + place
            with_place[index] = True
    return texts


def _doubles(texts: Sequence[str], with_place: Sequence[bool]) -> list[int]:
    """The texts that look like another one and do not have their place appended yet."""
    seen = Counter(map(_visible, texts))
    return [index for index, text in enumerate(texts) if seen[_visible(text)] > 1 and not with_place[index]]


def _visible(text: str) -> str:
    """The visible characters of a text."""
    return text.translate(dict.fromkeys(map(ord, _JOINERS)))


def _is_hidden(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp")
