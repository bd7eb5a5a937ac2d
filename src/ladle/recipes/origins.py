"""The files that a run was begun with: recognized by their SHA-256, wherever they lie."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from ladle.detectors import absence
from ladle.errors import UserError
from ladle.teachers.uri import OF_STUDENT, TeacherURI, members_of, parse_uri

__all__ = ["check_asked", "check_named", "file_hash", "named_hashes", "teacher_hash"]

_NO_FILE = ("torchvision", "hf", "timm", "ensemble", "dense", *OF_STUDENT)
"""The kinds of teachers that are not one file."""


def file_hash(file: Path, flag: str = "teacher") -> str:
    """SHA-256 of the file given by a flag."""
    if not file.is_file():
        raise UserError(f"--{flag} {file}: {absence(file)}; expected weights saved by ladle (.safetensors)")
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def teacher_hash(text: str) -> str:
    """SHA-256 of the file of a teacher; of all files of an ensemble; of the text where there is no file."""
    uri = parse_uri(text)
    if uri.kind not in _NO_FILE:
        return file_hash(Path(uri.path))
    if uri.kind == "ensemble":
        parts = [teacher_hash(one) for one in members_of(uri.path)]
    else:
        parts = [file_hash(one) for one in uri.files()]
    return parts[0] if len(parts) == 1 else hashlib.sha256(" ".join(parts or [text]).encode()).hexdigest()


def named_hashes(text: str) -> dict[str, str]:
    """SHA-256 of the files that name the classes of a teacher, by option; those that do not exist are left out."""
    return {name: file_hash(file) for name, file in parse_uri(text).named_files().items() if file.is_file()}


def check_asked(folder: str, began: str, now: str) -> None:
    """Raise :class:`UserError` unless a teacher is asked as when the run began: only paths of files may be others."""
    before, after = (parse_uri(text).asked() for text in (began, now))
    if before != after:
        raise UserError(
            f"--resume {folder}: files of the teacher may lie elsewhere, but it is asked as before: expected "
            f"{before}, found {after}; give the same kind and options in --teacher, or start a new run"
        )


def check_named(folder: str, uri: TeacherURI, began: Mapping[str, str]) -> None:
    """Raise :class:`UserError` unless the classes of a teacher are named by the files that the run began with."""
    now, files = named_hashes(uri.text), uri.named_files()
    for option in {**began, **now}:
        if began.get(option) == now.get(option):
            continue
        name, file = option.rpartition("/")[2], files.get(option)
        if option not in began:
            raise UserError(
                f"--resume {folder}: ?{name}={file} of the teacher was not given when this run began: leave it out of "
                "--teacher, or start a new run"
            )
        found = "missing from --teacher" if file is None else "changed" if option in now else "not there any more"
        raise UserError(
            f"--resume {folder}: the classes of the teacher were named by {file or 'a file'} (?{name}=), which is "
            f"{found}: put it back from a copy, give its path by ?{name}= in --teacher, or start a new run"
        )
