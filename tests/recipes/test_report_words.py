"""The sentences and differences of a report."""

import re
from dataclasses import replace

import numpy as np
import pytest

from ladle.recipes.report_images import Drawn
from ladle.recipes.report_page import page_of
from ladle.recipes.report_runs import Entry
from ladle.recipes.report_words import about_errors, comparison, difference, headline, not_comparable
from tests.recipes.reported import numbers_of, recorded


def entry_of(plain, title, verb="train", ap=0.2, **changes):
    """An entry with another AP and other classes."""
    run = recorded(plain.folder)
    one = numbers_of(plain)
    metrics = one.metrics | {"ap": ap, "ap_small": 0.1, "ap_medium": None}
    return Entry(
        title, replace(run, job=replace(run.job, verb=verb)), "student", replace(one, metrics=metrics, **changes)
    )


@pytest.mark.parametrize(
    ("ap", "expected"),
    [
        (0.25, "Distillation helped: 25.0 AP"),
        (0.18, "Distillation did not help: 18.0 AP"),
        (0.2004, "Distillation changed nothing: 20.0 AP"),
    ],
)
def test_the_first_sentence_says_whether_distillation_helped(plain, ap, expected):
    base = entry_of(plain, "plain")
    told = headline(entry_of(plain, "taught", "distill", ap), base)
    assert told.startswith(expected)
    ends = {0.25: "5.0 up", 0.18: "2.0 down", 0.2004: "0.0 away"}
    assert told.endswith(f"{ends[ap]} from 20.0 of plain.")
    assert headline(entry_of(plain, "other", ap=0.25), base).startswith("other is better: ")


def test_classes_and_sizes_that_gain_or_lose_are_named(plain):
    rows = numbers_of(plain).classes[:3]
    before = tuple(replace(row, name=name, ap=0.5) for row, name in zip(rows, "abc", strict=True))
    now = tuple(replace(row, ap=ap) for row, ap in zip(before, (0.6, 0.45, 0.5), strict=True))
    base, one = entry_of(plain, "plain", classes=before), entry_of(plain, "taught", classes=now)
    one.scored.metrics["ap_small"] = 0.13
    assert comparison(one, base)[:2] == [
        "AP by size of objects: small +3.0.",
        "Of 3 classes 1 gain (a +10.0) and 1 lose (b -5.0).",
    ]


def test_runs_on_other_images_are_not_compared(plain):
    base, one = entry_of(plain, "plain"), entry_of(plain, "other")
    assert not_comparable(one, base) is None
    training, val = one.run.job.contents
    changed = replace(one.run, job=replace(one.run.job, contents=(training, replace(val, images=99))))
    assert "on different images" in not_comparable(replace(one, run=changed), base)
    assert "up to 300 detections" in not_comparable(entry_of(plain, "other", most=300), base)


COLUMNS = ("AP - baseline", "difference of the last from the first")


def rows_of(page, caption):
    """The rows of the table with a caption, by the names of its columns."""
    found = re.search(rf"<caption>{caption}.*?</table>", page).group()
    cells = [re.findall("<t[hd].*?>(.*?)</t[hd]>", row) for row in re.findall("<tr>(.*?)</tr>", found)]
    return [dict(zip(cells[0], row)) for row in cells[1:]]


def tables_of(*entries):
    """The tables of AP by run and by class of a page about the entries."""
    page = "".join(page_of(entries, [(entries[-1], Drawn([], []))], compared=True))
    return rows_of(page, "average precision"), rows_of(page, "AP by class")


def test_no_difference_is_shown_of_runs_that_cannot_be_compared(plain):
    base, other = entry_of(plain, "plain"), entry_of(plain, "other", ap=0.25, most=300)
    for rows in tables_of(base, other):
        assert not rows[0].keys() & set(COLUMNS)
    same = entry_of(plain, "same", ap=0.25)
    by_run, by_class = tables_of(base, other, same)
    assert [row["AP - baseline"] for row in by_run] == ["0.0", "–", "5.0"]
    assert {row[COLUMNS[1]] for row in by_class} <= {"0.0", "–"}
    by_run, by_class = tables_of(base, same, other)
    assert [row["AP - baseline"] for row in by_run] == ["0.0", "5.0", "–"]
    assert COLUMNS[1] not in by_class[0]


def test_a_difference_that_is_rounded_to_zero_has_no_sign(plain):
    rows = tuple(replace(row, ap=0.5) for row in numbers_of(plain).classes)
    less = tuple(replace(row, ap=0.4998) for row in rows)
    for now, before in ((less, rows), (rows, less)):
        base, one = entry_of(plain, "plain", ap=0.2, classes=before), entry_of(plain, "one", ap=0.1998, classes=now)
        by_run, by_class = tables_of(base, one)
        assert [row["AP - baseline"] for row in by_run] == ["0.0", "0.0"]
        assert {row[COLUMNS[1]] for row in by_class} == {"0.0"}
    assert (difference(20.0, 20.04), difference(20.0, 20.06)) == (0.0, pytest.approx(-0.06))
    assert np.isnan([difference(None, 20.0), difference(20.0, None), difference(np.nan, 20.0)]).all()


def test_errors_are_told_from_the_most_frequent_on(plain):
    kinds = {"correct": 9, "missed": 3, "background": 1, "duplicate": 0}
    one = replace(numbers_of(plain), classes=(replace(numbers_of(plain).classes[0], kinds=kinds),))
    assert [line.split(",")[0] for line in about_errors(one)] == [
        "missed: 3 (75 % of all errors)",
        "background: 1 (25 % of all errors)",
    ]
