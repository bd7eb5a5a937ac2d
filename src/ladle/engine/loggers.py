"""Services that get the scalars of a run besides its own files: TensorBoard, Weights & Biases, MLflow."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from ladle.errors import UserError, one_line
from ladle.files import read_regular, write_text
from ladle.untrusted import parse_json, parse_yaml, read_record

__all__ = ["LOGGERS", "Logger", "check_installed", "open_loggers", "split_loggers"]

_IDS = "loggers.json"
"""The file of a run folder with the names by which services know the run, so that a resumed run goes on there."""
_MAX_BYTES = 2**20
_PROJECT = "ladle"


@dataclass(frozen=True)
class _Ids:
    """loggers.json."""

    wandb: str | None = None
    mlflow: str | None = None


@runtime_checkable
class Logger(Protocol):
    """Takes scalars by name."""

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        """Add the finite scalars of an optimizer step."""

    def close(self) -> None:
        """Write everything that waits, and end."""


class _TensorBoard:
    def __init__(self, folder: Path, step: int) -> None:
        writer = import_module("torch.utils.tensorboard").SummaryWriter
        # What a run that was stopped wrote after its last finished epoch is hidden.
        self._writer = writer(str(folder / "tensorboard"), purge_step=step + 1 if step else None)

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        for name, value in scalars.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


class _Wandb:
    def __init__(self, folder: Path, step: int) -> None:
        known = _known(folder).wandb if step else None
        self._run = import_module("wandb").init(
            project=_PROJECT, name=folder.name, dir=str(folder), id=known, resume="allow", config=_flags(folder)
        )
        _remember(folder, replace(_known(folder), wandb=str(self._run.id)))

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        self._run.log(dict(scalars), step=step)

    def close(self) -> None:
        self._run.finish()


class _MLflow:
    def __init__(self, folder: Path, step: int) -> None:
        self._client = import_module("mlflow").MlflowClient()
        self._metric = import_module("mlflow.entities").Metric
        known = _known(folder).mlflow if step else None
        if known is None:
            experiment = self._client.get_experiment_by_name(_PROJECT)
            number = experiment.experiment_id if experiment else self._client.create_experiment(_PROJECT)
            known = str(self._client.create_run(number, run_name=folder.name).info.run_id)
            for name, value in _flags(folder).items():
                self._client.log_param(known, name, value)
            _remember(folder, replace(_known(folder), mlflow=known))
        else:
            self._client.update_run(known, status="RUNNING")
        self._id = known

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        now = round(1000 * time.time())
        self._client.log_batch(self._id, metrics=[self._metric(n, v, now, step) for n, v in scalars.items()])

    def close(self) -> None:
        self._client.set_terminated(self._id)


LOGGERS: Mapping[str, Callable[[Path, int], Logger]] = {"tensorboard": _TensorBoard, "wandb": _Wandb, "mlflow": _MLflow}
"""What opens each service, given the run folder and the steps done so far."""


def split_loggers(text: str | None) -> tuple[str, ...]:
    """The names in ``--loggers``, separated by commas; raises :class:`UserError` for an unknown one.

    Examples:
        >>> from ladle.engine.loggers import split_loggers
        >>> split_loggers("tensorboard,wandb"), split_loggers(None)
        (('tensorboard', 'wandb'), ())
    """
    names = [name.strip() for name in text.split(",")] if text is not None else []
    for name in names:
        if name not in LOGGERS:
            raise UserError(f"--loggers {text}: expected names among {', '.join(LOGGERS)}, found {name!r}")
    return tuple(dict.fromkeys(names))


def check_installed(names: Sequence[str]) -> None:
    """Raise :class:`UserError` if a service's package is not installed."""
    for name in names:
        if find_spec(name) is None:
            raise UserError(f"--loggers {name}: the package {name} is not installed: pip install 'ladle[{name}]'")


class Loggers:
    """All services of a run as one; one that fails during the run is left out from then on, and ``tell`` says so."""

    def __init__(self, opened: Mapping[str, Logger], tell: Callable[[str], None]) -> None:
        self._opened, self._tell = dict(opened), tell

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        """Add the scalars of an optimizer step to each; values that are not finite are left out."""
        finite = {name: float(value) for name, value in scalars.items() if math.isfinite(value)}
        for name, logger in list(self._opened.items()):
            self._try(name, lambda logger=logger: logger.log(step, finite))  # type: ignore[misc]

    def close(self) -> None:
        """End all."""
        for name, logger in list(self._opened.items()):
            self._try(name, logger.close)

    def _try(self, name: str, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:  # a service that is out of reach must not end the training
            del self._opened[name]
            self._tell(f"--loggers {name}: it gets no more values, as it failed: {_reason(error)}")


def open_loggers(names: Sequence[str], folder: Path, step: int, tell: Callable[[str], None]) -> Loggers:
    """Open the services of a run after ``step`` steps; with ``step`` > 0 each goes on in the log it began.

    Raises :class:`UserError` if one cannot be opened.
    """
    opened: dict[str, Logger] = {}
    for name in names:
        try:
            opened[name] = LOGGERS[name](folder, step)
        except Exception as error:
            Loggers(opened, tell).close()
            raise UserError(f"--loggers {name}: it cannot be opened ({_reason(error)}); leave it out") from error
    return Loggers(opened, tell)


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {one_line(error)}"[:200]


def _flags(folder: Path) -> dict[str, Any]:
    """The flags of the run; none if the folder has no config.yaml."""
    file = folder / "config.yaml"
    found = parse_yaml(read_regular(file, _MAX_BYTES), str(file)) if file.is_file() else {}
    return dict(found) if isinstance(found, dict) else {}


def _known(folder: Path) -> _Ids:
    file = folder / _IDS
    if not file.is_file():
        return _Ids()
    return read_record(_Ids, parse_json(read_regular(file, _MAX_BYTES), str(file)), str(file), "remove it")


def _remember(folder: Path, ids: _Ids) -> None:
    write_text(folder / _IDS, json.dumps(asdict(ids)), only_changes=True)
