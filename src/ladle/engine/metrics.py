"""Means of a run's scalars that stay on the device until they are read."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from lightning_fabric import Fabric
from torch import Tensor

__all__ = ["MetricTracker"]


class MetricTracker:
    """Running means of named scalars, over all ranks; values that are not finite are left out.

    :meth:`add` needs no device sync, :meth:`read` does, and must be called by all ranks at the same step.
    """

    def __init__(self, fabric: Fabric) -> None:
        self._fabric = fabric
        # One row of sums and one of counts for each set of names: an objective may change its terms during a run.
        self._window: dict[tuple[str, ...], Tensor] = {}
        self._sums: dict[str, float] = defaultdict(float)
        self._counts: dict[str, float] = defaultdict(float)

    def add(self, scalars: Mapping[str, Float[Tensor, ""]]) -> None:
        """Add one step's scalars."""
        names = tuple(scalars)
        values = torch.stack([value.detach().float() for value in scalars.values()])
        finite = values.isfinite()
        row = torch.stack([torch.where(finite, values, 0), finite.float()])
        self._window[names] = self._window[names] + row if names in self._window else row

    def read(self) -> dict[str, float]:
        """Return the means since the last reading; nan where no value was finite."""
        sums: dict[str, float] = defaultdict(float)
        counts: dict[str, float] = defaultdict(float)
        for names, window in self._window.items():
            summed: Any = self._fabric.all_reduce(window, reduce_op="sum")
            totals, numbers = summed.tolist()
            for name, total, number in zip(names, totals, numbers, strict=True):
                sums[name] += total
                counts[name] += number
                self._sums[name] += total
                self._counts[name] += number
        self._window = {}
        return _means(sums, counts)

    def means(self) -> dict[str, float]:
        """Return the means of everything read so far."""
        return _means(self._sums, self._counts)


def _means(sums: Mapping[str, float], counts: Mapping[str, float]) -> dict[str, float]:
    return {name: sums[name] / counts[name] if counts[name] else float("nan") for name in sums}
