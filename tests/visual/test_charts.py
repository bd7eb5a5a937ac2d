from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import pytest

from ladle.errors import UserError
from ladle.visual import color, draw_comparison, draw_confusion, draw_history, draw_precision_recall
from ladle.visual.charts import _pushed_apart

from .pixels import near, read

RECALL = np.linspace(0, 1, 101)


def rows(count: int) -> list[dict[str, float | int]]:
    return [
        {
            "epoch": n,
            "loss/box": 2.0 / n,
            "loss/classification": 1.0 / n + 0.1,
            "AP": 3.0 * n if n % 2 == 0 else math.nan,
            "lr": 0.01,
        }
        for n in range(1, count + 1)
    ]


def test_history_draws_losses_left_and_ap_right(tmp_path: Path) -> None:
    pixels = read(draw_history(rows(10), tmp_path / "plots" / "a.png"))
    half = pixels.shape[1] // 2
    assert near(pixels[:, :half], color(1)).sum() > 500
    assert not near(pixels[:, half:], color(1)).any()
    assert near(pixels[:, half:], color(0)).sum() > 500


def test_history_takes_the_columns_it_is_given(tmp_path: Path) -> None:
    default = read(draw_history(rows(10), tmp_path / "a.png"))
    only = read(draw_history(rows(10), tmp_path / "b.png", losses=["lr"]))
    assert near(default, color(1)).any()
    assert not near(only, color(1)).any()


@pytest.mark.parametrize("table", [rows(1), [{"epoch": 1, "loss": math.nan}], [{"loss": 0.0}, {"AP": 1.0}]])
def test_a_young_run_can_be_drawn(tmp_path: Path, table: list[dict[str, float | int]]) -> None:
    assert read(draw_history(table, tmp_path / "a.png")).min() < 100


def test_a_run_without_a_row_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="train for an epoch"):
        draw_history([], tmp_path / "a.png")


def test_names_at_the_ends_of_lines_do_not_touch() -> None:
    heights = np.array([0.5, 0.51, 0.9, 0.505])
    placed = _pushed_apart(heights, 0.1)
    assert (np.argsort(placed) == np.argsort(heights)).all()
    assert np.diff(np.sort(placed)).min() >= 0.1 - 1e-9
    assert placed[2] == pytest.approx(0.9)


def test_precision_recall_draws_a_curve_for_each_present_class(tmp_path: Path) -> None:
    precision = np.stack([1 - RECALL, np.full(101, np.nan), 1 - RECALL**2])
    pixels = read(draw_precision_recall(RECALL, precision, ["cat", "dog", "bird"], tmp_path / "a.png"))
    assert near(pixels, color(0)).sum() > 200
    assert not near(pixels, color(1), reach=4).any()
    assert near(pixels, color(2)).sum() > 200


@pytest.mark.parametrize("classes", [0, 1, 50])
def test_precision_recall_draws_any_number_of_classes(tmp_path: Path, classes: int) -> None:
    precision = np.tile(1 - RECALL, (classes, 1))
    path = draw_precision_recall(RECALL, precision, [f"class {i}" for i in range(classes)], tmp_path / "a.png")
    assert path.stat().st_size > 5_000


def test_confusion_is_darkest_where_the_row_goes(tmp_path: Path) -> None:
    counts = np.array([[90, 5, 5], [0, 10, 90], [3, 3, 0]])
    pixels = read(draw_confusion(counts, ["cat", "dog"], tmp_path / "a.png"))
    dark = near(pixels, "#084a91", reach=16)  # 90 % on the scale of blues
    rows_, columns = dark.nonzero()
    assert len(rows_) > 5_000
    left, right = columns < columns.mean(), columns >= columns.mean()
    assert rows_[left].mean() < rows_[right].mean()


def test_the_threshold_is_written_below_a_confusion(tmp_path: Path) -> None:
    counts = np.eye(3, dtype=int)
    plain = read(draw_confusion(counts, ["cat", "dog"], tmp_path / "a.png")).astype(int)
    noted = read(draw_confusion(counts, ["cat", "dog"], tmp_path / "b.png", score=0.31)).astype(int)
    rows_ = np.flatnonzero((plain != noted).any(-1).any(-1))
    assert rows_.min() > 0.85 * len(plain)


@pytest.mark.parametrize("classes", [1, 80])
@pytest.mark.slow
def test_confusion_draws_any_number_of_classes(tmp_path: Path, classes: int) -> None:
    counts = np.eye(classes + 1, dtype=int) * 7
    path = draw_confusion(counts, [f"class {i}" for i in range(classes)], tmp_path / "a.png")
    assert max(read(path).shape) < 3_000


@pytest.mark.slow
def test_names_in_a_large_confusion_stay_readable(tmp_path: Path) -> None:
    names = [f"class number {i}" for i in range(200)]
    pixels = read(draw_confusion(np.zeros((201, 201), dtype=int), names, tmp_path / "a.png"))
    margin = (pixels[:, :200] < 128).any(-1).any(-1)
    tops = np.flatnonzero(margin[1:] & ~margin[:-1])
    assert 60 < len(tops) < 140, "every other row is named, with white between the names"


def test_a_confusion_of_other_classes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has 3 rows with the background"):
        draw_confusion(np.zeros((2, 2), dtype=int), ["cat", "dog"], tmp_path / "a.png")


def test_comparison_puts_better_methods_further_right(tmp_path: Path) -> None:
    path = draw_comparison({"plain": [30.0, 31.0], "LAD": [34.0, 34.4], "teacher": [40.0]}, tmp_path / "a.png")
    pixels = read(path)
    at = [near(pixels, color(i)).nonzero()[1].mean() for i in range(3)]
    assert at == sorted(at)


def test_comparison_refuses_methods_without_runs(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="'LAD' has no runs"):
        draw_comparison({"plain": [30.0], "LAD": []}, tmp_path / "a.png")
    with pytest.raises(UserError, match="no method"):
        draw_comparison({}, tmp_path / "a.png")


def test_charts_can_be_vectors(tmp_path: Path) -> None:
    assert draw_history(rows(3), tmp_path / "a.svg").read_text().startswith("<?xml")
    assert draw_comparison({"plain": [30.0]}, tmp_path / "a.pdf").read_bytes().startswith(b"%PDF")


def test_drawing_never_touches_pyplot(tmp_path: Path) -> None:
    before = "matplotlib.pyplot" in sys.modules
    draw_history(rows(3), tmp_path / "a.png")
    assert ("matplotlib.pyplot" in sys.modules) == before
