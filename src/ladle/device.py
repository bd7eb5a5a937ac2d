"""What depends on the device: whether values may be read, how large a block may be, and fused operations.

Reading a value of a tensor on a GPU makes the host wait for the device, and in ``torch.compile`` it breaks the graph.
Starting a kernel takes 5 to 10 microseconds, whatever it computes. So on a CPU work is cut into blocks that fit a cache
and skips what is not needed; on a GPU it is done in few large operations whose shapes depend on shapes alone, and some
of them are fused into one kernel (:mod:`ladle.kernels`). This module is the only one that tells devices apart.
"""

from __future__ import annotations

import gc
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

__all__ = [
    "LAUNCHES",
    "as_on_a_gpu",
    "block_size",
    "constants",
    "fits_memory",
    "fused",
    "has_graphs",
    "has_kernels",
    "has_memory",
    "may_look",
    "release_memory",
    "steps_fused",
    "surely_none",
]

_OLDEST_TRITON = (3, 3)
_CACHE = 1 << 18
"""Largest number of elements of a block on a CPU: 1 MiB in float32, which fits the cache of a core."""
_MEMORY = 1 << 24
"""Largest number of elements of a block on other devices: 64 MiB in float32, of which a few are alive at once."""

_SHARE = 0.9
"""Largest part of a GPU's memory that a trial may use; shapes that come later take some more."""
_LACK = re.compile(r"out of memory|ALLOC_FAILED")
"""The messages of libraries that lack memory on a GPU."""

LAUNCHES: dict[str, int] = {}
"""How many kernels each fused operation starts on a GPU, by its name."""

_LIBRARY = torch.library.Library("ladle", "DEF")
_as_gpu = False


@lru_cache(maxsize=1)
def has_kernels() -> bool:
    """Whether fused operations start kernels on a GPU: with Triton 3.3, which comes with PyTorch 2.7, or a newer one.

    The interpreter of older ones, in which the kernels are tested, cannot run them; there plain operations are used.
    """
    if find_spec("triton") is None:
        return False
    try:
        return tuple(map(int, version("triton").split(".")[:2])) >= _OLDEST_TRITON
    except (PackageNotFoundError, ValueError):  # a build by another name, or of a version of its own
        return True


def may_look(tensor: Tensor) -> bool:
    """Whether the values of a tensor can be read without a device sync: on the CPU, and not in ``torch.compile``."""
    return tensor.device.type == "cpu" and not _as_gpu and not torch.compiler.is_compiling()


def surely_none(mask: Bool[Tensor, "*b"]) -> bool:
    """Whether nothing is marked; False wherever :func:`may_look` is false, since the values are not read there."""
    return may_look(mask) and not bool(mask.any())


def has_graphs(tensor: Tensor) -> bool:
    """Whether operations on the device of ``tensor`` can be recorded as a CUDA graph."""
    return tensor.is_cuda and not torch.compiler.is_compiling()


def steps_fused(tensors: Iterable[Tensor]) -> bool | None:
    """The argument ``fused`` of torch's optimizers: True if all weights are on a GPU, else None, torch's default.

    On a CPU the fused optimizers round otherwise than the default ones, so that runs would change.
    """
    return True if all(tensor.is_cuda and tensor.is_floating_point() for tensor in tensors) else None


def has_memory(device: torch.device) -> bool:
    """Whether a device has memory of its own, so that using all of it disturbs no other program of the machine."""
    return device.type == "cuda"


def fits_memory(work: Callable[[], object], device: torch.device) -> bool:
    """Do ``work`` and return whether the memory of the device suffices; a tenth of it has to remain free.

    Errors other than those of a lack of memory are raised.
    """
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    try:
        work()
        return device.type != "cuda" or torch.cuda.max_memory_reserved(device) <= _SHARE * _room(device)
    except (torch.OutOfMemoryError, RuntimeError) as error:
        if not isinstance(error, torch.OutOfMemoryError) and not _LACK.search(str(error)):
            raise
        return False


def release_memory(device: torch.device) -> None:
    """Give memory that no tensor uses back, so that other processes can take it."""
    if device.type == "cuda":
        gc.collect()
        torch.cuda.empty_cache()


def _room(device: torch.device) -> int:
    """The bytes that this process can use on a GPU."""
    return torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)


def block_size(tensor: Tensor) -> int:
    """The largest number of elements of one block of a large matrix on the device of ``tensor``."""
    return _CACHE if tensor.device.type == "cpu" and not _as_gpu else _MEMORY


@contextmanager
def as_on_a_gpu() -> Iterator[None]:
    """Treat the CPU as a GPU, to test and to count on any machine the operations that a GPU would run.

    Examples:
        >>> import torch
        >>> from ladle.device import as_on_a_gpu, may_look
        >>> with as_on_a_gpu():
        ...     may_look(torch.zeros(1))
        False
    """
    global _as_gpu
    before, _as_gpu = _as_gpu, True
    try:
        yield
    finally:
        _as_gpu = before


def constants(values: tuple[tuple[float, ...], ...], device: torch.device) -> Float[Tensor, "n m"]:
    """A table of constants on a device, copied there only once; it must not be changed."""
    if torch.compiler.is_compiling():
        return torch.tensor(values, dtype=torch.float32, device=device)
    return _kept(values, device)


@lru_cache(maxsize=256)
def _kept(values: tuple[tuple[float, ...], ...], device: torch.device) -> Float[Tensor, "n m"]:
    return torch.tensor(values, dtype=torch.float32, device=device)


def fused(schema: str, plain: Callable[..., Any], module: str, launches: int) -> Callable[..., Any]:
    """Define an operation ``torch.ops.ladle.<name>``, which is one step of a graph.

    Args:
        schema: name, arguments and results, in the notation of ``torch.library``.
        plain: the same in plain operations that read no values, for all devices without a kernel.
        module: the module of :mod:`ladle.kernels` with a function of this name, which starts Triton kernels on CUDA
            devices. It is imported at the first call, since importing Triton takes a while.
        launches: how many kernels that function starts.
    """
    name = schema.split("(")[0]
    LAUNCHES[name] = launches

    def kernel(*values: Any) -> Any:
        return getattr(import_module(f"ladle.kernels.{module}"), name)(*values)

    _LIBRARY.define(schema)
    _LIBRARY.impl(name, plain, "CompositeExplicitAutograd")
    if has_kernels():
        _LIBRARY.impl(name, kernel, "CUDA")
    operation: Callable[..., Any] = getattr(torch.ops.ladle, name).default
    return operation
