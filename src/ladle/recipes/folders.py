"""The folder of a run: created by one process exclusively, locked while the run is active, and cleaned up."""

from __future__ import annotations

import errno
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import BinaryIO

from ladle.errors import UserError
from ladle.files import is_partial, remove_partials
from ladle.locks import LOCK, held, lock, share, unlock, unshare
from ladle.recipes.console import warn

__all__ = [
    "CONFIG",
    "CONTENTS",
    "FIRST_WEIGHTS",
    "INITIAL",
    "TEACHER",
    "UNLABELLED",
    "asked_for_by",
    "begun",
    "check_name",
    "check_path",
    "check_project",
    "held_folder",
    "joined_folder",
    "neighbors",
    "new_folder",
]

CONFIG = "config.yaml"
"""The file by which a folder is recognized as a run folder; it is written last."""
TEACHER = "teacher.json"
FIRST_WEIGHTS = "first_weights.json"
INITIAL = "initial.safetensors"
"""A copy of the trained detector that a run starts from."""
CONTENTS = "data.json"
UNLABELLED = "unlabelled.jsonl"
_TRIES = 100
_BYTES = 200
"""The longest name; file systems allow 255 bytes."""
_RESERVED = {"CON", "PRN", "AUX", "NUL"} | {f"{port}{number}" for port in ("COM", "LPT") for number in range(1, 10)}
"""Device names on Windows, with any suffix."""


def check_name(name: str) -> None:
    """Raise :class:`UserError` unless ``name`` is a valid name of one folder on every system."""
    wrong = "holds a separator of folders" if re.search(r"[/\\]", name) else _wrong_with(name)
    if wrong is not None:
        raise UserError(f"--name {name!r} {wrong}: expected the name of one folder, such as first-try")


def check_project(project: str) -> None:
    """Raise :class:`UserError` unless ``project`` is a valid path of a folder."""
    check_path("--project", project, "runs")


def check_path(flag: str, path: str, example: str) -> None:
    """Raise :class:`UserError` unless ``path``, given by ``flag``, is a valid path of a folder such as ``example``."""
    parts = [part for part in re.split(r"[/\\]", path) if part not in ("", ".", "..")]
    wrongs = [wrong for wrong in map(_wrong_with, parts) if wrong is not None]
    if path.startswith("~"):
        wrongs.insert(0, "begins with ~, which only a shell replaces, at the beginning of a word")
    if not path or wrongs:
        raise UserError(f"{flag} {path!r} {[*wrongs, 'is empty'][0]}: expected the path of a folder, such as {example}")


@contextmanager
def asked_for_by(flag: str, path: str) -> Iterator[None]:
    """Name the flag in the error message if a folder cannot be made."""
    try:
        yield
    except OSError as error:
        is_taken = isinstance(error, FileExistsError | NotADirectoryError)
        found = f"{error.filename}: {'something that is not a folder is in its place' if is_taken else error.strerror}"
        raise UserError(f"{flag} {path}: expected a folder that can be made and written to, found {found}") from error


def _wrong_with(name: str) -> str | None:
    wrongs = {
        "is empty": not name.strip(),
        "is no name": name in (".", ".."),
        "holds characters that cannot be printed": not name.isprintable(),
        "begins or ends with a space, or ends with a dot": name != name.strip() or name.endswith("."),
        f"is longer than {_BYTES} bytes": len(name.encode(errors="replace")) > _BYTES,
        "is a reserved name on Windows": name.partition(".")[0].upper() in _RESERVED,
    }
    return next((what for what, is_so in wrongs.items() if is_so), None)


def neighbors(folder: Path) -> Iterator[Path]:
    """``folder`` and then, without end, its siblings with a number appended: ``NAME-2``, ``NAME-3``."""
    yield folder
    yield from (folder.with_name(f"{folder.name}-{number}") for number in count(2))


def begun(folder: Path) -> bool:
    """Whether training has begun in the folder of a run, or in that of one of its assistants."""
    return next(folder.rglob("weights"), None) is not None


@contextmanager
def new_folder(project: str, verb: str, name: str | None, label: str) -> Iterator[str]:
    """Make and lock the folder of a new run: ``name``, which must not exist, or ``label``, numbered.

    It is removed on exit if training has not begun. Raises :class:`UserError` if ``name`` exists.
    """
    base = Path(project) / verb
    missing = [path for path in (base, *base.parents) if not path.exists()]
    with asked_for_by("--project", project):
        folder, file = _named(base / name) if name is not None else _numbered(base, label)
    try:
        remove_partials(folder)
        yield str(folder)
    finally:
        if begun(folder):
            remove_partials(folder)
        else:
            shutil.rmtree(folder, ignore_errors=True)
        unlock(folder, file)
        for path in missing:
            with suppress(OSError):  # it contains other runs
                path.rmdir()


@contextmanager
def held_folder(folder: Path) -> Iterator[None]:
    """Lock the folder of an existing run, and remove partial files that a killed process left.

    Raises :class:`UserError` if another process has locked it.
    """
    try:
        file = lock(folder, warn)
    except BlockingIOError as error:
        raise held(folder, error) from None
    try:
        remove_partials(folder)
        yield
    finally:
        remove_partials(folder)  # a child process may have been killed
        unlock(folder, file)


@contextmanager
def joined_folder(folder: Path) -> Iterator[None]:
    """Share the lock of a folder with the process that holds it: this process or its parent."""
    try:
        file = share(folder)
    except BlockingIOError:
        raise UserError(f"{folder}: another process has resumed this run") from None
    try:
        yield
    finally:
        if file is not None:
            unshare(file)


def _named(folder: Path) -> tuple[Path, BinaryIO]:
    file = _claim(folder)
    if file is not None:
        return folder, file
    if any((folder / name).exists() for name in (CONFIG, LOCK)):
        raise UserError(f"{folder} already holds a run: go on with --resume {folder}, or take another --name")
    raise UserError(f"{folder} is there already and holds no run: take another --name")


def _numbered(base: Path, label: str) -> tuple[Path, BinaryIO]:
    label = re.sub(r"[^\w.+=,-]+", "-", label).encode()[:_BYTES].decode(errors="ignore")
    claims = ((folder, _claim(folder)) for folder in neighbors(base / label))
    return next((folder, file) for folder, file in claims if file is not None)


def _claim(folder: Path) -> BinaryIO | None:
    """Make and lock ``folder``, or take over one whose process was killed before training; None if it is in use."""
    for _ in range(_TRIES):
        # The process that holds it may remove it and its parents at any moment.
        with suppress(FileNotFoundError):
            folder.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileExistsError):
                folder.mkdir()
            if not _is_free(folder):
                return None
            try:
                file = lock(folder, warn)
            except BlockingIOError:
                return None
            if _is_free(folder):
                return file
            unlock(folder, file)
            return None
    raise OSError(errno.ENOENT, "it cannot be made, or another process keeps removing it", str(folder))


def _is_free(folder: Path) -> bool:
    """Whether ``folder`` contains only files that are written before training begins."""
    return folder.is_dir() and all(
        path.name in (LOCK, TEACHER, FIRST_WEIGHTS, INITIAL, CONTENTS, UNLABELLED) or is_partial(path)
        for path in folder.iterdir()
    )
