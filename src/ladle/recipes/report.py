"""One page about a run, or about several runs beside each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from ladle.data.sources import Source
from ladle.detectors import Detector, load_detector
from ladle.engine import prefix
from ladle.exporting import network_cost
from ladle.files import path_as_text
from ladle.recipes.card import CARD, write_card
from ladle.recipes.console import say
from ladle.recipes.devices import Device, find_device
from ladle.recipes.jobs import Job
from ladle.recipes.origins import file_hash
from ladle.recipes.outputs import check_out, free_folder
from ladle.recipes.progress import best_weights
from ladle.recipes.report_images import Drawn, draw_assigned, draw_images, open_images
from ladle.recipes.report_page import page_of
from ladle.recipes.report_runs import Entry, RunRecord, entries_of, read_run, students_of
from ladle.recipes.report_values import NUMBERS, Learning, Numbers, Scored, scored, write_numbers
from ladle.recipes.scoring import Evaluator, Score
from ladle.visual.html import write_page

__all__ = ["REPORT", "Evaluated", "remove_report", "report", "write_report"]

REPORT = "report.html"
"""The page in the folder of a run."""


class Evaluated(NamedTuple):
    """A student of a run: its name, its detector at its best epoch, the evaluation, and the objects it cannot learn."""

    student: str
    detector: Detector
    epoch: int
    evaluator: Evaluator
    score: Score
    learning: Learning | None = None


def report(runs: str | Path | list[str | Path], out: str | Path | None = None, device: Device = "auto") -> Path:
    """Write one page about a run, or about several beside each other, from the files in their folders.

    The model card ``card.md`` of the last run is written beside the page. Nothing is trained. The evaluation is the one
    at the end of the run; a run that has none, since it was stopped, is evaluated now.

    Args:
        runs: the folder of a run; of several the first is the baseline of the others, and the last is shown in detail.
        out: folder for ``report.html``; by default that of the run, or ``runs/report``, with a number if it exists, for
            several.
        device: ``auto``, ``cpu`` or ``cuda``, for a run that is evaluated now.
    """
    out = path_as_text(out)
    check_out(out)
    folders = [Path(one) for one in (runs if isinstance(runs, list) else [runs])]
    records = [read_run(folder) for folder in folders]
    source, note = open_images(records[-1].job)
    *earlier, last = records
    opened = [(record, open_images(record.job)[0] if record.numbers is None else None) for record in earlier]
    records = [_with_numbers(record, images, device) for record, images in (*opened, (last, source))]
    folder = Path(out) if out is not None else folders[0] if len(folders) == 1 else free_folder(Path("runs") / "report")
    page = _write(records, source, note, folder)
    if note is not None:
        say(note)
    say(f"report    {page}")
    return page


def write_report(job: Job, seconds: float, students: Sequence[Evaluated], val: Source) -> Path:
    """Write the numbers and the page of a run that has just ended, with the evaluation it ended with."""
    folder = Path(job.folder)
    write_numbers(folder, Numbers(seconds, tuple(_scored(one, best_weights(job, one.student)) for one in students)))
    return _write([read_run(folder)], val, None, folder)


def remove_report(folder: Path) -> None:
    """Remove the numbers, the page and the card of a run that goes on: they would not be those of its next weights."""
    for name in (NUMBERS, REPORT, CARD):
        (folder / name).unlink(missing_ok=True)


def _write(records: Sequence[RunRecord], source: Source | None, note: str | None, folder: Path) -> Path:
    """Write the page about runs, with the details and images of the last."""
    entries = entries_of(records)
    last = [entry for entry in entries if entry.run is records[-1]]
    drawn = [(entry, _drawn(entry, source, note, len(last))) for entry in last]
    title = f"Report of {records[0].folder.name if len(records) == 1 else f'{len(records)} runs'}"
    page = write_page(folder / REPORT, title, page_of(entries, drawn, compared=len(records) > 1))
    write_card(last, entries[0] if len(records) > 1 else None, folder)
    return page


def _drawn(entry: Entry, source: Source | None, note: str | None, students: int) -> Drawn:
    plots = entry.run.folder / "plots" / prefix(entry.student, "")
    return draw_images(entry.scored, source, note, students)._replace(assigned=draw_assigned(entry.scored, plots))


def _with_numbers(record: RunRecord, source: Source | None, device: Device) -> RunRecord:
    """The run with an evaluation of its best weights, made now if it has none and its images and weights are there."""
    if record.numbers is not None:
        return record
    files = {student: best_weights(record.job, student) for student in students_of(record.job)}
    if source is None or not all(file.is_file() for file in files.values()):
        return record
    say(f"{record.folder} holds no evaluation of its end: its best weights are evaluated now")
    students = []
    for student, file in files.items():
        detector = load_detector(file).to(find_device(device))
        evaluator = Evaluator(source, detector.spec.imgsz, record.job.run.batch_size)
        one = Evaluated(student, detector, record.best_epoch(student), evaluator, evaluator(detector))
        students.append(_scored(one, file))
    return replace(record, numbers=Numbers(record.seconds, tuple(students)))


def _scored(one: Evaluated, weights: Path) -> Scored:
    spec = one.detector.spec
    cost = network_cost(one.detector, spec.imgsz)
    about = {
        "student": one.student,
        "model": spec.name,
        "imgsz": spec.imgsz,
        "epoch": one.epoch,
        "parameters": cost.parameters,
        "flops": cost.flops,
        "sha256": file_hash(weights),
    }
    return scored(one.score, one.evaluator.truth, one.evaluator.source, about, one.learning)
