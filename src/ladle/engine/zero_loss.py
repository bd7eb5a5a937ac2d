"""Stop a run in which a distillation loss is always zero."""

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
"""Number of batches with objects after which a term that was always 0 is an error."""


class ZeroLossGuard:
    """Tracks the largest absolute value of each distillation term and raises if one stays at zero.

    A distiller whose region is always empty, or that compares a tensor with itself, has a loss of 0 and no effect.
    Batches without objects are not counted. ``note`` needs no device sync; ``check`` needs one.
    """

    def __init__(self, fabric: Fabric) -> None:
        self._fabric = fabric
        self._largest: dict[str, Tensor] = {}
        self._with_objects: list[Tensor] = []
        self._done = False

    def note(self, values: Mapping[str, Float[Tensor, ""]], given: Collection[str], truth: GroundTruth) -> None:
        """Record the values of the ``given`` terms, the same on every rank, and whether there was an object."""
        if self._done or not given:
            return
        for name in given:
            size = values[name].detach().abs()
            self._largest[name] = self._largest[name].maximum(size) if name in self._largest else size
        self._with_objects.append(truth.learnable.any())

    def check(self) -> None:
        """Raise :class:`UserError`, on every rank, if a term was 0 in all of at least :data:`STEPS` batches."""
        if self._done or len(self._with_objects) < STEPS:
            return
        with_objects = sum(gather(self._fabric, int(torch.stack(self._with_objects).sum())))
        if with_objects < STEPS:
            return
        self._done = True
        zero = [name for name, size in self._largest.items() if not float(size)]
        if zero:
            raise UserError(
                f"{', '.join(zero)}: expected a loss, but in the first {len(self._with_objects)} batches it was 0, "
                "so the teacher teaches nothing by it; leave it out of --method, or take another teacher"
            )
