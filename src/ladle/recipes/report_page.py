"""The page of a report, put together from the numbers of runs."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ladle.evaluation import AP_FIELDS, DETECTION_KINDS
from ladle.names import readable
from ladle.recipes.jobs import Job
from ladle.recipes.progress import best_weights
from ladle.recipes.report_images import Drawn
from ladle.recipes.report_runs import Entry, RunRecord, command_of
from ladle.recipes.report_teacher import beside_teacher
from ladle.recipes.report_values import Learning, Scored
from ladle.recipes.report_words import (
    about_errors,
    about_threshold,
    comparison,
    difference,
    headline,
    not_comparable,
)
from ladle.statistics import Group, share
from ladle.visual.html import Html, beside, bullets, code, heading, matrix, paragraph, table
from ladle.visual.svg import SHADES, Line, bar_chart, line_chart

__all__ = ["page_of"]

_KEY = ("data", "model", "student", "first", "second", "teacher", "method", "epochs", "batch", "imgsz", "seed")
"""The flags that are always shown."""
_MOST_BARS = 30
_MOST_CLASSES = 30
"""With more classes the confusion matrix becomes a list of the pairs that are confused most."""
_MOST_PAIRS = 25
_MOST_ROWS = 400
_ASSIGNED = (
    "The images whose objects have the fewest positives: each small square is a prior that learns the object of its "
    "color, larger on coarser levels; an object that none learns is dashed. `ladle assign show` draws more."
)


def page_of(entries: Sequence[Entry], drawn: Sequence[tuple[Entry, Drawn]], compared: bool) -> list[Html]:
    """The parts of a page about all entries, with details of those that were ``drawn``.

    With ``compared`` the first entry is the baseline of the others.
    """
    base = entries[0] if compared else None
    parts = [*_result(entries, base), *_run_parts(entries), *_curves(entries)]
    for entry, images in drawn:
        parts += _details(entry, images, named=len(entries) > 1)
    return [*parts, heading("Next"), code("\n".join(_commands(drawn[-1][0], compared)))]


# ------------------------------------------------------------------------------------------------------- what came out


def _result(entries: Sequence[Entry], base: Entry | None) -> list[Html]:
    parts = []
    for entry in entries[1:] if base is not None else entries:
        warning = not_comparable(entry, base) if base is not None else None
        parts += [paragraph(warning)] if warning else []
        parts.append(paragraph(headline(entry, base if warning is None else None)))
        parts.append(bullets(comparison(entry, base) if base is not None and warning is None else []))
    scored = [entry for entry in entries if entry.scored is not None]
    caption = "average precision in percent, by COCO's definitions; S, M and L are sizes of objects"
    return [*parts, table(_metric_rows(scored, base), caption), *_by_class(scored)]


def _metric_rows(entries: Sequence[Entry], base: Entry | None) -> list[dict[str, object]]:
    """AP by COCO's definitions, with the difference from the baseline if any of the others can be compared with it."""
    rows: list[dict[str, object]] = [
        {"run": one.title} | {name: _percent(_scored(one).metrics.get(field)) for name, field in AP_FIELDS.items()}
        for one in entries
    ]
    gains = [math.nan if base is None else _gain(one, base) for one in entries]
    if all(math.isnan(gain) for one, gain in zip(entries, gains, strict=True) if one is not base):
        return rows
    return [row | {"AP - baseline": gain} for row, gain in zip(rows, gains, strict=True)]


def _gain(entry: Entry, base: Entry) -> float:
    """How far the AP of an entry is from the baseline's, in percent; NaN if they cannot be compared."""
    if base.scored is None or not_comparable(entry, base) is not None:
        return math.nan
    now, before = (_percent(_scored(one).metrics.get("ap")) for one in (entry, base))
    return difference(now, before)


def _by_class(entries: Sequence[Entry]) -> list[Html]:
    """Charts and a table of AP by size and by class."""
    if not entries:
        return []
    last = entries[-1].scored
    assert last is not None
    sizes = [f"{name}, {count}" for name, count in last.by_size.items()]
    by_size = {
        one.title: [_percent(_scored(one).metrics.get(f"ap_{name}")) for name in last.by_size] for one in entries
    }
    aps = {one.title: {row.name: _percent(row.ap) for row in _scored(one).classes} for one in entries}
    names = [row.name for row in last.classes]
    shown = names[:_MOST_BARS]
    by_class = {title: [values.get(name, math.nan) for name in shown] for title, values in aps.items()}
    charts = [bar_chart("AP by size, objects", sizes, by_size, "AP in percent")]
    first = f"AP by class, the first {_MOST_BARS}" if len(names) > _MOST_BARS else "AP by class"
    charts.append(bar_chart(first, readable(shown), by_class, "AP in percent"))
    rows = []
    is_compared = len(entries) > 1 and not_comparable(entries[-1], entries[0]) is None
    for row, name in zip(last.classes, readable(names), strict=True):
        line: dict[str, object] = {"class": name, "objects": row.objects}
        line |= {title: values.get(row.name, math.nan) for title, values in aps.items()}
        if is_compared:
            now, before = (aps[one.title].get(row.name) for one in (entries[-1], entries[0]))
            line["difference of the last from the first"] = difference(now, before)
        rows.append(line)
    return [heading("AP by class and size"), beside(charts), table(rows[:_MOST_ROWS], _caption("AP by class", rows))]


# -------------------------------------------------------------------------------------------------------- what was run


def _run_parts(entries: Sequence[Entry]) -> list[Html]:
    runs = _runs(entries)
    caption = "flags that are given or differ from their default"
    parts = [heading("What was run"), table(_settings(list(runs.values()), list(runs)), caption)]
    for title, run in runs.items():
        parts.append(paragraph(f"{title}: {_facts(run)}. The command that repeats it:"))
        command = command_of(run.job)
        parts.append(code(command) if command else paragraph("none, since objects were given in Python."))
    return parts


def _settings(runs: Sequence[RunRecord], titles: Sequence[str]) -> list[dict[str, object]]:
    flags = [{"command": run.job.verb} | run.job.flags for run in runs]
    usual = [Job(run.job.verb, "", "").flags for run in runs]
    names = list(dict.fromkeys(name for one in flags for name in one))
    shown = [name for name in names if name in ("command", *_KEY) or _given(name, flags, usual)]
    rows = []
    for name in shown:
        values = [one.get(name) for one in flags]
        if any(value is not None for value in values):
            cells = ["–" if value is None else str(value) for value in values]
            rows.append({"flag": name.replace("_", "-")} | dict(zip(titles, cells, strict=True)))
    return rows


def _given(name: str, flags: Sequence[dict[str, Any]], usual: Sequence[dict[str, Any]]) -> bool:
    return any(one.get(name) != default.get(name) for one, default in zip(flags, usual, strict=True))


def _facts(run: RunRecord) -> str:
    facts = [f"{len(run.rows)} of {run.job.run.epochs} epochs"]
    if run.job.contents is not None:
        train, val = run.job.contents
        facts.append(f"{train.images} images to train on, {val.images} to validate, {len(train.classes)} classes")
    if run.numbers is not None:
        facts.append(f"{run.numbers.seconds / 60:.1f} minutes")
    if run.speed is not None:
        facts.append(f"{run.speed:.1f} images a second in training")
    return ", ".join(facts)


# -------------------------------------------------------------------------------------------------------------- curves


def _curves(entries: Sequence[Entry]) -> list[Html]:
    runs = _runs(entries)
    several = len(runs) > 1
    charts = [
        _chart("AP in percent", {one.title: _scaled(one.aps) for one in entries}),
        _chart("Loss", {title: run.column("loss") for title, run in runs.items()}),
        *(_loss_shares(run, f", {title}" if several else "") for title, run in runs.items()),
        _chart("Learning rate", {title: run.column("lr") for title, run in runs.items()}),
        *(_unassigned(run, f", {title}" if several else "") for title, run in runs.items()),
        _chart(
            "Agreement with the teacher in percent", {t: _scaled(run.column("agreement")) for t, run in runs.items()}
        ),
        _chart("Waiting for data, percent of the time", {title: _scaled(run.waiting) for title, run in runs.items()}),
    ]
    shown = beside(charts)
    return [heading("Curves over the epochs"), shown] if shown else []


def _chart(title: str, lines: Mapping[str, Sequence[tuple[float, float]]]) -> Html:
    drawn = [Line(name, points, n % SHADES, n // SHADES) for n, (name, points) in enumerate(lines.items())]
    return line_chart(title, drawn, "epoch")


def _loss_shares(run: RunRecord, of: str) -> Html:
    """What each term has of the sum of all terms, in percent."""
    names = run.columns("loss/")
    whole = {row["epoch"]: sum(row.get(name, 0.0) for name in names) for row in run.rows if "epoch" in row}
    lines = {
        name.removeprefix("loss/"): [(epoch, share(value, whole[epoch])) for epoch, value in run.column(name)]
        for name in names
    }
    return _chart(f"Shares of the loss in percent{of}", lines)


def _unassigned(run: RunRecord, of: str) -> Html:
    lines = {
        name.removeprefix("unassigned_").replace("unassigned", "all"): _scaled(run.column(name))
        for name in run.columns("unassigned")
    }
    return _chart(f"Objects without a positive in percent{of}", lines)


# ------------------------------------------------------------------------------------------------------------- details


def _details(entry: Entry, images: Drawn, named: bool) -> list[Html]:
    one = entry.scored
    if one is None:
        return [paragraph(f"{entry.title} has no stored evaluation, so that this page holds its curves alone.")]
    return [
        *([heading(f"Details of {entry.title}")] if named else []),
        *_precision_recall(one),
        *_confusion(one),
        *_errors(one),
        *beside_teacher(entry),
        *_images(images),
        *_learning(entry, one.learning, images),
        heading("Size and speed"),
        paragraph(_size(entry, one)),
    ]


def _precision_recall(one: Scored) -> list[Html]:
    recalls = np.linspace(0.0, 1.0, 101).tolist()
    lines = [
        Line(name.removeprefix("class "), list(zip(recalls, curve, strict=False)), n % SHADES, n // SHADES)
        for n, (name, curve) in enumerate(one.curves.items())
    ]
    chart = line_chart("Precision over recall at an IoU of 0.5", lines, "recall", (0.0, 1.0), (0.0, 1.0))
    return [heading("Precision and recall"), paragraph(about_threshold(one)), beside([chart])]


def _confusion(one: Scored) -> list[Html]:
    names = readable([row.name for row in one.classes])
    count = len(names)
    counts = {(row, column): number for row, column, number in one.confused}
    sums = [sum(number for (row, _), number in counts.items() if row == n) for n in range(count + 1)]
    title = heading("Confusion matrix")
    if count <= _MOST_CLASSES:
        shares = {
            f"{name} ({sums[row]})": [counts.get((row, column), 0) / max(sums[row], 1) for column in range(count + 1)]
            for row, name in enumerate([*names, "no object"])
        }
        caption = (
            "Of the objects in each row, percent that were detected as each class. The last column holds those that no "
            "detection takes, the last row detections that take no object; numbers of both in brackets."
        )
        return [title, matrix(shares, [*names, "not detected"], "object", caption)]
    pairs = sorted(
        (pair for pair in counts if pair[0] != pair[1] and count not in pair), key=lambda pair: -counts[pair]
    )
    rows = [
        {"object": names[row], "detected as": names[column], "objects": counts[row, column]}
        for row, column in pairs[:_MOST_PAIRS]
    ]
    rows = rows or [{"object": "no class is taken for another", "detected as": "–", "objects": 0}]
    return [title, table(rows, f"classes that are confused most, at most {_MOST_PAIRS}")]


def _errors(one: Scored) -> list[Html]:
    kinds = [*DETECTION_KINDS, "missed"]
    totals = [sum(row.kinds.get(kind, 0) for row in one.classes) for kind in kinds]
    chart = bar_chart("Detections, and missed objects, by kind", kinds, {"count": [float(total) for total in totals]})
    named = zip(readable([row.name for row in one.classes]), one.classes, strict=True)
    rows = [{"class": name, "objects": row.objects} | {k: row.kinds.get(k, 0) for k in kinds} for name, row in named]
    told = (
        "Kinds as defined by TIDE (Bolya et al. 2020), with overlaps of 0.5 and 0.1. Each detection above the "
        "threshold is correct or has one error; an object is missed if no detection finds it, misplaces it or "
        "misclassifies it."
    )
    return [
        heading("Errors by kind"),
        paragraph(told),
        bullets(about_errors(one)),
        beside([chart]),
        table(rows[:_MOST_ROWS], _caption("detections by their class, missed objects by theirs", rows)),
    ]


def _images(images: Drawn) -> list[Html]:
    if images.note is not None:
        return [heading("Images"), paragraph(images.note)]
    if not images.worst and not images.best:
        return []
    legend = "Dashed yellow: objects, with their class if missed. Blue: correct detections. Orange: wrong detections."
    parts = [heading("Images with most errors"), paragraph(legend), beside(images.worst)] if images.worst else []
    return [*parts, *([heading("Images with most correct detections"), beside(images.best)] if images.best else [])]


def _learning(entry: Entry, learning: Learning | None, images: Drawn) -> list[Html]:
    title = heading("Objects without a positive")
    if learning is None:
        told = "They are counted at the end of a training with ladle's own networks and are not stored for this one."
        return [title, paragraph(f"{told} `ladle assign stats` counts them.")]
    found = (
        f"{learning.without} of {learning.objects} objects ({share(learning.without, learning.objects):.1f} %) in "
        f"{learning.images} images of train have no positive: no prior learns them. Assigned by {learning.about} with "
        "the weights of the best epoch, without augmentation. An object's size is that in its file; the curve "
        "above counts augmented images at the size of the network's input."
    )
    worst = sorted((row for row in learning.by_class if row.without), key=lambda row: -row.without)
    tables = [table(_group_rows(rows, name)) for name, rows in (("size", learning.by_size), ("class", worst[:20]))]
    shown = [paragraph(_ASSIGNED), beside(images.assigned)] if images.assigned else []
    return [title, paragraph(found), beside(tables), bullets(learning.advice), *shown]


def _group_rows(groups: Sequence[Group], kind: str) -> list[dict[str, object]]:
    names = readable([one.name for one in groups], kind)
    return [
        {
            kind: name,
            "objects": one.objects,
            "without a positive": one.without,
            "percent": share(one.without, one.objects),
        }
        for name, one in zip(names, groups, strict=True)
    ]


def _size(entry: Entry, one: Scored) -> str:
    speed = entry.run.speed
    parts = [
        f"{one.parameters / 1e6:.2f} million parameters",
        f"{one.flops / 1e9:.2f} GFLOPs for an image of {one.imgsz} x {one.imgsz} pixels (a multiplication and an "
        "addition count as two)",
        *([f"{speed:.1f} images a second in training, a median over the run"] if speed is not None else []),
    ]
    return f"{one.model}: {', '.join(parts)}. `ladle bench` measures the time of a detection."


def _commands(entry: Entry, compared: bool) -> list[str]:
    """What to type next, from any working directory."""
    job, folder = entry.run.job, str(entry.run.folder.absolute())
    weights = str(best_weights(job, entry.student).absolute())
    lines = [
        ["ladle", "assign", "show", "--data", job.data, "--model", weights],
        ["ladle", "bench", weights, "--onnx"],
        *([] if compared else [["ladle", "report", "OTHER_RUN" if job.verb == "train" else "PLAIN_RUN", folder]]),
    ]
    return [shlex.join(line) for line in lines]


# ---------------------------------------------------------------------------------------------------------- small parts


def _runs(entries: Sequence[Entry]) -> dict[str, RunRecord]:
    """The runs of the entries, each once, by their titles."""
    found: dict[str, RunRecord] = {}
    for entry in entries:
        if not any(run is entry.run for run in found.values()):
            found[entry.title.removesuffix(", first")] = entry.run
    return found


def _scored(entry: Entry) -> Scored:
    assert entry.scored is not None
    return entry.scored


def _caption(title: str, rows: Sequence[object]) -> str:
    return f"{title}; the first {_MOST_ROWS} of {len(rows)} classes" if len(rows) > _MOST_ROWS else title


def _percent(value: float | None) -> float:
    return math.nan if value is None else 100 * value


def _scaled(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    return [(epoch, 100 * value) for epoch, value in points]
