"""Names in images and charts: written in a font that has their characters, or replaced by a number.

matplotlib includes the font DejaVu Sans, which has most alphabets. For other scripts the installed fonts are searched;
if none has all characters of a name, it is written as ``class 1``. Names are never interpreted as formulas.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ladle.names import on_one_line, readable

if TYPE_CHECKING:
    from PIL import ImageFont

__all__ = ["Label", "default_style", "escaped", "image_font", "labels_of", "unwritten", "width_of", "write"]

_BESIDE = frozenset(map(ord, "abcdefghijklmnopqrstuvwxyz 0123456789.()±…"))
"""Characters that may be written next to a name in the same font: a score, a number, an ellipsis."""
_PRETENDERS = ("lastresort", "adobeblank", "adobenotdef")
"""Fonts that list every character but draw the same placeholder for all of them."""


class Label(NamedTuple):
    """The text that is written for a name, and a font that has all of its characters."""

    text: str
    font: Path


def labels_of(names: Sequence[str], kind: str = "class", most: int = 40, bold: bool = False) -> tuple[Label, ...]:
    """Distinct labels for the names; see :func:`ladle.names.readable`.

    A name that no installed font can write is replaced by its place in the list, such as ``class 1``.
    """
    return _labels(tuple(names), kind, most, bold)


def unwritten(names: Sequence[str]) -> dict[str, str]:
    """The names that no installed font can write, by the label that replaces each of them."""
    lines = tuple(map(on_one_line, names))
    fonts = _fonts_of(lines, bold=False)
    shown = zip(labels_of(names), lines, strict=True)
    return {label.text: line for label, line in shown if line and line not in fonts}


def width_of(label: Label, size: float) -> float:
    """The width of a label, in the unit of ``size``, the height of its font."""
    return _font(label.font, 100).getlength(label.text) * size / 100


def image_font(label: Label, size: int) -> ImageFont.FreeTypeFont:
    """The font of a label for PIL, ``size`` pixels high."""
    return _font(label.font, size)


def escaped(label: Label) -> str:
    """The text of a label for matplotlib, with dollar signs escaped, which would mark a formula."""
    return label.text.replace("$", r"\$")


def write(text: Any, label: Label) -> None:
    """Set the string and the font of a matplotlib text to those of a label; the size does not change."""
    from matplotlib.font_manager import FontProperties

    text.set_text(escaped(label))
    text.set_fontproperties(FontProperties(fname=str(label.font), size=text.get_fontsize()))


@contextmanager
def default_style() -> Iterator[None]:
    """Draw with matplotlib's defaults, independent of the user's style sheet."""
    import matplotlib as mpl

    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams["svg.hashsalt"] = "ladle"  # else the names inside an SVG are drawn anew for each file
        yield


@lru_cache(maxsize=64)
def _labels(names: tuple[str, ...], kind: str, most: int, bold: bool) -> tuple[Label, ...]:
    lines = tuple(map(on_one_line, names))
    fonts = _fonts_of(lines, bold)
    texts = readable(names, kind, most, drawable=fonts.__contains__)
    usual = _bundled(bold)[0]
    return tuple(Label(text, fonts.get(line, usual)) for text, line in zip(texts, lines, strict=True))


@lru_cache(maxsize=64)
def _fonts_of(lines: tuple[str, ...], bold: bool) -> Mapping[str, Path]:
    """The first font that has all characters of each line, if there is one; each font is opened once."""
    sought = {line: frozenset(map(ord, line)) for line in lines if line and (_is_plain(line) or _can_shape())}
    found: dict[str, Path] = {}
    ours = _bundled(bold)
    for font in chain(ours, _installed()):
        known = _characters(font)
        if font not in ours and not known >= _BESIDE:
            continue
        found |= {line: font for line, needed in sought.items() if needed <= known}
        sought = {line: needed for line, needed in sought.items() if line not in found}
        if not sought:
            break
    return found


def _is_plain(line: str) -> bool:
    """Whether characters can be written one by one from left to right: no Arabic, no vowel signs of Devanagari."""
    return not any(
        unicodedata.bidirectional(c) in ("R", "AL", "AN") or unicodedata.category(c) in ("Mn", "Mc") for c in line
    )


@lru_cache(maxsize=1)
def _can_shape() -> bool:
    """Whether both matplotlib and PIL support joined letters and right-to-left scripts."""
    import matplotlib as mpl
    from PIL import features

    return mpl.__version_info__ >= (3, 11) and bool(
        features.check_feature("raqm") and features.check_feature("fribidi")
    )


def _bundled(bold: bool) -> list[Path]:
    """The fonts included in matplotlib, the preferred one first."""
    from matplotlib import get_data_path

    names = ["DejaVuSans-Bold.ttf", "DejaVuSans.ttf"] if bold else ["DejaVuSans.ttf"]
    return [Path(get_data_path()) / "fonts" / "ttf" / name for name in names]


def _installed() -> Iterator[Path]:
    """The installed fonts, upright and of normal weight first, always in the same order."""
    from matplotlib.font_manager import fontManager

    usual = ("400", "normal", "regular", "book")
    entries = [
        (one.style != "normal", str(one.weight) not in usual, one.name, one.fname) for one in fontManager.ttflist
    ]
    for *_, name, file in sorted(set(entries)):
        if not name.lower().replace(" ", "").startswith(_PRETENDERS):
            yield Path(file)


def _characters(font: Path) -> Set[int]:
    """The characters of a font; none if it cannot be read or has no outlines."""
    from matplotlib.ft2font import FT2Font

    try:
        face = FT2Font(str(font))
        return face.get_charmap().keys() if face.scalable else frozenset()
    except (OSError, RuntimeError):
        return frozenset()


@lru_cache(maxsize=64)
def _font(file: Path, size: int) -> ImageFont.FreeTypeFont:
    from PIL import ImageFont

    return ImageFont.truetype(str(file), size)
