"""Charts of a training run and of its results."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Shaped

from ladle.errors import UserError
from ladle.files import write_atomically
from ladle.visual.lettering import Label, default_style, escaped, labels_of, width_of, write
from ladle.visual.palette import FAINT, INK, MUTED, color, ink_on

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "draw_comparison",
    "draw_confusion",
    "draw_history",
    "draw_precision_recall",
    "jpeg_of",
    "name_ticks",
    "new_figure",
    "save_figure",
    "style_axis",
]

_DPI = 160
_DISTINCT = 12
"""Most curves that can be distinguished by color."""
_READABLE_CELLS = 20
"""Most classes for which the cells of a confusion matrix have room for a number."""
_READABLE_SIZE = 4.0
"""Smallest font size of names in a confusion matrix, in points; with more classes some names are left out."""
_WIDE_RANGE = 50.0
"""Losses whose largest value exceeds the smallest by this factor are drawn on a logarithmic axis."""


@default_style()
def draw_history(
    rows: Sequence[Mapping[str, float | int]], path: Path | str, losses: Sequence[str] | None = None
) -> Path:
    """Draw the losses and the AP of a run over its epochs, from the rows of its results.csv.

    On the left are the columns ``losses``, by default those whose names begin with "loss"; on the right all columns
    whose names begin with "AP". The x axis is the column "epoch", or the number of the row from 1. Values that are
    missing or NaN (an epoch without evaluation) are skipped.
    """
    if not rows:
        raise UserError("there is no row to draw in the history, expected one an epoch: train for an epoch first")
    names = list(dict.fromkeys(name for row in rows for name in row))
    left = list(losses) if losses is not None else [name for name in names if name.lower().startswith("loss")]
    right = [name for name in names if name.startswith("AP")]
    figure = new_figure(10.5, 4.0)
    axes = figure.subplots(1, 2)
    figure.subplots_adjust(left=0.06, right=0.89, top=0.88, bottom=0.13, wspace=0.44)
    for axis, title, columns in zip(axes, ("Training loss", "Average precision"), (left, right), strict=True):
        lines = {name: _series(rows, name) for name in columns}
        style_axis(axis, title, "epoch")
        if title == "Training loss" and _spans_widely(lines):
            axis.set_yscale("log")
        _draw_lines(axis, {name.removeprefix("loss/"): line for name, line in lines.items() if len(line)})
    if best := _best(rows):
        axes[1].plot(*best, "o", color=INK, markersize=6, zorder=5, markerfacecolor="white", markeredgewidth=1.6)
        words = f"best AP {best[1]:.4g} at epoch {best[0]:g}"
        axes[1].text(1, 1.035, words, transform=axes[1].transAxes, ha="right", fontsize=9, color=MUTED)
    return save_figure(figure, path)


@default_style()
def draw_precision_recall(
    recall: Float[np.ndarray, " R"], precision: Float[np.ndarray, "C R"], classes: Sequence[str], path: Path | str
) -> Path:
    """Draw the precision-recall curve of each class and their mean; classes without objects (NaN) are left out.

    More than twelve curves are drawn in grey behind the mean.
    """
    present = [label for label in range(len(classes)) if not np.isnan(precision[label]).any()]
    ranked = sorted(present, key=lambda label: -float(precision[label].mean()))
    few = len(present) <= _DISTINCT
    names = labels_of(classes)
    entries = [_with_number(names[label], precision[label].mean()) for label in ranked] if few else []
    if present:
        mean = precision[present].mean(axis=0)
        entries.insert(0, _with_number(labels_of([f"mean of {len(present)}"])[0], mean.mean()))
    room = max([2.2, *(0.65 + width_of(entry, 9) / 72 for entry in entries)])
    figure = new_figure(4.6 + room, 4.6)
    axis = figure.add_axes((0.61 / (4.6 + room), 0.12, 3.95 / (4.6 + room), 0.78))
    style_axis(axis, "Precision and recall", "recall")
    axis.set(xlim=(0, 1), ylim=(0, 1.02), ylabel="precision")
    curves = [axis.plot(recall, mean, color=INK, linewidth=2.6, zorder=3)[0]] if present else []
    for label in ranked:
        shade, width = (color(label), 1.7) if few else ("#b6bac2", 0.7)
        curves += axis.plot(recall, precision[label], color=shade, linewidth=width)
    if present:
        _draw_legend(axis, curves[: len(entries)], entries)
    return save_figure(figure, path)


@default_style()
def draw_confusion(
    counts: Shaped[np.ndarray, "C1 C1"], classes: Sequence[str], path: Path | str, score: float | None = None
) -> Path:
    """Draw a confusion matrix: true classes in rows, detected classes in columns, background last in both.

    Shades are shares of the row; ``score`` is the threshold that is written below. With up to twenty classes the cells
    contain the counts. If there is no room for all names, only every second, third, ... one is written.
    """
    names = labels_of([*classes, "background"])
    if counts.shape != (len(names), len(names)):
        raise UserError(
            f"a confusion matrix of {len(classes)} classes has {len(names)} rows with the background, "
            f"found shape {counts.shape}: give the classes it was counted for"
        )
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = float(np.clip(0.48 * len(names), 3.0, 11.0))
    size = min(9.0, 0.62 * 72 * side / len(names))
    step = math.ceil(_READABLE_SIZE / size)
    size *= step
    room = max(width_of(name, size) for name in names) / 72
    width, height = side + room + 0.9, side + 0.75 * room + 0.8
    figure = new_figure(width, height)
    axis = figure.add_axes(((room + 0.5) / width, 0.4 / height, side / width, side / height))
    cells = axis.pcolormesh(shares, cmap="Blues", vmin=0, vmax=1)
    if step == 1:
        cells.set(edgecolor="white", linewidth=min(1.5, 30 / len(names)))
    axis.set(aspect="equal", xlim=(0, len(names)), ylim=(len(names), 0))
    ticks = np.arange(0, len(names), step) + 0.5
    axis.tick_params(length=0, labelcolor=INK, top=True, bottom=False, labeltop=True, labelbottom=False, pad=3)
    name_ticks(axis.xaxis, ticks, labels_of([*classes, "missed"])[::step], size, rotation=45, ha="left")
    name_ticks(axis.yaxis, ticks, names[::step], size)
    axis.spines[:].set_visible(False)
    above = f", with a score of at least {score:.2f}" if score is not None else ""
    axis.set_xlabel(f"detected as{above}", color=MUTED, fontsize=9, labelpad=6)
    axis.set_ylabel("object", color=MUTED, fontsize=9, labelpad=6)
    if len(classes) <= _READABLE_CELLS:
        _write_cells(axis, counts, shares)
    return save_figure(figure, path)


@default_style()
def draw_comparison(results: Mapping[str, Sequence[float]], path: Path | str, quantity: str = "AP") -> Path:
    """Draw one row per method: every run as a dot, the mean, and one standard deviation to either side.

    The mean of the first method, the baseline, is drawn as a line through all rows.
    """
    if empty := [name for name, runs in results.items() if not len(runs)]:
        raise UserError(f"method {empty[0]!r} has no runs, expected at least one {quantity}: leave it out")
    if not results:
        raise UserError("there is no method to compare, expected at least one: give a result each")
    names = labels_of(list(results), "method")
    room = 0.25 + max(width_of(name, 10) for name in names) / 72
    width, height = room + 5.2, 0.75 + 0.44 * len(results)
    figure = new_figure(width, height)
    axis = figure.add_axes((room / width, 0.55 / height, 4.0 / width, 0.44 * len(results) / height))
    style_axis(axis, "", quantity)
    axis.grid(axis="y", visible=False)
    means = {name: float(np.mean(runs)) for name, runs in results.items()}
    axis.axvline(next(iter(means.values())), color=MUTED, linewidth=1, linestyle=(0, (3, 3)), zorder=1)
    for row, (name, runs) in enumerate(results.items()):
        shade, spread = color(row), float(np.std(runs, ddof=1)) if len(runs) > 1 else 0.0
        axis.plot([means[name] - spread, means[name] + spread], [row, row], color=shade, linewidth=2.2)
        axis.plot(means[name], row, "o", color=shade, markersize=8, markeredgecolor="white", zorder=4)
        axis.plot(runs, [row + 0.27] * len(runs), "o", color=shade, markersize=3.4, alpha=0.6, markeredgewidth=0)
        text = f"{means[name]:.1f}" + (f" ± {spread:.1f}" if len(runs) > 1 else "")
        axis.text(1.03, row, text, transform=axis.get_yaxis_transform(), va="center_baseline", fontsize=10, color=INK)
    axis.tick_params(axis="y", labelcolor=INK)
    name_ticks(axis.yaxis, np.arange(len(results)), names, size=10)
    axis.set_ylim(len(results) - 0.5, -0.5)
    axis.spines["left"].set_visible(False)
    return save_figure(figure, path)


def new_figure(width: float, height: float) -> Figure:
    """An empty white figure of this size in inches; pyplot keeps no reference, so it is freed when it is not used."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=_DPI, facecolor="white")


def save_figure(figure: Figure, path: Path | str) -> Path:
    """Write a figure atomically in the format of the file's suffix (png, pdf, svg); its folder is created."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda part: figure.savefig(part, dpi=_DPI))
    return path


def jpeg_of(figure: Figure, dpi: int) -> bytes:
    """A figure as the bytes of a JPEG file."""
    stream = BytesIO()
    figure.savefig(stream, format="jpeg", dpi=dpi, pil_kwargs={"quality": 82, "optimize": True})
    return stream.getvalue()


def name_ticks(
    axis: Any,
    places: Shaped[np.ndarray, " n"] | Sequence[int],
    names: Sequence[Label],
    size: float,
    rotation: float = 0,
    ha: str = "",
) -> None:
    """Write names at these places of an axis."""
    axis.set_ticks(places, [escaped(name) for name in names], fontsize=size, rotation=rotation)
    for text, name in zip(axis.get_ticklabels(), names, strict=True):
        write(text, name)
        if ha:
            text.set_horizontalalignment(ha)


def _with_number(name: Label, number: float) -> Label:
    return name._replace(text=f"{name.text}  {number:.2f}")


def _draw_legend(axis: Any, curves: Sequence[Any], entries: Sequence[Label]) -> None:
    """A legend of average precisions to the right of the curves."""
    # matplotlib leaves out labels that begin with an underscore, so the names are set afterwards.
    stand_ins = [str(number) for number in range(len(entries))]
    legend = axis.legend(
        curves, stand_ins, loc="upper left", bbox_to_anchor=(1.03, 1.03), frameon=False, fontsize=9, labelcolor=INK
    )
    for text, entry in zip(legend.get_texts(), entries, strict=True):
        write(text, entry)
    legend.set_title("average precision")
    legend.get_title().set(color=MUTED, fontsize=9)
    legend.set_alignment("left")


def style_axis(axis: Any, title: str, x_label: str) -> None:
    """Give the axes of a chart their title, the name of the horizontal axis, a faint grid and no frame."""
    axis.set_title(title, loc="left", fontsize=12, fontweight="bold", color=INK, pad=10)
    axis.set_xlabel(x_label, color=MUTED, fontsize=10)
    axis.yaxis.label.set(color=MUTED, fontsize=10)
    axis.spines[["top", "right"]].set_visible(False)
    axis.spines[["left", "bottom"]].set_color("#b6bac2")
    axis.tick_params(colors=MUTED, labelsize=9, length=0, pad=6)
    axis.grid(color=FAINT, linewidth=0.8)
    axis.set_axisbelow(True)


def _series(rows: Sequence[Mapping[str, float | int]], name: str) -> Float[np.ndarray, "n 2"]:
    """The (epoch, value) pairs of one column that are finite."""
    pairs = [(row.get("epoch", n), row.get(name, math.nan)) for n, row in enumerate(rows, start=1)]
    table = np.asarray(pairs, dtype=np.float64).reshape(-1, 2)
    return np.asarray(table[np.isfinite(table).all(axis=1)])


def _spans_widely(lines: Mapping[str, Float[np.ndarray, "_n 2"]]) -> bool:
    values = np.concatenate([np.zeros(0), *(line[:, 1] for line in lines.values())])
    return bool(values.size and values.min() > 0 and values.max() > _WIDE_RANGE * values.min())


def _best(rows: Sequence[Mapping[str, float | int]]) -> tuple[float, float] | None:
    scores = _series(rows, "AP")
    if not len(scores):
        return None
    epoch, value = scores[scores[:, 1].argmax()].tolist()
    return epoch, value


def _draw_lines(axis: Any, lines: Mapping[str, Float[np.ndarray, "_n 2"]]) -> None:
    """Draw every line with its name at its end; names are moved apart where lines end close together."""
    from matplotlib.ticker import MaxNLocator

    if not lines:
        axis.text(0.5, 0.5, "nothing recorded yet", transform=axis.transAxes, ha="center", color=MUTED)
        axis.set(xticks=[], yticks=[])
        return
    for number, line in enumerate(lines.values()):
        axis.plot(*line.T, color=color(number), linewidth=2, marker="o" if len(line) == 1 else None)
    epochs = np.concatenate([line[:, 0] for line in lines.values()])
    if epochs.min() == epochs.max():
        axis.set_xlim(epochs.min() - 1, epochs.max() + 1)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    axis.margins(x=0.02)
    axis.autoscale_view()
    ends = axis.transData.transform([line[-1] for line in lines.values()])
    heights = axis.transAxes.inverted().transform(ends)[:, 1]
    names = labels_of(list(lines), "line", most=24)
    for number, (name, height) in enumerate(zip(names, _pushed_apart(heights, 0.062), strict=True)):
        text = axis.text(1.02, height, "", transform=axis.transAxes, va="center", fontsize=9.5, color=color(number))
        write(text, name)


def _pushed_apart(heights: Float[np.ndarray, " n"], gap: float) -> Float[np.ndarray, " n"]:
    """Heights in the same order with distances of at least ``gap``; heights with enough room do not change."""
    order = np.argsort(heights, kind="stable")
    steps = gap * np.arange(len(order))
    loose = heights[order] - steps
    # Moving names only up and moving names only down both give the gaps, and so does the mean of the two.
    upwards = np.maximum.accumulate(loose)
    downwards = np.minimum.accumulate(loose[::-1])[::-1]
    placed = np.empty_like(heights)
    placed[order] = (upwards + downwards) / 2 + steps
    return placed


def _write_cells(axis: Any, counts: Shaped[np.ndarray, "C1 C1"], shares: Float[np.ndarray, "C1 C1"]) -> None:
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    longest = len(f"{counts.max():,}")
    for row, column in np.argwhere(counts > 0):
        ink = ink_on(to_hex(colormaps["Blues"](shares[row, column])))
        text = f"{counts[row, column]:,}"
        axis.text(column + 0.5, row + 0.5, text, ha="center", va="center", fontsize=min(9, 36 / longest), color=ink)
