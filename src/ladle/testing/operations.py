"""How many operations a function would start on a GPU, and how much memory its tensors take; counted on any machine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ladle.device import LAUNCHES, as_on_a_gpu

__all__ = ["Operations", "operations_on_a_gpu"]

_NO_KERNEL = ("_unsafe_view", "empty", "new_empty", "empty_like", "empty_strided", "detach", "lift_fresh")
"""Operations that return another view or uninitialized memory."""


class Operations(NamedTuple):
    """What a function does on a GPU: ``launches`` operations, views not counted, and ``peak`` bytes of new tensors."""

    launches: int
    peak: int
    by_name: dict[str, int]


def operations_on_a_gpu(work: Callable[[], Any]) -> Operations:
    """Run ``work`` on the CPU as it would run on a GPU (:func:`ladle.device.as_on_a_gpu`), and count its operations.

    A fused operation counts as the number of kernels that it starts.

    Examples:
        >>> from ladle.assigners import MaxIoU
        >>> from ladle.testing import example_scene
        >>> from ladle.testing.operations import operations_on_a_gpu
        >>> scene = example_scene()
        >>> operations_on_a_gpu(lambda: MaxIoU()(*scene)).launches
        18
    """
    with as_on_a_gpu():
        work()  # constants are copied to the device at the first call
        with _Log() as log:
            work()
    return Operations(sum(log.counts.values()), log.peak, dict(log.counts))


class _Log(TorchDispatchMode):
    """Counts operations, and adds up the storages that are alive after each."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.counts: Counter[str] = Counter()
        self.alive: dict[int, tuple[StorageWeakRef, int]] = {}
        self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        views = [each.alias_info is not None and not each.alias_info.is_write for each in func._schema.returns]
        name = func._schema.name.split("::")[-1]
        if not any(views) and name not in _NO_KERNEL:
            self.counts[name] += LAUNCHES.get(name, 1) if func.namespace == "ladle" else 1
        if not any(views):
            self._add(result)
        return result

    def _add(self, result: Any) -> None:
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                self.alive[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
        self.alive = {key: value for key, value in self.alive.items() if not value[0].expired()}
        self.peak = max(self.peak, sum(size for _, size in self.alive.values()))
