"""Several panels of bars in one chart: counts and shares by group."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ladle.errors import UserError
from ladle.visual.charts import name_ticks, new_figure, save_figure, style_axis
from ladle.visual.lettering import Label, default_style, labels_of, width_of
from ladle.visual.palette import INK, color

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Bar", "BarPanel", "draw_bars"]

_COLUMNS = 2
_BARS, _ROW, _HEAD, _FOOT = 2.9, 0.26, 0.55, 0.55
"""Width of the bars, height of a bar, of what is above the bars and of what is below them, in inches."""
_NAMES, _NOTES = 1.5, 1.0
"""Room for the names at the left, at least, and for the notes at the right of the bars, in inches."""
_LONGEST, _SIZE = 40, 9
"""Most characters of a name, and the size of its letters in points."""


class Bar(NamedTuple):
    """A bar: its name, its length, and what is written behind it."""

    name: str
    length: float
    note: str


class BarPanel(NamedTuple):
    """The bars of a panel, what it shows, what their length means, and how far its axis goes at least."""

    title: str
    unit: str
    bars: Sequence[Bar]
    least: float = 0.0


@default_style()
def draw_bars(panels: Sequence[BarPanel], path: Path | str) -> Path:
    """Draw panels of horizontal bars, two in a row; a panel without bars is left out."""
    filled = [panel for panel in panels if panel.bars]
    if not filled:
        raise UserError("there is no bar to draw, expected at least one: give a panel with one")
    rows = [filled[start : start + _COLUMNS] for start in range(0, len(filled), _COLUMNS)]
    highs = [_ROW * max(len(panel.bars) for panel in row) + _HEAD + _FOOT for row in rows]
    names = max(_NAMES, *(0.2 + width_of(name, _SIZE) / 72 for panel in filled for name in _labels(panel)))
    wide = names + _BARS + _NOTES
    width, height = wide * min(_COLUMNS, len(filled)), sum(highs)
    figure = new_figure(width, height)
    top = height
    for row, high in zip(rows, highs, strict=True):
        for column, panel in enumerate(row):
            long = _ROW * len(panel.bars)
            left, bottom = column * wide + names, top - _HEAD - long
            place = (left / width, bottom / height, _BARS / width, long / height)
            _draw_panel(figure.add_axes(place), panel, color(filled.index(panel)))
        top -= high
    return save_figure(figure, path)


def _labels(panel: BarPanel) -> Sequence[Label]:
    return labels_of([bar.name for bar in panel.bars], "bar", most=_LONGEST)


def _draw_panel(axis: Axes, panel: BarPanel, shade: str) -> None:
    from matplotlib.ticker import MaxNLocator

    style_axis(axis, panel.title, panel.unit)
    places = list(range(len(panel.bars)))
    lengths = [bar.length for bar in panel.bars]
    axis.barh(places, lengths, height=0.68, color=shade)
    axis.set_ylim(len(places) - 0.5, -0.5)
    axis.set_xlim(0, max(*lengths, panel.least) or 1)
    axis.xaxis.set_major_locator(MaxNLocator(nbins=4))
    axis.grid(axis="y", visible=False)
    axis.tick_params(axis="y", labelcolor=INK)
    name_ticks(axis.yaxis, places, _labels(panel), size=_SIZE)
    for place, bar in zip(places, panel.bars, strict=True):
        axis.annotate(
            bar.note, (bar.length, place), (4, 0), textcoords="offset points", va="center", fontsize=8.5, color=INK
        )
