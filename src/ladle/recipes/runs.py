"""Start a run in a new folder, or resume one."""

from __future__ import annotations

import os
import re
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from ladle.errors import UserError
from ladle.recipes.console import say, warn
from ladle.recipes.folders import CONFIG, begun, held_folder, new_folder
from ladle.recipes.jobs import ASSISTANTS, OBJECT, Job
from ladle.recipes.origins import file_hash
from ladle.recipes.parts import Parts, parts_of
from ladle.recipes.progress import disk_error, state_of
from ladle.recipes.setup import links_of
from ladle.recipes.training import Trained, check_data, run_training
from ladle.teachers.uri import with_class_map, without_class_map

__all__ = ["new_run", "resume_run", "run_chain"]


def resume_run(verb: str, folder: str, asked: Mapping[str, Any], given: Parts | None = None) -> dict[str, Trained]:
    """Resume the run in ``folder``, which ``verb`` started; ``asked`` are the flags given with ``--resume``.

    Returns the result of each student, by its name. Raises :class:`UserError` if the run is damaged, if another process
    is running it, if its data or its teacher have changed, for a flag that cannot be changed, and if custom code is not
    ``given`` again.
    """
    where = Path(folder)
    if not (where / CONFIG).is_file():
        found = "a file" if where.is_file() else "none"
        raise UserError(f"--resume {folder}: expected a run folder with a {CONFIG}, found {found}")
    with held_folder(where):
        job = Job.read(folder, verb)
        job = job.changed(_with_map(asked, job))
        parts = parts_of(job, given, again=asked.keys())
        job.check_origins()
        with _resumable(job):
            return run_chain(job, parts, resume=True)


def _with_map(asked: Mapping[str, Any], job: Job) -> dict[str, Any]:
    """The flags with ``class_map`` as an option of the teacher, as a run folder stores it."""
    asked = dict(asked)
    file = asked.pop("class_map", None)
    if file is None:
        return asked
    teacher = asked.get("teacher", job.teacher)
    if teacher is None or teacher.startswith(OBJECT):
        raise UserError(f"--class-map {file}: expected a --teacher such as onnx:file.onnx, found none in this run")
    if "teacher" not in asked:
        teacher = without_class_map(teacher)
    return asked | {"teacher": with_class_map(teacher, file)}


@contextmanager
def new_run(job: Job, label: str) -> Iterator[Job]:
    """Make and lock a folder for a run; yields the job with that folder."""
    if not job.data:
        raise UserError("there is nothing to train on: give --data FOLDER (COCO, YOLO or Pascal VOC), or --data scenes")
    with new_folder(job.run.project, job.verb, job.run.name, _as_name(label)) as folder:
        job = replace(job, folder=folder)
        with _resumable(job):
            yield job


def _as_name(label: str) -> str:
    """Convert a label to a folder name that is valid on every system."""
    return re.sub(r"[^\w.+()=,-]+", "-", label)[:100].rstrip(".-") or "run"


@contextmanager
def _resumable(job: Job) -> Iterator[None]:
    """Print the command that resumes the run if training is stopped by the user, a signal or a disk error."""
    try:
        with _terminated_by_exception():
            yield
    except (KeyboardInterrupt, SystemExit):
        if begun(Path(job.folder)):
            warn(f"stopped; go on with `{job.resuming}`")
        raise
    except OSError as error:
        if error.errno is None or not begun(Path(job.folder)):
            raise
        raise disk_error(job, error) from error


@contextmanager
def _terminated_by_exception() -> Iterator[None]:
    """Make SIGTERM raise SystemExit, so that open files are closed; a second one ends the process at once."""
    mine = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    process = os.getpid()

    def stop(number: int, frame: object) -> None:
        if os.getpid() != process:  # a forked child has no files to close
            os._exit(128 + number)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        raise SystemExit(128 + number)

    if mine:
        signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        if mine:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def run_chain(job: Job, parts: Parts, resume: bool = False) -> dict[str, Trained]:
    """Run a job, and before it one run for each assistant, whose teacher is the previous one."""
    names = links_of(job, parts)
    if not names:
        return run_training(job, parts, resume)
    # Everything is checked before new flags are stored, and they are stored before the first run of the chain.
    if state_of(job) is None and not any(Path(job.folder).rglob("resume.pt")):
        job = replace(job, contents=None)
    job = check_data(job, parts)
    job.write()
    for number, name in enumerate(names, start=1):
        say(f"assistant {number} of {len(names)}: {name}", job.run.quiet)
        link = _link(job, name, Path(job.folder) / ASSISTANTS / f"{number}-{name}")
        with held_folder(Path(link.folder)):
            assistant = run_training(link, parts._replace(student=None), resume)["student"]
        job = replace(job, taught_by=str(assistant.weights))
    say(f"the student: {job.student}", job.run.quiet)
    return run_training(job.with_assistant(), parts, resume)


def _link(job: Job, name: str, folder: Path) -> Job:
    """The job of an assistant; one that has started keeps its epochs, batch and data."""
    link = replace(job, student=name, folder=str(folder), assistants=None, assistant_sha256=None)
    if job.taught_by is not None:
        link = replace(link, teacher=job.taught_by, teacher_sha256=file_hash(Path(job.taught_by)), taught_by=None)
    if (folder / CONFIG).is_file():
        began = Job.read(str(folder), job.verb)
        if began.teacher_sha256 != link.teacher_sha256:
            raise UserError(f"--resume {job.folder}: {link.teacher} is not the teacher that {folder} began with")
        run = replace(link.run, epochs=began.run.epochs, batch=began.run.batch)
        return replace(link, run=run, contents=began.contents)
    folder.mkdir(parents=True, exist_ok=True)
    return link
