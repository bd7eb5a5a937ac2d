"""The resume file of a run; every write is atomic."""

from __future__ import annotations

import pickletools
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Annotated, Any
from zipfile import ZIP_STORED, ZipFile

import torch

from ladle.errors import UserError
from ladle.files import write_atomically
from ladle.limits import Range
from ladle.untrusted import read_record

__all__ = ["Checkpoint", "TrainState", "load_checkpoint", "save_checkpoint"]

Count = Annotated[int, Range(0, 2**53)]
Score = Annotated[float, Range(finite=False)]

_MEND = "put it back from a copy, or start the run anew"
_MOST_PICKLE = 2**26
_NAMES = re.compile(r"collections OrderedDict|torch\._utils _rebuild_tensor_v2|torch \w+Storage")
"""The names that the file's pickle may call: only tensors and their storages."""


@dataclass
class TrainState:
    """The progress of a run between two epochs.

    ``epoch`` and ``step`` are the numbers done so far. ``best_ap`` and ``best_epoch``, from 1, are those of each
    student, empty before the first evaluation. ``rows`` are those of results.csv, ``metrics`` those of the last
    evaluation.
    """

    epoch: Count = 0
    step: Count = 0
    best_ap: dict[str, Score] = field(default_factory=dict)
    best_epoch: dict[str, Count] = field(default_factory=dict)
    metrics: dict[str, Score] = field(default_factory=dict)
    rows: tuple[dict[str, int | Score], ...] = ()
    seconds: Annotated[float, Range(0)] = 0.0


@dataclass(frozen=True)
class Checkpoint:
    """All that a run needs to resume exactly; tensors, numbers and strings only.

    ``objective`` is the state of the student and of all else that is trained, without a frozen teacher. ``random`` has
    one state per rank. ``balancer`` is None if gradients are added.
    """

    state: TrainState
    steps_per_epoch: int
    objective: dict[str, Any]
    optimizer: dict[str, Any]
    ema: dict[str, Any] | None
    random: list[dict[str, Any]]
    balancer: dict[str, Any] | None = None


_PARTS: dict[str, type | tuple[type, ...]] = {
    "state": dict,
    "steps_per_epoch": int,
    "objective": dict,
    "optimizer": dict,
    "ema": (dict, type(None)),
    "random": list,
    "balancer": (dict, type(None)),
}


def save_checkpoint(checkpoint: Checkpoint, path: Path) -> None:
    """Write ``checkpoint`` as one file; a process killed at any moment leaves the old or the new one."""
    # asdict() would copy every tensor.
    state = vars(checkpoint) | {"state": asdict(checkpoint.state)}
    write_atomically(path, lambda temporary: _write(state, temporary))


def load_checkpoint(path: Path) -> Checkpoint:
    """Read what :func:`save_checkpoint` wrote, onto the CPU and without running pickled code.

    Raises :class:`UserError` if the file is missing, damaged or not a resume file.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file, so there is no run to take up; train without --resume first")
    try:
        _check_archive(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises nearly anything on damaged bytes
        raise _unreadable(path, f"{type(error).__name__}: {error}") from error
    if not isinstance(state, dict) or state.keys() != _PARTS.keys():
        raise _unreadable(path, "other contents")
    wrong = [name for name, kind in _PARTS.items() if not isinstance(state[name], kind)]
    wrong += ["random"] if not wrong and not all(isinstance(one, dict) for one in state["random"]) else []
    if wrong:
        raise _unreadable(path, f"no {wrong[0]}")
    return Checkpoint(**state | {"state": read_record(TrainState, state["state"], str(path), _MEND)})


def _write(state: object, path: Path) -> None:
    # torch.save(path) hides why a file cannot be written; a stream raises OSError.
    with path.open("wb") as stream:
        torch.save(state, stream)


def _check_archive(path: Path) -> None:
    """Raise for a file that is incomplete, that expands when read, or whose pickle has more than tensors."""
    with ZipFile(path) as archive:
        members = archive.infolist()
        if any(one.compress_type != ZIP_STORED for one in members):
            raise UnpicklingError("it is compressed")
        if sum(one.file_size for one in members) > path.stat().st_size:
            raise UnpicklingError("its parts overlap")
        damaged = archive.testzip()
        if damaged is not None:
            raise UnpicklingError(f"the checksum of {damaged} is wrong")
        (pickle,) = [one for one in members if one.filename.endswith("/data.pkl")]
        if pickle.file_size > _MOST_PICKLE:
            raise UnpicklingError("its description is too long")
        for operation, argument, _ in pickletools.genops(archive.read(pickle)):
            if "GLOBAL" in operation.name and not _NAMES.fullmatch(str(argument)):
                raise UnpicklingError(f"it asks for {argument}")


def _unreadable(path: Path, found: str) -> UserError:
    found = " ".join(found.split())[:200]
    return UserError(f"{path}: expected the resume file of a Ladle run, found something unreadable ({found}); {_MEND}")
