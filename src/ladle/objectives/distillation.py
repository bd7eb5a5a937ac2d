"""The distillers of an objective, built for two networks, with their weights and schedules."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TypeVar, cast

import torch
from torch import Tensor, nn

from ladle.distillers import DistillationLoss, Distiller, Network, TowerLoss
from ladle.lessons import Lesson, Scheduled, Time
from ladle.types import Assignment, GroundTruth, Output, Term

__all__ = ["DistillationLosses", "StageDistillation", "joined", "named", "scaled"]

Value = TypeVar("Value")


class StageDistillation(nn.Module):
    """All distillers of one lesson; the parameters of distillers are parameters of this module.

    ``time`` is the number of epochs, fractions included, and of steps done so far; None before it is set.
    ``tower_depths`` is after how many convolutions the student and the teacher must return their towers' maps; None if
    no distiller needs them.
    """

    def __init__(self, lesson: Lesson, student: object, teacher: object) -> None:
        super().__init__()
        self.schedule = tuple(one if isinstance(one, Scheduled) else Scheduled(one) for one in lesson.distillers)
        if self.schedule and teacher is None:
            raise ValueError("a distiller needs a teacher: pass teacher=FrozenDetector(...)")
        self.losses = [_built(one.distiller, student, teacher) for one in self.schedule]
        self.trained = nn.ModuleList(one for one in self.losses if isinstance(one, nn.Module))
        self.tower_depths = _tower_depths(self.losses)
        self.time: Time | None = None
        self.distilled: frozenset[str] = frozenset()

    @property
    def active(self) -> bool:
        """Whether any distiller has a weight above 0 at this time."""
        return any(self._strength(one) for one in self.schedule)

    def forward(self, student: Output, teacher: Output, truth: GroundTruth, assignment: Assignment) -> dict[str, Term]:
        """The terms of all distillers that are active at this time; raises ValueError if two have the same name."""
        terms: dict[str, Term] = {}
        for one, loss in zip(self.schedule, self.losses, strict=True):
            strength = self._strength(one)
            found = loss(student, teacher, truth, assignment) if strength else {}
            terms = joined(terms, scaled(found, strength))
        self.distilled = frozenset(terms)
        return terms

    def zero(self) -> Tensor:
        """0 with a gradient of 0 for all parameters: data-parallel training needs a gradient for unused ones too."""
        return torch.stack([0.0 * parameter.sum() for parameter in self.trained.parameters()]).sum()

    def _strength(self, one: Scheduled) -> float:
        if self.time is not None:
            return one.strength(self.time)
        if one.changes:
            raise ValueError(
                "a distiller has a warm-up or an end: call objective.set_time(epoch, step) before every step"
            )
        return one.strength((0.0, 0))


class DistillationLosses(nn.ModuleList):
    """The distillers of all stages and networks of an objective.

    Args:
        stages: one for each stage and network.
        names: a prefix for the terms of each; empty for no prefix.
    """

    def __init__(self, stages: Iterable[StageDistillation], names: Sequence[str]) -> None:
        super().__init__(stages)
        self.names = tuple(names)

    def __iter__(self) -> Iterator[StageDistillation]:
        return (cast("StageDistillation", stage) for stage in super().__iter__())

    def set_time(self, epoch: float, step: int) -> None:
        """Set the epochs, fractions included, and the steps done so far."""
        for stage in self:
            stage.time = (epoch, step)

    @property
    def active(self) -> bool:
        """Whether any distiller has a weight above 0 at this time."""
        return any(stage.active for stage in self)

    @property
    def distilled(self) -> frozenset[str]:
        """The full names of the distillers' terms in the last batch."""
        pairs = zip(self.names, self, strict=True)
        return frozenset(term for name, stage in pairs for term in named(name, dict.fromkeys(stage.distilled)))

    def kept_in_graph(self, terms: dict[str, Term]) -> dict[str, Term]:
        """The same terms, with a gradient of 0 for parameters of distillers that were not used."""
        parts = [stage.zero() for stage in self if next(stage.parameters(), None) is not None]
        if not parts or not terms:
            return terms
        name, term = next(iter(terms.items()))
        return terms | {name: term._replace(total=term.total + torch.stack(parts).sum())}


def named(stage: str, values: Mapping[str, Value]) -> dict[str, Value]:
    """The same values with the name of a stage as prefix; unchanged if it has no name."""
    return {f"{stage}/{name}" if stage else name: value for name, value in values.items()}


def scaled(terms: dict[str, Term], factor: float) -> dict[str, Term]:
    """The terms times a factor; unchanged if it is 1."""
    if factor == 1:
        return terms
    return {name: Term(term.total * factor, term.count, term.floor) for name, term in terms.items()}


def joined(terms: dict[str, Term], more: dict[str, Term]) -> dict[str, Term]:
    """All terms; raises ValueError if a name occurs twice."""
    twice = terms.keys() & more.keys()
    if twice:
        raise ValueError(f"two losses are called {', '.join(sorted(twice))}: is a distiller given twice?")
    return terms | more


def _built(distiller: Distiller, student: object, teacher: object) -> DistillationLoss:
    """The loss of a distiller for two networks."""
    for name, network in (("student", student), ("teacher", teacher)):
        if not isinstance(network, Network):
            raise ValueError(
                f"{type(distiller).__name__} is built for two networks, but the {name} has no `pyramid` and `head`"
            )
    return distiller.build(cast("Network", student), cast("Network", teacher))


def _tower_depths(losses: Sequence[DistillationLoss]) -> tuple[int, int] | None:
    """The tower depths that distillers need; they must be equal, since each network runs once."""
    depths = {one.tower_depths for one in losses if isinstance(one, TowerLoss)}
    if len(depths) > 1:
        raise ValueError(
            f"distillers look into the towers at different depths, {sorted(depths)}: take the same `after`"
        )
    return depths.pop() if depths else None
