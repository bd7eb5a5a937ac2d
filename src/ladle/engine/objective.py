"""The protocol of an objective, as the training loop uses it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, cast, runtime_checkable

from torch import Tensor, nn

from ladle.types import Batch, Term

__all__ = ["Objective", "Students", "as_objective"]


@runtime_checkable
class Students(Protocol):
    """Networks by name, such as a dict or an ``nn.ModuleDict``."""

    def items(self) -> Iterable[tuple[str, nn.Module]]:
        """Names and networks."""
        ...


@runtime_checkable
class Objective(Protocol):
    """A training step: an ``nn.Module`` that turns a batch into named losses.

    Everything that it registers as a parameter is trained. Only its students are evaluated and saved as weights.

    Examples:
        >>> from torch import nn
        >>> from ladle.engine import Objective
        >>> class Plain(nn.Module):
        ...     def __init__(self, student):
        ...         super().__init__()
        ...         self.student = student
        ...         self.students, self.monitor, self.distilled = {"student": student}, {}, frozenset()
        ...     def set_time(self, epoch, step):
        ...         pass
        ...     def forward(self, batch):
        ...         return self.student.losses(batch)
        >>> isinstance(Plain(nn.Identity()), Objective)
        True
    """

    monitor: dict[str, Tensor]
    """Scalars of the last batch that are logged and never trained on."""

    @property
    def students(self) -> Students:
        """The networks that are evaluated and saved, by name; a single one is called ``student``."""
        ...

    @property
    def distilled(self) -> frozenset[str]:
        """The names of the terms of the last batch that came from distillers; it is an error if one stays 0."""
        ...

    def set_time(self, epoch: float, step: int) -> None:
        """Called before each step with how many epochs, a fraction within an epoch, and how many steps are done."""
        ...

    def __call__(self, batch: Batch) -> dict[str, Term]:
        """The losses of a batch by name, each still to be divided by its count."""
        ...


def as_objective(module: nn.Module) -> Objective:
    """``module`` as an :class:`Objective`; raises TypeError with the attributes that it lacks."""
    lacking = [name for name in ("students", "monitor", "distilled", "set_time") if not hasattr(module, name)]
    if lacking:
        raise TypeError(f"{type(module).__name__} is no ladle.engine.Objective: it lacks {', '.join(lacking)}")
    return cast(Objective, module)
