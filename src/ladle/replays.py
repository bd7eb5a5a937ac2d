"""CUDA graphs of assigners: on a GPU a call costs what its kernels compute, not what starting them takes.

An assigner is a pure function whose operations depend on shapes alone. So they are recorded once for each set of shapes
and replayed with other values. On other devices, and for assigners that wait for the device or whose plan has a
gradient, the assigner is called as it is.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass, fields
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from ladle.assigners.protocol import Assigner, SoftAssigner, uses_predictions
from ladle.device import has_graphs
from ladle.types import Assignment, GroundTruth, Predictions, Priors, Record

__all__ = ["Replayed"]

_AFTER = 2
"""How often shapes must have occurred before they are recorded: batches of rare shapes are not worth a recording."""


@runtime_checkable
class _Graph(Protocol):
    """A recorded graph, as ``torch.cuda.CUDAGraph`` is one."""

    def replay(self) -> None: ...

    def pool(self) -> Any: ...


@dataclass(frozen=True)
class _Recording:
    """A graph, the tensors that it reads, and the plan that it writes."""

    graph: _Graph
    inputs: tuple[Tensor, ...]
    plan: Assignment


class Replayed:
    """An assigner that is replayed from CUDA graphs; it is an assigner itself.

    Args:
        assigner: a pure function; what it reads besides its arguments is recorded once.
        memory: the most bytes of arguments that are kept for recordings; other shapes are called as they are.

    Examples:
        >>> from ladle.assigners import PAA
        >>> from ladle.replays import Replayed
        >>> from ladle.testing import example_scene
        >>> assign = Replayed(PAA())
        >>> assign(*example_scene()).positive.sum(1)  # on a CPU a plain call
        tensor([23, 39])
    """

    def __init__(self, assigner: Assigner, memory: int = 1 << 30) -> None:
        self._plain, self._free = assigner, memory
        self._uses_predictions = uses_predictions(assigner)
        self._never = isinstance(assigner, SoftAssigner)
        self._seen: Counter[Hashable] = Counter()
        self._recordings: dict[Hashable, _Recording] = {}

    def __call__(self, predictions: Predictions, priors: Priors, truth: GroundTruth, /) -> Assignment:
        """The plan of the assigner; its tensors belong to the caller."""
        if self._never or not has_graphs(predictions.boxes):
            return self._plain(predictions, priors, truth)
        predictions = predictions.detach()  # the plan of an assigner that is not soft has no gradient
        used = (predictions, priors, truth) if self._uses_predictions else (priors, truth)
        key = tuple(_outline(record) for record in used)
        if key in self._recordings:
            return _replay(self._recordings[key], used)
        self._seen[key] += 1
        if self._seen[key] == _AFTER and not self._is_free_of_waits(predictions, priors, truth):
            self._never = True
        needed = sum(tensor.nbytes for tensor in _tensors((predictions, priors, truth)))
        if self._never or self._seen[key] <= _AFTER or needed > self._free:
            return self._plain(predictions, priors, truth)
        self._free -= needed
        try:
            self._recordings[key] = self._record(predictions, priors, truth)
        except RuntimeError as error:
            self._never = True
            name = getattr(self._plain, "__name__", type(self._plain).__name__)
            warnings.warn(f"{name} cannot be recorded as a CUDA graph, so it is slower: {error}", stacklevel=2)
            return self._plain(predictions, priors, truth)
        return _replay(self._recordings[key], used)

    def _is_free_of_waits(self, predictions: Predictions, priors: Priors, truth: GroundTruth) -> bool:
        before = torch.cuda.get_sync_debug_mode()
        torch.cuda.set_sync_debug_mode("error")
        try:
            self._plain(predictions, priors, truth)
        except RuntimeError:
            return False
        finally:
            torch.cuda.set_sync_debug_mode(before)
        return True

    def _record(self, predictions: Predictions, priors: Priors, truth: GroundTruth) -> _Recording:
        predictions, priors, truth = predictions.map(torch.clone), priors.map(torch.clone), truth.map(torch.clone)
        used = (predictions, priors, truth) if self._uses_predictions else (priors, truth)
        pool = next(iter(self._recordings.values())).graph.pool() if self._recordings else None
        # What is prepared once for these tensors, such as a compiled kernel, cannot be recorded.
        self._plain(predictions, priors, truth)
        graph = torch.cuda.CUDAGraph()
        # Other threads, such as the one that pins batches, may go on meanwhile.
        with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
            plan = self._plain(predictions, priors, truth)
        return _Recording(graph, _tensors(used), plan)


def _replay(recording: _Recording, used: tuple[Record, ...]) -> Assignment:
    torch._foreach_copy_(list(recording.inputs), list(_tensors(used)))
    recording.graph.replay()
    return recording.plan.map(torch.clone)


def _tensors(records: tuple[Record, ...]) -> tuple[Tensor, ...]:
    found: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        found.append(tensor)
        return tensor

    for record in records:
        record.map(keep)
    return tuple(found)


def _outline(value: Any) -> Hashable:
    """Everything about a record except the values of its tensors."""
    if isinstance(value, Tensor):
        return (value.shape, value.dtype, value.device)
    if isinstance(value, Record):
        return (type(value), *(_outline(getattr(value, field.name)) for field in fields(value)))
    if type(value) is tuple:
        return tuple(_outline(item) for item in value)
    hashable: Hashable = value
    return hashable
