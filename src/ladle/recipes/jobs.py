"""A training job as plain values: written into the run folder, read back to resume it."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml

from ladle.engine import Balance, Settings
from ladle.errors import UserError
from ladle.files import read_regular, write_atomically, write_text
from ladle.limits import Length, shortened
from ladle.recipes.contents import Contents, difference
from ladle.recipes.folders import CONFIG, CONTENTS, FIRST_WEIGHTS, INITIAL, TEACHER
from ladle.recipes.options import Run
from ladle.recipes.origins import check_asked, check_named, file_hash, named_hashes, teacher_hash
from ladle.teachers import TeacherURI, parse_uri
from ladle.untrusted import parse_json, parse_yaml, read_record

__all__ = ["ASSISTANTS", "OBJECT", "Job", "Verb", "text_of_number"]

_WEIGHTS = ".safetensors"
"""The suffix of a trained detector, which may be given in place of the name of a student."""
OBJECT = "python:"
"""Prefix of the stored text of an object that was given in Python and cannot be written as text."""
ASSISTANTS = "assistants"
"""The subfolder of a run with the runs of the teacher's assistants."""
_PATHS = ("data", "unlabelled", "first_weights", "backbone_weights")
"""The flags that are stored as absolute paths, so that a run can be resumed from another working directory."""
_MAY_CHANGE = (
    *("epochs", "patience", "device", "workers", "cache", "log_every", "loggers", "quiet", "compile", "val_batch"),
    *("data", "unlabelled", "teacher", "first_weights"),
)
"""The flags that may be given together with ``--resume``."""
_NUMBERS = ("weight", "warm", "until", "unlabelled_score")
"""The flags whose text may be one number."""
_TOGETHER = ("batch", "devices", "nodes")
"""The flags that may be given if their product stays the same: the number of images of a step on all devices."""
_MAX_BYTES = 2**20
"""Size limit of the files of a run folder that are read here."""
_REMEDY = "put it back from a copy, or start the run anew"

_NEWER = {
    "criterion": None,
    "val_batch": None,
    "compile": False,
    "channels_last": True,
    "nodes": 1,
    "mixup": 0.0,
    "scale_jitter": 0.0,
    "close_mosaic": 0,
    "rotate": 0.0,
    "shear": 0.0,
    "loggers": None,
}
"""The flags that run folders of earlier versions lack, and the values that those runs had."""
_NEWER_OF_DISTILL = {"unlabelled": None, "unlabelled_score": None, "judge_after": 0.0}
"""Those of ``distill`` alone."""

T = TypeVar("T")

Verb = Literal["train", "distill", "colearn"]

_STUDENT: dict[Verb, str] = {"train": "model", "distill": "student", "colearn": "first"}
"""The flag of each verb for the student, or for the first of two."""
_VERB_FLAGS: dict[Verb, tuple[str, ...]] = {
    "train": ("assigner", "criterion"),
    "distill": (
        "assigner",
        "criterion",
        "method",
        "teacher",
        "assistants",
        "weight",
        "warm",
        "until",
        "keep_count",
        "class_power",
        "judge_until",
        "judge_after",
        "balance",
        "balance_share",
        "allow_weak_teacher",
        "unlabelled",
        "unlabelled_score",
    ),
    "colearn": ("second", "first_weights", "assigner", "criterion", "surer", "method", "weight", "warm", "until"),
}
"""The other flags of each verb that are fields of a job."""


@dataclass(frozen=True)
class _Teacher:
    """teacher.json."""

    file: str
    sha256: Annotated[str, Length(64, 64)]
    assistant: Annotated[str, Length(64, 64)] | None = None
    named: dict[str, str] | None = None


@dataclass(frozen=True)
class _Weights:
    """first_weights.json."""

    file: str
    sha256: Annotated[str, Length(64, 64)]


@dataclass(frozen=True)
class _Data:
    """data.json."""

    train: Contents
    val: Contents


@dataclass(frozen=True)
class Job:
    """All settings of a run.

    In the run folder ``config.yaml`` holds the flags, so that ``--config`` can start another run with them,
    ``teacher.json`` the path and SHA-256 of the teacher and the SHA-256 of the files that name its classes,
    ``first_weights.json`` the same of the initial weights of the first of two students, ``initial.safetensors`` a copy
    of the trained detector that takes the place of the student's name, and ``data.json`` a summary of the training and
    validation images. ``taught_by`` is the weight file of the last of the teacher's assistants, if it
    is trained.
    """

    verb: Verb
    data: str
    student: str
    folder: str = ""
    run: Run = field(default_factory=Run)
    method: str = "plain"
    assigner: str | None = None
    criterion: str | None = None
    teacher: str | None = None
    teacher_sha256: str | None = None
    teacher_named: dict[str, str] | None = None
    assistants: str | None = None
    weight: str | None = None
    warm: str | None = None
    until: str | None = None
    keep_count: bool = True
    class_power: float | None = None
    judge_until: float | None = None
    judge_after: float = 0.0
    balance: Balance = "none"
    balance_share: float = 1.0
    allow_weak_teacher: bool = False
    unlabelled: str | None = None
    unlabelled_score: str | None = None
    second: str | None = None
    first_weights: str | None = None
    first_weights_sha256: str | None = None
    surer: Literal["spread", "fisher"] = "spread"
    taught_by: str | None = None
    assistant_sha256: str | None = None
    contents: tuple[Contents, Contents] | None = None

    @property
    def teacher_file(self) -> str | None:
        """The weight file of this run's teacher or of its last assistant; None for an object and a foreign teacher."""
        teacher = self.taught_by or self.teacher
        if teacher is None or teacher.startswith(OBJECT) or parse_uri(teacher).is_foreign:
            return None
        return parse_uri(teacher).path

    @property
    def foreign_teacher(self) -> str | None:
        """The text of a teacher that is not a detector of Ladle's; None for any other, and for an object."""
        if self.teacher is None or self.teacher.startswith(OBJECT) or self.teacher_of_student is not None:
            return None
        return self.teacher if parse_uri(self.teacher).is_foreign else None

    @property
    def teacher_of_student(self) -> TeacherURI | None:
        """The teacher that is made of the student; None for any other."""
        if self.teacher is None or self.teacher.startswith(OBJECT) or self.taught_by is not None:
            return None
        uri = parse_uri(self.teacher)
        return uri if uri.is_of_student else None

    def settings(self) -> Settings:
        """The settings of the training loop."""
        return replace(self.run.settings(), balance=self.balance, balance_share=self.balance_share)

    @property
    def starts_from(self) -> Path | None:
        """The initial weights, if the run cannot be resumed from its own."""
        if (Path(self.folder) / "resume.pt").exists():
            return None
        return self.initial if self.first_weights is None else Path(self.first_weights)

    @property
    def initial(self) -> Path | None:
        """The trained detector that the student starts from, in the run folder once it is there; None for a name."""
        if not self.student.endswith(_WEIGHTS) or self.student.startswith(OBJECT):
            return None
        folder = Path(self.folder)
        # A folder without flags may hold the copy of another run, which was killed before it began.
        has_copy = bool(self.folder) and (folder / CONFIG).is_file() and (folder / INITIAL).is_file()
        return folder / INITIAL if has_copy else Path(self.student)

    @property
    def flags(self) -> dict[str, Any]:
        """The equivalent flags of the command line, by name."""
        of_verb = {name: getattr(self, name) for name in _VERB_FLAGS[self.verb]}
        return {"data": self.data, _STUDENT[self.verb]: self.student} | of_verb | asdict(self.run)

    @property
    def resuming(self) -> str:
        """The command that resumes this run, or the run of which it is an assistant."""
        folder = Path(self.folder)
        whole = folder.parents[1] if folder.parent.name == ASSISTANTS else folder
        return f"ladle {self.verb} --resume {shlex.quote(str(whole))}"

    def changed(self, asked: Mapping[str, Any]) -> Job:
        """The job with the flags given on resume; raises :class:`UserError` for flags that cannot be changed."""
        began = _located(self.flags)
        texts = {name: text_of_number(asked[name]) for name in _NUMBERS if name in asked}
        changes = {name: value for name, value in _located({**asked, **texts}).items() if value != began[name]}
        if changes.get("batch") == "auto" and not {"devices", "nodes"} & changes.keys():
            del changes["batch"]  # the number was chosen when the run began
        may_change: tuple[str, ...] = _MAY_CHANGE
        if "devices" in changes or "nodes" in changes:
            self._check_step(asked)
            may_change = (*_MAY_CHANGE, *_TOGETHER)
        refused = [name for name in changes if name not in may_change]
        if refused:
            listed = ", ".join(f"--{name} {asked[name]} (it began with {began[name]})" for name in refused)
            raise UserError(
                f"--resume {self.folder} goes on as the run was begun and cannot change {listed}: leave that out, or "
                f"start a new run; it takes --{', --'.join(_MAY_CHANGE)}"
            )
        teachers = [text for text in (self.teacher, changes.get("teacher")) if text and not text.startswith(OBJECT)]
        if len(teachers) == 2:
            check_asked(self.folder, *teachers)
        of_run = {name: changes.pop(name) for name in self.run.__dataclass_fields__ if name in changes}
        return replace(self, run=replace(self.run, **of_run), **changes)

    def _check_step(self, asked: Mapping[str, Any]) -> None:
        """Raise :class:`UserError` if another number of devices would make steps of another number of images."""
        batch, devices, nodes = (asked.get(name, getattr(self.run, name)) for name in _TOGETHER)
        images = self.run.batch_size * self.run.world
        if batch != "auto" and batch * devices * nodes != images:
            raise UserError(
                f"--resume {self.folder}: expected the {images} images of a step that the run began with, found "
                f"--batch {batch} on {devices * nodes} devices: give the --batch, --devices and --nodes that make "
                f"{images} together"
            )

    def with_contents(self, train: Contents, val: Contents) -> Job:
        """The job with a summary of its data; raises :class:`UserError` if the data differ from those at its start."""
        if self.contents is not None:
            for split, before, now in zip(("training", "validation"), self.contents, (train, val), strict=True):
                found = difference(before, now)
                if found is not None:
                    raise UserError(
                        f"--resume {self.folder}: the {split} images of {self.data} are not those the run began with: "
                        f"{found}; give their path with --data, or start a new run"
                    )
        return replace(self, contents=(train, val))

    def with_teacher(self) -> Job:
        """The job with the SHA-256 of the files of its teacher."""
        assert self.teacher is not None
        return replace(self, teacher_sha256=teacher_hash(self.teacher), teacher_named=named_hashes(self.teacher))

    def check_origins(self) -> None:
        """Raise :class:`UserError` unless the teacher and the initial weights are the same files as at the start."""
        first = self.first_weights if self.starts_from is not None else None
        if self.teacher_sha256 is not None and self.teacher is not None:
            uri = parse_uri(self.teacher)
            there = uri.is_there
            same = there and teacher_hash(self.teacher) == self.teacher_sha256
            self._check_origin("teacher", uri.path, there, same)
            if self.teacher_named is not None:
                check_named(self.folder, uri, self.teacher_named)
        if first is not None:
            there = Path(first).is_file()
            same = there and file_hash(Path(first), "first-weights") == self.first_weights_sha256
            self._check_origin("first-weights", first, there, same)

    def _check_origin(self, flag: str, file: str, there: bool, same: bool) -> None:
        if not same:
            found = "not the file this run began with" if there else "not there any more"
            what = flag.replace("-", " ")
            raise UserError(f"--resume {self.folder}: the {what} {file} is {found}; give its path with --{flag}")

    def with_assistant(self) -> Job:
        """The job with the SHA-256 of its last assistant; raises :class:`UserError` if it is a different file."""
        assert self.taught_by is not None
        found = file_hash(Path(self.taught_by))
        if self.assistant_sha256 not in (None, found):
            raise UserError(f"--resume {self.folder}: the assistant {self.taught_by} is not the one it began with")
        return replace(self, assistant_sha256=found)

    def write(self) -> None:
        """Write the job into its folder, the flags last; files with the same content are not rewritten."""
        folder, initial = Path(self.folder), self.initial
        folder.mkdir(parents=True, exist_ok=True)
        if initial is not None and initial != folder / INITIAL:
            write_atomically(folder / INITIAL, partial(shutil.copyfile, initial))
        if self.teacher_sha256 is not None:
            teacher = {"file": _located(self.flags)["teacher"], "sha256": self.teacher_sha256}
            teacher |= {"assistant": self.assistant_sha256} if self.assistant_sha256 else {}
            teacher |= {"named": self.teacher_named} if self.teacher_named is not None else {}
            _write(folder / TEACHER, json.dumps(teacher, ensure_ascii=False))
        if self.first_weights is not None:
            first = {"file": _located(self.flags)["first_weights"], "sha256": self.first_weights_sha256}
            _write(folder / FIRST_WEIGHTS, json.dumps(first, ensure_ascii=False))
        if self.contents is not None:
            train, val = map(asdict, self.contents)
            _write(folder / CONTENTS, json.dumps({"train": train, "val": val}, ensure_ascii=False))
        _write(folder / CONFIG, yaml.safe_dump(_located(self.flags), sort_keys=False, allow_unicode=True))

    @classmethod
    def read(cls, folder: str, verb: str | None = None) -> Job:
        """The job of a run folder; raises :class:`UserError` if it is not one of ``verb``, if that is given."""
        file = Path(folder) / CONFIG
        if not file.is_file():
            raise UserError(f"--resume {folder}: expected a run folder with a {CONFIG}, found none")
        flags = parse_yaml(read_regular(file, _MAX_BYTES), str(file))
        began = next((one for one, key in _STUDENT.items() if isinstance(flags, dict) and key in flags), None)
        if began is None:
            raise UserError(f"{file}: expected the flags of a run, found no detector; {_REMEDY}")
        flags = _NEWER | (_NEWER_OF_DISTILL if began == "distill" else {}) | flags
        odd = sorted(Job(began, "", "").flags.keys() ^ flags.keys(), key=str)
        if odd:
            raise UserError(f"{file}: {shortened(odd[0])} is {'unknown' if odd[0] in flags else 'missing'}; {_REMEDY}")
        if verb not in (None, began):
            raise UserError(f"--resume {folder}: this is a run of `ladle {began}`, resume it with that")
        run = read_record(Run, {one.name: flags.pop(one.name) for one in fields(Run)}, str(file), _REMEDY)
        student = read_record(str, flags.pop(_STUDENT[began]), f"{file}: {_STUDENT[began]}", _REMEDY)
        known = {"verb": began, "folder": folder, "run": run, "student": student}
        job = read_record(cls, known | flags, str(file), _REMEDY)
        return job._with_origins(Path(folder))

    def _with_origins(self, folder: Path) -> Job:
        """The job with the records of its teacher and its data in the run folder."""
        job = self
        if self.verb == "distill" and not str(self.teacher).startswith(OBJECT):
            teacher = _read(_Teacher, folder / TEACHER)
            job = replace(job, teacher_sha256=teacher.sha256, assistant_sha256=teacher.assistant)
            job = replace(job, teacher_named=teacher.named)
        if self.first_weights is not None:
            job = replace(job, first_weights_sha256=_read(_Weights, folder / FIRST_WEIGHTS).sha256)
        if (folder / CONTENTS).exists():
            remedy = f"{_REMEDY}, or remove it and make sure yourself that the data are the same"
            data = _read(_Data, folder / CONTENTS, remedy)
            job = replace(job, contents=(data.train, data.val))
        return job


def text_of_number(value: str | float | None) -> str | None:
    """The text of a flag that may be one number: ``2`` for 2.0, as one writes it on the command line."""
    if value is None or isinstance(value, str):
        return value
    return str(int(value)) if float(value).is_integer() else str(value)


def _located(flags: Mapping[str, Any]) -> dict[str, Any]:
    """The flags with absolute paths; ``scenes`` is a path only if a file of that name exists."""
    paths = {*_PATHS, *(name for name in _STUDENT.values() if str(flags.get(name)).endswith(_WEIGHTS))}
    located = {name: _absolute(value) if name in paths and value else value for name, value in flags.items()}
    teacher = located.get("teacher")
    return located if not teacher or teacher.startswith(OBJECT) else located | {"teacher": parse_uri(teacher).located()}


def _absolute(path: str) -> str:
    try:
        return str(Path(path).absolute()) if Path(path).exists() else path
    except OSError:  # too long to be a path
        return path


def _read(kind: type[T], file: Path, remedy: str = _REMEDY) -> T:
    """The record of a JSON file of a run folder."""
    return read_record(kind, parse_json(read_regular(file, _MAX_BYTES), str(file)), str(file), remedy)


def _write(file: Path, text: str) -> None:
    write_text(file, text, only_changes=True)
