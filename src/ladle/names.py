"""Names made readable: those of classes, files and titles come from data sets and may hold anything."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence

__all__ = ["on_one_line", "printable", "readable", "shortened"]

_LONGEST = 40
"""More characters of a name than this have no place in a table or a legend."""
_JOINERS = "\u200c\u200d\ufe0e\ufe0f"
"""Zero-width joiners and variation selectors: parts of words and of emoji, without an ink of their own."""


def printable(text: str, encoding: str = "utf-8") -> str:
    r"""The text on one line, with everything a terminal would obey or could not show written out, as in ``\x1b``.

    That is control characters, line ends, marks that turn the direction of writing, lone surrogates, and what
    ``encoding`` lacks.
    """
    shown = "".join(c if c in _JOINERS or not _is_hidden(c) else ascii(c)[1:-1] for c in text)
    return shown.encode(encoding, "backslashreplace").decode(encoding)


def on_one_line(name: str) -> str:
    """The name as it can be shown: printable, composed, and with single blanks in place of any other."""
    return printable(" ".join(unicodedata.normalize("NFC", name).split()))


def shortened(text: str, most: int) -> str:
    """At most so many characters: the beginning and the end, with a mark between them."""
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
    """Every name as people can read it, on one line and of at most ``most`` characters, no two of them alike.

    A name that is empty or not ``drawable`` becomes its place in the list, such as ``class 1``. Names that would read
    alike, because they are shortened or differ in blanks, get that behind them.
    """
    places = [f"{kind} {number}" for number in range(1, len(names) + 1)]
    spelled = [on_one_line(name) for name in names]
    texts = [
        shortened(text, most) if _look(text) and drawable(text) else place
        for text, place in zip(spelled, places, strict=True)
    ]
    settled = [text == place for text, place in zip(texts, places, strict=True)]
    while doubles := _doubles(texts, settled):
        for index in doubles:
            place = f" ({places[index]})"
            texts[index] = shortened(spelled[index], max(most - len(place), 3)) + place
            settled[index] = True
    return texts


def _doubles(texts: Sequence[str], settled: Sequence[bool]) -> list[int]:
    """Which texts look like another one and can still be told apart by their place."""
    seen = Counter(map(_look, texts))
    return [index for index, text in enumerate(texts) if seen[_look(text)] > 1 and not settled[index]]


def _look(text: str) -> str:
    """What is seen of a text."""
    return text.translate(dict.fromkeys(map(ord, _JOINERS)))


def _is_hidden(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp")
