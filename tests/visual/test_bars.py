"""Bars are as long as their numbers say."""

import numpy as np
import pytest

from ladle.errors import UserError
from ladle.visual import Bar, BarPanel, color, draw_bars

from .pixels import near, read


def lengths(path, shade):
    """The widths in pixels of the runs of one color, one for each bar, from the top."""
    marked = near(read(path), shade, reach=2)
    rows = marked.sum(axis=1)
    starts = np.flatnonzero((rows > 0) & (np.roll(rows, 1) == 0))
    return [int(rows[start + 5]) for start in starts]


def test_bars_are_as_long_as_their_numbers(tmp_path):
    bars = [Bar("all", 40.0, "4 of 10"), Bar("half", 20.0, "2 of 10"), Bar("none", 0.0, "0 of 10")]
    whole, half = lengths(draw_bars([BarPanel("Title", "%", bars)], tmp_path / "bars.png"), color(0))
    assert half == pytest.approx(whole / 2, abs=2)


def test_an_axis_goes_as_far_as_it_must(tmp_path):
    few = [Bar("few", 5.0, "")]
    (short,) = lengths(draw_bars([BarPanel("Title", "%", few, 10.0)], tmp_path / "a.png"), color(0))
    (long,) = lengths(draw_bars([BarPanel("Title", "%", few)], tmp_path / "b.png"), color(0))
    assert short == pytest.approx(long / 2, abs=2)


def test_panels_without_bars_are_left_out(tmp_path):
    with_empty = [BarPanel("None", "%", []), BarPanel("Title", "%", [Bar("$x_", 1.0, "one")])]
    first, second = tmp_path / "a.png", tmp_path / "b.png"
    draw_bars(with_empty, first)
    draw_bars(with_empty[1:], second)
    assert np.array_equal(read(first), read(second))
    with pytest.raises(UserError, match="no bar to draw"):
        draw_bars(with_empty[:1], tmp_path / "c.png")


def test_long_names_get_the_room_that_they_need(tmp_path):
    sizes = [
        read(draw_bars([BarPanel("Title", "%", [Bar(name, 1.0, "")])], tmp_path / "a.png")).shape[1]
        for name in ("short", "a detector, in its runtime", "a detector, in its runtime" + 40 * "!")
    ]
    assert sizes[0] < sizes[1] < sizes[2]
    assert sizes[2] < 2 * sizes[0], "a longer name is shortened"
