"""Teacher and student beside each other, for the report of a distilled run."""

from __future__ import annotations

import math
from pathlib import Path

from ladle.errors import UserError
from ladle.names import readable
from ladle.recipes.folders import CONFIG
from ladle.recipes.jobs import Job
from ladle.recipes.origins import file_hash
from ladle.recipes.report_runs import Entry, read_run
from ladle.recipes.report_values import NUMBERS, Scored
from ladle.recipes.report_words import difference
from ladle.visual.html import Html, beside, heading, paragraph, table

__all__ = ["beside_teacher", "teacher_numbers"]

_BEST = "best.safetensors"
_MOST_CLASSES = 30


def beside_teacher(entry: Entry) -> list[Html]:
    """AP of the teacher and of the student by size and class, and how far they assign alike; nothing for other runs."""
    job, one = entry.run.job, entry.scored
    if job.verb != "distill" or one is None:
        return []
    parts = [heading("Teacher and student"), *_agreement(entry)]
    teacher = teacher_numbers(job)
    if teacher is None:
        told = "The folder of the teacher's own run, with an evaluation on these images, is not there to compare with."
        return [*parts, paragraph(f"{told} `ladle val` evaluates the teacher.")]
    sizes = {"all": "ap"} | {name: f"ap_{name}" for name in one.by_size}
    rows = [_row("objects", name, teacher.metrics.get(key), one.metrics.get(key)) for name, key in sizes.items()]
    theirs = {row.name: row.ap for row in teacher.classes}
    pairs = zip(readable([row.name for row in one.classes]), one.classes, strict=True)
    classes = [_row("class", shown, theirs.get(row.name), row.ap) for shown, row in pairs]
    classes.sort(key=_behind)
    caption = f"AP in percent by class, where the student is most behind first{_left_out(len(classes))}"
    told = f"The teacher, {teacher.model}, was evaluated on the same {teacher.images} images at the end of its own run."
    return [*parts, paragraph(told), beside([table(rows, "AP in percent"), table(classes[:_MOST_CLASSES], caption)])]


def teacher_numbers(job: Job) -> Scored | None:
    """The numbers in the folder of the teacher's run, if they are of these weights and of the same images."""
    file = Path(job.teacher_file or "")
    folder = file.absolute().parent.parent
    if file.name != _BEST or not all(one.is_file() for one in (file, folder / CONFIG, folder / NUMBERS)):
        return None
    try:
        record, unchanged = read_run(folder), file_hash(file) == job.teacher_sha256
    except (UserError, OSError):
        return None
    same = record.job.contents is not None and job.contents is not None and record.job.contents[1] == job.contents[1]
    if not (same and unchanged and record.numbers is not None and len(record.numbers.students) == 1):
        return None
    return record.numbers.students[0]


def _agreement(entry: Entry) -> list[Html]:
    found = entry.run.column("agreement")
    if not found:
        return []
    (first, before), (last, now) = found[0], found[-1]
    told = f"In epoch {last:.0f}, {100 * now:.0f} % of the student's own positives learn the same object if the teacher"
    since = f"; in epoch {first:.0f} it was {100 * before:.0f} %" if first != last else ""
    return [paragraph(f"{told} judges{since}.")]


def _row(kind: str, name: str, teacher: float | None, student: float | None) -> dict[str, object]:
    values = [math.nan if value is None else 100 * value for value in (teacher, student)]
    return {kind: name, "teacher": values[0], "student": values[1], "difference": difference(values[1], values[0])}


def _behind(row: dict[str, object]) -> float:
    gain = row["difference"]
    return gain if isinstance(gain, float) and not math.isnan(gain) else math.inf


def _left_out(classes: int) -> str:
    return f"; {_MOST_CLASSES} of {classes} classes" if classes > _MOST_CLASSES else ""
