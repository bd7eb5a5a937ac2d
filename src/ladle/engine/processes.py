"""Start one process or several, and exchange small objects between them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import partial
from typing import Any, Concatenate, ParamSpec, TypeVar

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.strategies.ddp import DDPStrategy

from ladle.children import cores, run_ranks
from ladle.engine.nodes import Nodes
from ladle.errors import UserError

__all__ = ["gather", "launch", "launch_on_nodes", "one_process"]

P = ParamSpec("P")
R = TypeVar("R")

_PROCESSES = 8
"""Number of ranks that are allowed on the CPU of a machine with fewer cores."""
PATIENCE = timedelta(hours=6)
"""How long a rank waits for another: rank 0 evaluates alone, longer than the backends' default timeouts."""


def launch(
    devices: int | Sequence[int],
    accelerator: str,
    fn: Callable[Concatenate[Fabric, P], R],
    *args: P.args,
    **kwargs: P.kwargs,
) -> R:
    """Call ``fn(fabric, *args)`` on each device and return what rank 0 returned.

    ``devices`` is a number or the indices of GPUs; ``accelerator`` is ``"cpu"``, ``"cuda"``, ``"mps"`` or ``"auto"``.
    One device runs in this process. Several run in spawned processes, which end with this one, so ``fn`` and its
    arguments must be picklable.
    """
    indices = _indices(devices, accelerator)
    if len(indices) == 1:
        return _call(indices, accelerator, fn, args, kwargs)
    return run_ranks(len(indices), partial(_call, indices, accelerator, fn, args, kwargs))


def launch_on_nodes(
    nodes: Nodes,
    devices: int,
    accelerator: str,
    fn: Callable[Concatenate[Fabric, P], R],
    *args: P.args,
    **kwargs: P.kwargs,
) -> R:
    """As :func:`launch`, on ``devices`` of each node; call it on the first one, while the others serve."""
    indices = _indices(devices, accelerator)
    return nodes.launch(devices, partial(_call, indices, accelerator, fn, args, kwargs, nodes.node.count))


def one_process(devices: int | Sequence[int], accelerator: str) -> Fabric | None:
    """A fabric for this process alone, ready for use; None where several devices need a process each."""
    indices = _indices(devices, accelerator)
    return _connected(indices, accelerator) if len(indices) == 1 else None


def gather(fabric: Fabric, value: Any) -> list[Any]:
    """Return the ``value`` of every rank, in their order, on every rank. Values are pickled: keep them small."""
    if fabric.world_size == 1:
        return [value]
    values = [None] * fabric.world_size
    torch.distributed.all_gather_object(values, value)
    return values


def _call(
    indices: list[int],
    accelerator: str,
    fn: Callable[..., R],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    nodes: int = 1,
) -> R:
    """Call ``fn`` on the device of this process; with several processes the environment has its rank."""
    fabric = _connected(indices, accelerator, nodes)
    value = fn(fabric, *args, **kwargs)
    if fabric.world_size > 1:
        torch.distributed.destroy_process_group()
    return value


def _connected(indices: list[int], accelerator: str, nodes: int = 1) -> Fabric:
    """The fabric of this process."""
    # Fabric logs every process to standard error, which is for errors.
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    gpus = torch.cuda.is_available() and accelerator != "cpu"
    if gpus:
        # Products of float32 matrices in TF32, as convolutions already are; boxes and assignments compute no products.
        torch.set_float32_matmul_precision("high")
    several = len(indices) * nodes > 1
    if several and not gpus:
        torch.set_num_threads(max(1, min(torch.get_num_threads(), cores() // len(indices))))  # they share the cores
    strategy = DDPStrategy(process_group_backend=None if gpus else "gloo", timeout=PATIENCE) if several else "auto"
    fabric = Fabric(
        accelerator=accelerator,
        devices=indices if gpus else len(indices),
        strategy=strategy,
        precision="32-true",
        num_nodes=nodes,
        # Processes are started by this program, also on a cluster.
        plugins=LightningEnvironment() if several else None,
    )
    fabric.launch()
    return fabric


def _indices(devices: int | Sequence[int], accelerator: str) -> list[int]:
    """The devices by number; raises :class:`UserError` if they do not exist."""
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
    most = max(_PROCESSES, cores())
    if (accelerator == "cpu" or not cuda) and len(indices) > most:
        raise UserError(f"--devices {len(indices)}: on this machine's processor expected at most {most} processes")
    return indices
