"""Stop a run in which something that should be taught is not heard."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from jaxtyping import Float
from lightning_fabric import Fabric
from torch import Tensor

from ladle.engine.processes import gather
from ladle.errors import UserError
from ladle.types import GroundTruth

__all__ = ["ZeroLossGuard"]

STEPS = 10
"""So many batches with objects may pass in which a term is 0."""


class ZeroLossGuard:
    """Remembers how loud each given term was in the first batches, and stops the run if one never spoke.

    A distiller that compares nothing, because a region is always empty or two tensors are one, costs 0 and would train
    a student that nobody teaches. Batches without objects do not count. Noting does not wait for the device, listening
    does, once.
    """

    def __init__(self, fabric: Fabric) -> None:
        self._fabric = fabric
        self._loudest: dict[str, Tensor] = {}
        self._heard: list[Tensor] = []
        self._done = False

    def note(self, values: Mapping[str, Float[Tensor, ""]], given: Collection[str], truth: GroundTruth) -> None:
        """Remember the values of the ``given`` terms, the same on every rank, and whether there was an object."""
        if self._done or not given:
            return
        for name in given:
            loud = values[name].detach().abs()
            self._loudest[name] = self._loudest[name].maximum(loud) if name in self._loudest else loud
        self._heard.append(truth.learnable.any())

    def listen(self) -> None:
        """Raise :class:`UserError`, on every rank, if a term was 0 in all batches so far and they were enough."""
        if self._done or len(self._heard) < STEPS:
            return
        with_objects = sum(gather(self._fabric, int(torch.stack(self._heard).sum())))
        if with_objects < STEPS:
            return
        self._done = True
        silent = [name for name, loud in self._loudest.items() if not float(loud)]
        if silent:
            raise UserError(
                f"{', '.join(silent)}: expected a loss, but in each of the first {len(self._heard)} batches it was 0, "
                "so the teacher teaches nothing by it; leave it out of --method, or take another teacher"
            )
