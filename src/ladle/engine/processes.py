"""One process or many: start them, and pass small objects between them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import partial
from typing import Any, Concatenate, ParamSpec, TypeVar

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies.ddp import DDPStrategy
from torch.multiprocessing.spawn import ProcessRaisedException

from ladle.errors import UserError

__all__ = ["gather", "launch"]

P = ParamSpec("P")
R = TypeVar("R")

PATIENCE = timedelta(hours=6)
"""How long a rank waits for another: rank 0 evaluates alone, far longer than the backends' own limits of minutes."""
_USER_ERROR = "UserError: "


def launch(
    devices: int | Sequence[int],
    accelerator: str,
    fn: Callable[Concatenate[Fabric, P], R],
    *args: P.args,
    **kwargs: P.kwargs,
) -> R:
    """Call ``fn(fabric, *args)`` on each device and return what rank 0 returned.

    ``devices`` is a number or the indices of GPUs; ``accelerator`` is ``"cpu"``, ``"cuda"``, ``"mps"`` or ``"auto"``.
    One device runs in this process. Several on the CPU run in spawned processes over gloo, so ``fn`` and its arguments
    must be picklable. Several GPUs run this very command again, once for each further GPU, and those copies end here.
    """
    fabric = _fabric(devices, accelerator)
    try:
        parcel: _Parcel = fabric.launch(partial(_call, fn=fn, args=args, kwargs=kwargs))
    except ProcessRaisedException as error:
        # A spawned rank hands its exception over as text.
        _, found, sentence = str(error).rpartition(_USER_ERROR)
        if found:
            raise UserError(sentence.strip()) from None
        raise
    if fabric.global_rank > 0:
        raise SystemExit(0)
    result: R = parcel.value
    return result


def gather(fabric: Fabric, value: Any) -> list[Any]:
    """Return the ``value`` of every rank, in their order, on every rank. Values are pickled: keep them small."""
    if fabric.world_size == 1:
        return [value]
    values = [None] * fabric.world_size
    torch.distributed.all_gather_object(values, value)
    return values


class _Parcel:
    """Shields a result from Fabric, which moves the tensors of what comes back and refuses frozen dataclasses."""

    def __init__(self, value: Any) -> None:
        self.value = value


def _call(fabric: Fabric, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Parcel:
    return _Parcel(fn(fabric, *args, **kwargs))


def _fabric(devices: int | Sequence[int], accelerator: str) -> Fabric:
    cuda = torch.cuda.is_available()
    indices = list(range(devices)) if isinstance(devices, int) else list(devices)
    if not indices:
        raise UserError("training needs at least one device, but none was asked for: give --device cpu or --device 0")
    if accelerator == "cuda" and not cuda:
        raise UserError("a CUDA device was asked for but torch finds none: use --device cpu, or install a CUDA build")
    if cuda and accelerator != "cpu" and max(indices) >= torch.cuda.device_count():
        raise UserError(
            f"CUDA device {max(indices)} was asked for, but there are {torch.cuda.device_count()}, from 0 on"
        )
    spawn = accelerator == "cpu" or (accelerator == "auto" and not cuda)
    return Fabric(
        accelerator=accelerator,
        devices=indices if cuda and not spawn else len(indices),
        strategy=_strategy(spawn) if len(indices) > 1 else "auto",
        precision="32-true",
    )


def _strategy(spawn: bool) -> DDPStrategy:
    if spawn:
        return DDPStrategy(start_method="spawn", process_group_backend="gloo", timeout=PATIENCE)
    return DDPStrategy(start_method="popen", timeout=PATIENCE)
