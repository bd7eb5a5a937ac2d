"""The state of a run, read from its folder before it is resumed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ladle.detectors import load_detector
from ladle.errors import UserError
from ladle.recipes.jobs import Job

if TYPE_CHECKING:
    from ladle.engine.checkpoint import TrainState

__all__ = ["about", "best_weights", "disk_error", "state_of"]


def state_of(job: Job) -> TrainState | None:
    """The state of a run, None in its first epoch; raises :class:`UserError` if its files do not allow a resume."""
    from ladle.engine.checkpoint import load_checkpoint

    file = Path(job.folder) / "resume.pt"
    if not file.exists():
        weights = next((Path(job.folder) / "weights").glob("*.safetensors"), None)
        if weights is None:
            return None
        raise UserError(
            f"{file}: expected it beside the weights of finished epochs, found none: put it back from a copy, or start "
            f"a new run; beginning again here would overwrite {weights}"
        )
    state = load_checkpoint(file).state
    if job.run.epochs < state.epoch:
        raise UserError(f"--epochs {job.run.epochs}: {job.folder} has finished {state.epoch} epochs; give more")
    for best in filter(Path.exists, (best_weights(job, name) for name in state.best_epoch)):
        try:
            load_detector(best)
        except UserError as error:
            raise UserError(f"{error}; put it back from a copy, or remove it to go on without it") from None
    return state


def about(job: Job, state: TrainState) -> list[str]:
    """Lines about the finished epochs and missing files of a run."""
    lines = [f"{state.epoch} of {job.run.epochs} epochs are done"]
    if job.contents is None:
        lines.append("data.json is missing, so the data cannot be compared with those of its start")
    for name, epoch in state.best_epoch.items():
        best = best_weights(job, name)
        if epoch < state.epoch and not best.exists():
            lines.append(f"{best.name} of epoch {epoch} is missing, so the weights of epoch {state.epoch} replace it")
    return lines


def best_weights(job: Job, student: str) -> Path:
    """The file of the best weights of a student."""
    from ladle.engine import prefix

    return Path(job.folder) / "weights" / f"{prefix(student, '-')}best.safetensors"


def disk_error(job: Job, error: OSError) -> UserError:
    """The error for a full disk, or for files that cannot be read or written any more."""
    return UserError(
        f"{error.filename}: {error.strerror}; the run is as it was last saved: correct this, then go on with "
        f"`{job.resuming}`"
    )
