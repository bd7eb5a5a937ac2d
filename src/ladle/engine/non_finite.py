"""Stop a run whose loss is not finite, and name the images of that batch."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, NoReturn

import torch
from jaxtyping import Float
from lightning_fabric import Fabric
from torch import Tensor

from ladle.engine.processes import gather
from ladle.errors import UserError
from ladle.files import write_text

__all__ = ["NonFiniteGuard"]


class _Note(NamedTuple):
    epoch: int
    step: int
    ids: tuple[int | str, ...]
    values: dict[str, Tensor]


class NonFiniteGuard:
    """Records the losses since the last check, and stops the run at a check if one is not finite.

    A check needs a device sync. On the CPU that is free and every note is checked at once, before an optimizer step.
    On other devices the loop checks every few steps and before it saves weights.
    """

    def __init__(self, fabric: Fabric, folder: Path) -> None:
        self._fabric = fabric
        self._path = folder / "bad_batch.json"
        self._notes: list[_Note] = []

    def note(self, epoch: int, step: int, ids: tuple[int | str, ...], values: Mapping[str, Float[Tensor, ""]]) -> None:
        """Record values that are the same on every rank, and the ids of this rank's images."""
        self._notes.append(_Note(epoch, step, ids, {name: value.detach() for name, value in values.items()}))
        if self._fabric.device.type == "cpu":
            self.check()

    def check(self) -> None:
        """Raise :class:`UserError`, on every rank and with ``bad_batch.json`` written, if a value is not finite."""
        notes, self._notes = self._notes, []
        if not notes:
            return
        finite = torch.stack([torch.stack(list(note.values.values())).isfinite().all() for note in notes]).tolist()
        if not all(finite):
            self._stop(notes[finite.index(False)])

    def _stop(self, note: _Note) -> NoReturn:
        values = {name: float(value) for name, value in note.values.items()}
        ids = [name for rank in gather(self._fabric, note.ids) for name in rank]
        report = {"epoch": note.epoch, "step": note.step, "ids": ids, "losses": _spell(values)}
        if self._fabric.is_global_zero:
            write_text(self._path, json.dumps(report, indent=2) + "\n")
        self._fabric.barrier()
        bad = ", ".join(f"{name} is {value}" for name, value in values.items() if not math.isfinite(value))
        raise UserError(
            f"{self._path}: expected finite losses, but in epoch {note.epoch}, step {note.step}, {bad}; look at the "
            "images it names, or train with a lower --lr or with --clip"
        )


def _spell(values: Mapping[str, float]) -> dict[str, float | str]:
    # JSON has no nan and inf.
    return {name: value if math.isfinite(value) else str(value) for name, value in values.items()}
