"""A training job as plain values: written beside the run, read back to resume it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

import yaml

from ladle.engine import Balance, Settings
from ladle.errors import UserError
from ladle.recipes.options import Run

__all__ = ["Job", "Verb", "file_hash", "new_folder"]

_CONFIG, _TEACHER, _FIRST = "config.yaml", "teacher.json", "first_weights.json"

Verb = Literal["train", "distill", "colearn"]

_STUDENT: dict[Verb, str] = {"train": "model", "distill": "student", "colearn": "first"}
"""What each verb calls the detector that learns, or the first of them."""
_OWN: dict[Verb, tuple[str, ...]] = {
    "train": ("assigner",),
    "distill": (
        "assigner",
        "method",
        "teacher",
        "assistants",
        "weight",
        "warm",
        "until",
        "keep_count",
        "class_power",
        "judge_until",
        "balance",
        "balance_share",
        "allow_weak_teacher",
    ),
    "colearn": ("second", "first_weights", "assigner", "surer", "method", "weight", "warm", "until"),
}
"""The other flags of each verb, which are fields of a job."""


@dataclass(frozen=True)
class Job:
    """Everything that decides how a run goes.

    In its folder ``config.yaml`` holds the flags, so that ``--config`` can start another run like it, and
    ``teacher.json`` says which teacher that was: its path and its SHA-256; ``first_weights.json`` the same of the
    detector that the first of two students started as. ``taught_by`` is the last of its teacher's assistants, once it
    is there.
    """

    verb: Verb
    data: str
    student: str
    folder: str
    run: Run = field(default_factory=Run)
    method: str = "plain"
    assigner: str | None = None
    teacher: str | None = None
    teacher_sha256: str | None = None
    assistants: str | None = None
    weight: str | None = None
    warm: str | None = None
    until: str | None = None
    keep_count: bool = True
    class_power: float | None = None
    judge_until: float | None = None
    balance: Balance = "none"
    balance_share: float = 1.0
    allow_weak_teacher: bool = False
    second: str | None = None
    first_weights: str | None = None
    first_weights_sha256: str | None = None
    surer: Literal["spread", "fisher"] = "spread"
    taught_by: str | None = None

    @property
    def teacher_file(self) -> str | None:
        """The weights that teach this run: an assistant's, or the teacher's own."""
        return self.taught_by or self.teacher

    def settings(self) -> Settings:
        """What the training loop is told."""
        return replace(self.run.settings(), balance=self.balance, balance_share=self.balance_share)

    @property
    def starts_from(self) -> str | None:
        """The first weights, while the run has none of its own to go on from."""
        return None if (Path(self.folder) / "resume.pt").exists() else self.first_weights

    def write(self) -> None:
        """Write the job into its folder."""
        folder = Path(self.folder)
        folder.mkdir(parents=True, exist_ok=True)
        flags: dict[str, object] = {"data": self.data, _STUDENT[self.verb]: self.student}
        flags |= {name: getattr(self, name) for name in _OWN[self.verb]}
        if self.verb == "distill":
            _record(folder / _TEACHER, self.teacher, self.teacher_sha256)
        if self.first_weights is not None:
            _record(folder / _FIRST, self.first_weights, self.first_weights_sha256)
        text = yaml.safe_dump(flags | asdict(self.run), sort_keys=False, allow_unicode=True)
        (folder / _CONFIG).write_text(text, encoding="utf-8")

    @classmethod
    def read(cls, folder: str, verb: Verb) -> Job:
        """The job of a run folder; its teacher must still be the file it was."""
        file = Path(folder) / _CONFIG
        if not file.is_file():
            raise UserError(f"--resume {folder}: expected a run folder with a {_CONFIG}, found none")
        try:
            flags: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))
            began = next(one for one, key in _STUDENT.items() if key in flags)
            student = flags.pop(_STUDENT[began])
            teacher = json.loads((Path(folder) / _TEACHER).read_text(encoding="utf-8")) if began == "distill" else {}
            first = (
                json.loads((Path(folder) / _FIRST).read_text(encoding="utf-8")) if flags.get("first_weights") else {}
            )
            run = Run(**{field.name: flags.pop(field.name) for field in fields(Run)})
            job = cls(
                verb=began,
                student=student,
                folder=folder,
                run=run,
                teacher_sha256=teacher.get("sha256"),
                first_weights_sha256=first.get("sha256"),
                **flags,
            )
        except (yaml.YAMLError, AttributeError, KeyError, OSError, StopIteration, TypeError, ValueError) as error:
            raise UserError(f"{file} is no job of this version ({error}); start the run anew") from error
        if job.verb != verb:
            raise UserError(f"--resume {folder}: this is a run of `ladle {job.verb}`, resume it with that")
        if job.teacher is not None and file_hash(Path(job.teacher)) != job.teacher_sha256:
            raise UserError(f"--resume {folder}: the teacher {job.teacher} is not the file this run began with")
        first_file = job.starts_from
        if first_file is not None and file_hash(Path(first_file), "first-weights") != job.first_weights_sha256:
            raise UserError(f"--resume {folder}: the first weights {first_file} are not the file this run began with")
        return job


def _record(file: Path, weights: str | None, sha256: str | None) -> None:
    """Which weights those were: a run does not keep a copy."""
    file.write_text(json.dumps({"file": weights, "sha256": sha256}, ensure_ascii=False), encoding="utf-8")


def file_hash(file: Path, flag: str = "teacher") -> str:
    """SHA-256 of the file that was given by a flag."""
    if not file.is_file():
        raise UserError(f"--{flag} {file}: there is no such file; expected weights saved by ladle (.safetensors)")
    return hashlib.sha256(file.read_bytes()).hexdigest()


def new_folder(run: Run, verb: str, student: str) -> str:
    """A folder for a new run: the name asked for, which must be free, or the detector's name, numbered."""
    base = Path(run.project) / verb
    if run.name is not None:
        folder = base / run.name
        if (folder / _CONFIG).exists():
            raise UserError(f"{folder} already holds a run: go on with --resume {folder}, or take another --name")
        return str(folder)
    taken = {path.name for path in base.iterdir()} if base.is_dir() else set()
    names = [student, *(f"{student}-{number}" for number in range(2, len(taken) + 3))]
    return str(base / next(name for name in names if name not in taken))
