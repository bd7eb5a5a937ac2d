"""What a run leaves on disk to be taken up again; every write is all or nothing."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from ladle.errors import UserError
from ladle.files import write_atomically

__all__ = ["Checkpoint", "Standing", "load_checkpoint", "save_checkpoint"]


@dataclass
class Standing:
    """Where a run stands between two epochs.

    ``epoch`` and ``step`` count what is done. ``best_ap`` and ``best_epoch``, from 1, are those of each student, empty
    before the first evaluation. ``rows`` is results.csv, ``metrics`` the last evaluation.
    """

    epoch: int = 0
    step: int = 0
    best_ap: dict[str, float] = field(default_factory=dict)
    best_epoch: dict[str, int] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    rows: list[dict[str, float | int]] = field(default_factory=list)
    seconds: float = 0.0


@dataclass(frozen=True)
class Checkpoint:
    """All that a run needs to go on as if it had never stopped; tensors, numbers and strings only.

    ``objective`` is the state of the student and of whatever else is trained; a frozen teacher is not in it. ``random``
    has one state per rank. ``balancer`` is None where gradients are added.
    """

    standing: Standing
    steps_per_epoch: int
    objective: dict[str, Any]
    optimizer: dict[str, Any]
    ema: dict[str, Any] | None
    random: list[dict[str, Any]]
    balancer: dict[str, Any] | None = None


def save_checkpoint(checkpoint: Checkpoint, path: Path) -> None:
    """Write ``checkpoint`` as one file; a process killed at any moment leaves the old or the new one."""
    # asdict() would copy every tensor.
    state = vars(checkpoint) | {"standing": asdict(checkpoint.standing)}
    write_atomically(path, lambda temporary: torch.save(state, temporary))


def load_checkpoint(path: Path) -> Checkpoint:
    """Read what :func:`save_checkpoint` wrote, onto the CPU and without running pickled code.

    Raises :class:`UserError` where the file is missing, damaged or something else.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file, so there is no run to take up; train without --resume first")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        return Checkpoint(**state | {"standing": Standing(**state["standing"])})
    except (UnpicklingError, RuntimeError, EOFError, TypeError, KeyError) as error:
        raise UserError(
            f"{path}: expected the resume file of a Ladle run, found something unreadable ({type(error).__name__}); "
            "name another run or train without --resume"
        ) from error
