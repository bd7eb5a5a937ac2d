"""What a report tells of a run folder: its flags, its curves, its numbers."""

from __future__ import annotations

import csv
import json
import math
import shlex
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

from ladle.engine import prefix
from ladle.errors import UserError
from ladle.files import read_regular
from ladle.recipes.folders import CONFIG
from ladle.recipes.jobs import OBJECT, Job
from ladle.recipes.origins import file_hash
from ladle.recipes.progress import best_weights
from ladle.recipes.report_values import Numbers, Scored, read_numbers

__all__ = ["Entry", "RunRecord", "command_of", "entries_of", "read_run", "students_of"]

_MOST_BYTES = 256_000_000

Row = dict[str, float]


@dataclass(frozen=True)
class RunRecord:
    """A run: its folder, its flags, its rows of results.csv, the share of waiting by epoch, its numbers if it has them.

    ``waiting`` is empty where metrics.jsonl does not tell; ``speed`` is images per second of training.
    """

    folder: Path
    job: Job
    rows: tuple[Row, ...]
    waiting: tuple[tuple[float, float], ...]
    speed: float | None
    numbers: Numbers | None

    def column(self, name: str) -> list[tuple[float, float]]:
        """The epochs and values of a column of results.csv, without epochs that have none."""
        return [(row["epoch"], row[name]) for row in self.rows if name in row and "epoch" in row]

    def best_epoch(self, student: str) -> int:
        """The epoch of a student's best AP; 0 where there is none."""
        found = self.column(prefix(student, "/") + "ap")
        return int(max(found, key=lambda pair: pair[1])[0]) if found else 0

    @property
    def seconds(self) -> float:
        """The training time up to the last epoch."""
        return max((value for _, value in self.column("seconds")), default=0.0)

    def columns(self, start: str) -> list[str]:
        """The names of the columns that begin with ``start``."""
        return list(dict.fromkeys(name for row in self.rows for name in row if name.startswith(start)))


@dataclass(frozen=True)
class Entry:
    """One student of a run, by a title that tells it from the others of a report."""

    title: str
    run: RunRecord
    student: str
    scored: Scored | None

    @property
    def aps(self) -> list[tuple[float, float]]:
        """The epochs and the AP of those that were evaluated."""
        return self.run.column(prefix(self.student, "/") + "ap")


def read_run(folder: Path) -> RunRecord:
    """Read a run folder; raises :class:`UserError` for any other, and for a damaged one."""
    config = folder / CONFIG
    if not config.is_file():
        raise UserError(
            f"{folder}: expected the folder of a run, with a {CONFIG}, found none: give one that `ladle train`, "
            "`distill` or `colearn` made"
        )
    waiting, speed = _waiting(folder / "metrics.jsonl")
    job = Job.read(str(folder))
    return RunRecord(folder, job, _rows(folder), waiting, speed, _of_weights(read_numbers(folder), job))


def entries_of(runs: Sequence[RunRecord]) -> list[Entry]:
    """The students of all runs; titles are the ends of their paths, as long as it takes to tell them apart."""
    parts = [run.folder.absolute().parts for run in runs]
    length = next(n for n in range(1, 100) if len({one[-n:] for one in parts}) == len({*parts}) or n == 99)
    entries = []
    for number, (run, path) in enumerate(zip(runs, parts, strict=True), start=1):
        title = "/".join(path[-length:])
        title = f"{title} ({number})" if parts.count(path) > 1 else title
        for student in students_of(run.job):
            own = [one for one in run.numbers.students if one.student == student] if run.numbers else []
            named = f"{title}, {student}" if run.job.verb == "colearn" else title
            entries.append(Entry(named, run, student, own[0] if own else None))
    return entries


def students_of(job: Job) -> tuple[str, ...]:
    """The names of the students of a run."""
    return ("first", "second") if job.verb == "colearn" else ("student",)


def command_of(job: Job) -> str | None:
    """The command that repeats a run, with the flags that are not at their defaults; None for objects of Python."""
    usual = Job(job.verb, "", "").flags
    skipped = ("name", "quiet")
    flags = {name: value for name, value in job.flags.items() if value != usual[name] and name not in skipped}
    if any(str(value).startswith(OBJECT) for value in flags.values()):
        return None
    if job.verb != "train" and "method" not in flags:
        flags["method"] = job.method
    words = [word for name, value in flags.items() for word in (f"--{name.replace('_', '-')}", _spelled(value))]
    return shlex.join(["ladle", job.verb, *words])


def _of_weights(numbers: Numbers | None, job: Job) -> Numbers | None:
    """The numbers, or None if other weights than those now in the run folder were evaluated."""
    stored = [(best_weights(job, one.student), one.sha256) for one in numbers.students] if numbers is not None else []
    same = [file_hash(file) == sha256 for file, sha256 in stored if sha256 is not None and file.is_file()]
    return numbers if all(same) else None


def _spelled(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _rows(folder: Path) -> tuple[Row, ...]:
    """The rows of results.csv without empty cells; none where there is no such file."""
    file = folder / "results.csv"
    if not file.is_file():
        return ()
    text = read_regular(file, _MOST_BYTES).decode("utf-8", "replace")
    table = csv.DictReader(StringIO(text))
    return tuple(dict(_finite(row)) for row in table)


def _finite(row: dict[str, Any]) -> list[tuple[str, float]]:
    """The cells that hold a finite number."""
    found = []
    for name, cell in row.items():
        try:
            value = float(cell)
        except (TypeError, ValueError):
            continue
        if name is not None and math.isfinite(value):
            found.append((name, value))
    return found


def _waiting(file: Path) -> tuple[tuple[tuple[float, float], ...], float | None]:
    """The mean share of waiting of each epoch, and the median speed; lines that cannot be read are left out."""
    if not file.is_file():
        return (), None
    shares: dict[float, list[float]] = defaultdict(list)
    speeds = []
    for line in read_regular(file, _MOST_BYTES).splitlines():
        try:
            row = json.loads(line)
            values = [float(row[name]) for name in ("epoch", "waiting_for_data", "images_per_second")]
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
            continue
        if all(map(math.isfinite, values)):
            shares[values[0]].append(values[1])
            speeds.append(values[2])
    middle = sorted(speeds)[len(speeds) // 2] if speeds else None
    return tuple((epoch, sum(some) / len(some)) for epoch, some in sorted(shares.items())), middle
