"""Charts as SVG inside a page: their colors are those of the page, light or dark, and their text is text.

A chart is 360 units wide, so that its letters are readable where three stand side by side and on a phone. The same
values give the same bytes.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ladle.names import on_one_line
from ladle.visual.html import Html, escaped

__all__ = ["SHADES", "Line", "bar_chart", "line_chart", "ticks"]

SHADES = 8
"""Colors of the style of pages, from ``c0`` on; further lines repeat them with other dashes."""
_WIDTH, _HEIGHT = 360.0, 210.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 54.0, 10.0, 8.0, 34.0
_DASHES = ("", "6 4", "2 3", "8 3 2 3")
_BAR, _GAP = 11.0, 7.0
"""Height of a bar, and room between groups of bars."""
_NAMES, _NUMBERS = 104.0, 38.0
"""Room for names at the left of bars and for numbers at their right."""
_LETTERS = 15
"""Most letters of a name beside a bar; one of double width counts twice."""


class Line(NamedTuple):
    """A line of a chart: its name, its points, its color, and its dashes, 0 being none."""

    name: str
    points: Sequence[tuple[float, float]]
    shade: int = 0
    dash: int = 0


def line_chart(
    title: str,
    lines: Sequence[Line],
    x_label: str,
    x_bounds: tuple[float, float] | None = None,
    y_bounds: tuple[float, float] | None = None,
) -> Html:
    """Draw lines over a common axis; points that are not finite are left out, and lines without points.

    The vertical axis includes 0. Without any point there is no chart.

    Examples:
        >>> from ladle.visual.svg import Line, line_chart
        >>> chart = line_chart("AP", [Line("plain", [(1, 10.0), (2, 20.0)])], "epoch")
        >>> chart.count("<polyline"), line_chart("AP", [Line("plain", [])], "epoch")
        (1, '')
    """
    finite = [one._replace(points=[point for point in one.points if all(map(math.isfinite, point))]) for one in lines]
    drawn = [one for one in finite if one.points]
    if not drawn:
        return Html("")
    every = [point for one in drawn for point in one.points]
    x_low, x_high = x_bounds or _bounds([x for x, _ in every])
    y_low, y_high = y_bounds or _bounds([0.0, *(y for _, y in every)])
    x_scale = _Scale(x_low, x_high, _LEFT, _WIDTH - _RIGHT)
    y_scale = _Scale(y_low, y_high, _HEIGHT - _BOTTOM, _TOP)
    least = 1.0 if all(float(x).is_integer() for x, _ in every) else 0.0
    parts = [*_x_axis(x_scale, x_label, least), *_y_axis(y_scale), *(_polyline(one, x_scale, y_scale) for one in drawn)]
    return _figure(title, _HEIGHT, parts, {one.name: (one.shade, one.dash) for one in drawn})


def bar_chart(title: str, names: Sequence[str], series: Mapping[str, Sequence[float | None]], unit: str = "") -> Html:
    """Draw horizontal bars, one of each series for every name; a value of None or NaN has no bar but a dash.

    Values are written with one digit after the point, counts, which have no ``unit``, without. Without any name there
    is no chart.
    """
    if not names or not series:
        return Html("")
    values = [value for one in series.values() for value in one if value is not None and math.isfinite(value)]
    scale = _Scale(min([0.0, *values]), max([0.0, *values]) or 1.0, _NAMES, _WIDTH - _NUMBERS)
    whole = all(float(value).is_integer() for value in values) and not unit
    group = _BAR * len(series) + _GAP
    height = group * len(names) + (16.0 if unit else 2.0)
    parts = []
    for row, name in enumerate(names):
        top = row * group + _GAP / 2
        parts.append(_text(_NAMES - 6, top + _BAR * len(series) / 2 + 4, _fitting(name), "end", name))
        for number, one in enumerate(series.values()):
            parts += _bar(scale, top + number * _BAR, one[row], number, 0 if whole else 1)
    parts += [_text(_NAMES, height - 3, unit)] if unit else []
    return _figure(title, height, parts, {name: (number, 0) for number, name in enumerate(series)})


def ticks(low: float, high: float, most: int = 5, least: float = 0.0) -> list[float]:
    """Round values from ``low`` to ``high``, about ``most`` at most, in steps of 1, 2 or 5 times a power of ten.

    No step is smaller than ``least``.

    Examples:
        >>> from ladle.visual.svg import ticks
        >>> ticks(0.0, 0.93)
        [0.0, 0.2, 0.4, 0.6, 0.8]
    """
    span = high - low
    power = 10.0 ** math.floor(math.log10(span / most))
    step = max(least, next(power * factor for factor in (1, 2, 5, 10, 20) if span / (power * factor) < most))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [float(f"{number * step:.12g}") for number in range(first, last + 1)]


class _Scale(NamedTuple):
    """A linear map from values to places in a chart."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)


def _bounds(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    return (low, high) if high > low else (low, low + 1.0)


def _x_axis(scale: _Scale, label: str, least: float) -> list[str]:
    bottom, values = _HEIGHT - _BOTTOM, ticks(scale.low, scale.high, 6, least)
    marks = [_text(scale(value), bottom + 14, f"{value:g}", "middle") for value in values]
    return [*marks, _text((scale.start + scale.end) / 2, _HEIGHT - 4, label, "middle")]


def _y_axis(scale: _Scale) -> list[str]:
    parts = []
    for value in ticks(scale.low, scale.high):
        height = _number(scale(value))
        parts.append(f'<path class="grid" d="M{_number(_LEFT)} {height}H{_number(_WIDTH - _RIGHT)}"/>')
        parts.append(_text(_LEFT - 6, scale(value) + 4, f"{value:g}", "end"))
    return parts


def _polyline(line: Line, x_scale: _Scale, y_scale: _Scale) -> str:
    places = [(x_scale(x), y_scale(y)) for x, y in line.points]
    shade, name = f"c{line.shade % SHADES}", f"<title>{escaped(line.name)}</title>"
    if len(places) == 1:
        x, y = map(_number, places[0])
        return f'<circle class="dot {shade}" cx="{x}" cy="{y}" r="3">{name}</circle>'
    points = " ".join(f"{_number(x)},{_number(y)}" for x, y in places)
    return f'<polyline class="line {shade}"{_dashed(line.dash)} points="{points}">{name}</polyline>'


def _bar(scale: _Scale, top: float, value: float | None, shade: int, digits: int) -> list[str]:
    if value is None or not math.isfinite(value):
        return [_text(scale(0.0) + 4, top + _BAR - 1.5, "–")]
    left, right = sorted((scale(0.0), scale(value)))
    size = f'x="{_number(left)}" y="{_number(top)}" width="{_number(right - left)}" height="{_number(_BAR - 1)}"'
    return [f'<rect class="bar c{shade % SHADES}" {size}/>', _text(right + 4, top + _BAR - 1.5, f"{value:.{digits}f}")]


def _figure(title: str, height: float, parts: Sequence[str], key: Mapping[str, tuple[int, int]]) -> Html:
    """The chart below its title, with a key unless there is one entry alone, which the title names."""
    named = f"{title}: {', '.join(key)}"
    size = f'viewBox="0 0 {_number(_WIDTH)} {_number(height)}"'
    svg = f'<svg {size} role="img" aria-label="{escaped(named)}">{"".join(parts)}</svg>'
    entries = "".join(f"<li>{_swatch(*style)}{escaped(name)}</li>" for name, style in key.items())
    shown = f'<ul class="key">{entries}</ul>' if len(key) > 1 else ""
    return Html(f'<figure class="chart"><figcaption>{escaped(title)}</figcaption>{svg}{shown}</figure>')


def _swatch(shade: int, dash: int) -> str:
    line = f'<path class="line c{shade % SHADES}"{_dashed(dash)} d="M0 2H24"/>'
    return f'<svg class="swatch" viewBox="0 0 24 4" aria-hidden="true">{line}</svg>'


def _dashed(dash: int) -> str:
    pattern = _DASHES[dash % len(_DASHES)]
    return f' stroke-dasharray="{pattern}"' if pattern else ""


def _text(x: float, y: float, text: str, anchor: str = "start", whole: str = "") -> str:
    place = f'x="{_number(x)}" y="{_number(y)}"' + (f' text-anchor="{anchor}"' if anchor != "start" else "")
    return f"<text {place}>{escaped(text)}{f'<title>{escaped(whole)}</title>' if whole else ''}</text>"


def _fitting(name: str) -> str:
    """The name, cut at the end where it is too wide for its place."""
    kept, room = "", _LETTERS
    line = on_one_line(name)
    for character in line:
        room -= 2 if unicodedata.east_asian_width(character) in "WF" else 1
        if room < 0:
            return kept[:-1] + "…"
        kept += character
    return line


def _number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
