"""Charts as SVG: their places are those of the values, and their texts are escaped."""

import re
from math import inf, nan

import pytest

from ladle.visual import html
from ladle.visual.svg import SHADES, Line, bar_chart, line_chart, ticks
from tests.visual.test_html import NASTY, read


def points(chart):
    """The places of every line of a chart."""
    return [
        [tuple(map(float, one.split(","))) for one in text.split()] for text in re.findall(r'points="([^"]*)"', chart)
    ]


def test_a_line_goes_where_its_values_are():
    (line,) = points(line_chart("AP", [Line("plain", [(1, 0.0), (2, 50.0), (3, 100.0)])], "epoch"))
    (x1, y1), (x2, y2), (x3, y3) = line
    assert (x2 - x1, y1 - y2) == (x3 - x2, y2 - y3)
    assert (x1, x3) == (54, 350)
    assert (y1, y3) == (176, 8)


def test_an_axis_begins_at_zero_and_bounds_cut():
    (line,) = points(line_chart("loss", [Line("a", [(1, 50.0), (2, 100.0)])], "epoch"))
    assert [y for _, y in line] == [92, 8]
    (line,) = points(line_chart("pr", [Line("a", [(0, 0.5), (2, 7.0)])], "recall", (0.0, 1.0), (0.0, 1.0)))
    assert line == [(54, 92), (350, 8)]


def test_what_is_not_finite_is_left_out():
    lines = [Line("some", [(1, nan), (2, 1.0), (3, 2.0), (4, inf)]), Line("none", [(1, nan)]), Line("one", [(2, 1.0)])]
    chart = line_chart("loss", lines, "epoch")
    assert [len(line) for line in points(chart)] == [2]
    assert chart.count("<circle") == 1
    assert "none" not in chart
    assert line_chart("loss", [Line("none", [(1, nan)])], "epoch") == ""


def test_lines_beyond_the_colors_are_told_apart_by_dashes():
    lines = [Line(f"line {n}", [(1, 1.0), (2, 2.0)], n % SHADES, n // SHADES) for n in range(SHADES + 1)]
    styles = re.findall(r'<polyline class="line (c\d)"( stroke-dasharray="[^"]*")?', line_chart("many", lines, "epoch"))
    assert len(set(styles)) == SHADES + 1


@pytest.mark.parametrize(
    ("low", "high", "most", "least", "expected"),
    [
        (0.0, 1.0, 5, 0.0, [0.0, 0.5, 1.0]),
        (0.0, 0.93, 5, 0.0, [0.0, 0.2, 0.4, 0.6, 0.8]),
        (1, 2, 6, 1.0, [1.0, 2.0]),
        (1, 12, 6, 1.0, [2.0, 4.0, 6.0, 8.0, 10.0, 12.0]),
        (-3.0, 3.0, 5, 0.0, [-2.0, 0.0, 2.0]),
        (0.0, 0.0015, 5, 0.0, [0.0, 0.0005, 0.001, 0.0015]),
    ],
)
def test_ticks_are_round(low, high, most, least, expected):
    assert ticks(low, high, most, least) == expected


def test_bars_are_as_long_as_their_values():
    chart = bar_chart("AP", ["cat", "dog"], {"plain": [10.0, 40.0], "lad": [20.0, None]}, "percent")
    widths = [float(width) for width in re.findall(r'<rect [^>]*width="([\d.]+)"', chart)]
    assert widths[0] * 2 == pytest.approx(widths[1], abs=0.2)
    assert widths[0] * 4 == pytest.approx(widths[2], abs=0.2)
    assert [text for text in ("10.0", "40.0", "20.0", "–") if f">{text}</text>" not in chart] == []
    assert bar_chart("AP", [], {"plain": []}) == bar_chart("AP", ["cat"], {}) == ""


def test_bars_below_zero_and_counts():
    chart = bar_chart("gain", ["up", "down"], {"gain": [3.0, -3.0]})
    (left, wide), (left_below, wide_below) = [
        (float(x), float(width)) for x, width in re.findall(r'<rect [^>]*x="([\d.]+)"[^>]*width="([\d.]+)"', chart)
    ]
    assert (wide, left) == (wide_below, left_below + wide_below)
    assert ">3</text>" in chart
    assert ">-3</text>" in chart


def test_names_are_escaped_and_cut_to_their_place(tmp_path):
    wide = "\u72ac" * 9
    parts = [
        bar_chart(NASTY, [NASTY, wide, "a name that is far too long"], {NASTY: [1.0, 2.0, 3.0], "b": [1.0, 2.0, 3.0]}),
        line_chart(NASTY, [Line(NASTY, [(1, 1.0), (2, 2.0)]), Line("b", [(1, 1.0)])], NASTY),
    ]
    found = read(html.write_page(tmp_path / "page.html", "Title", parts))
    assert "script" not in {tag for tag, _ in found.tags}
    assert {wide[:6] + "\u2026", "a name that is\u2026", wide} <= {*found.texts}


def test_the_same_values_give_the_same_bytes():
    lines = [Line("a", [(n, n / 7) for n in range(9)])]
    assert line_chart("x", lines, "epoch") == line_chart("x", list(lines), "epoch")
