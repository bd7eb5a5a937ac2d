"""The distillers of a lesson at work: built for their two networks, each at its time and with its weight."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TypeVar, cast

import torch
from torch import Tensor, nn

from ladle.distillers import Distiller, DistillerSpec, Network, TowerDistiller
from ladle.objectives.lesson import Lesson, Scheduled
from ladle.teachers import Teacher
from ladle.types import Assignment, GroundTruth, Output, Term

__all__ = ["DistillationLosses", "StageDistillation", "joined", "named"]

Value = TypeVar("Value")


class StageDistillation(nn.Module):
    """All distillers of one lesson; what of them is trained is a part of this module.

    ``inside`` is how deep in their towers the student and the teacher must show themselves, None where nobody asks.
    ``time`` is how many epochs, a fraction within an epoch, and how many steps are done; None if nobody has said.
    """

    def __init__(self, lesson: Lesson, student: nn.Module, teacher: Teacher | None) -> None:
        super().__init__()
        self.when = tuple(one if isinstance(one, Scheduled) else Scheduled(one) for one in lesson.distillers)
        self.distillers = [_built(one.distil, student, teacher) for one in self.when]
        self.trained = nn.ModuleList(one for one in self.distillers if isinstance(one, nn.Module))
        self.inside = _depth(self.distillers)
        self.time: tuple[float, int] | None = None
        self.distilled: frozenset[str] = frozenset()

    @property
    def active(self) -> bool:
        """Whether any distiller works at this time."""
        return any(self._strength(one) for one in self.when)

    def forward(self, student: Output, teacher: Output, truth: GroundTruth, assignment: Assignment) -> dict[str, Term]:
        """The terms of all distillers that work at this time; raises ValueError where two share a name."""
        terms: dict[str, Term] = {}
        for one, distil in zip(self.when, self.distillers, strict=True):
            strength = self._strength(one)
            found = distil(student, teacher, truth, assignment) if strength else {}
            if strength != 1:
                found = {name: Term(term.total * strength, term.count, term.floor) for name, term in found.items()}
            terms = joined(terms, found)
        self.distilled = frozenset(terms)
        return terms

    def nothing(self) -> Tensor:
        """0, with a gradient of 0 for all that is trained: data-parallel training waits for one, worked or not."""
        return torch.stack([0.0 * parameter.sum() for parameter in self.trained.parameters()]).sum()

    def _strength(self, one: Scheduled) -> float:
        if self.time is not None:
            return one.strength(*self.time)
        if one.warmup or one.steps or one.until is not None:
            raise ValueError(
                "a distiller has a warm-up or an end: tell the objective the time, objective.set_time(epoch, step)"
            )
        return one.weight


class DistillationLosses(nn.ModuleList):
    """The teachings of an objective.

    Args:
        teachings: one for each stage and network.
        names: what the losses of each begin with, if with anything.
    """

    def __init__(self, teachings: Iterable[StageDistillation], names: Sequence[str] | None = None) -> None:
        super().__init__(teachings)
        self.names = tuple(names) if names is not None else ("",) * len(self)

    def __iter__(self) -> Iterator[StageDistillation]:
        return (cast("StageDistillation", teaching) for teaching in super().__iter__())

    def set_time(self, epoch: float, step: int) -> None:
        """Say how many epochs, a fraction within an epoch, and how many steps are done: distillers come and go."""
        for teaching in self:
            teaching.time = (epoch, step)

    @property
    def active(self) -> bool:
        """Whether any distiller works at this time."""
        return any(teaching.active for teaching in self)

    @property
    def distilled(self) -> frozenset[str]:
        """The terms that distillers gave in the last batch."""
        every = zip(self.names, self, strict=True)
        return frozenset(term for name, teaching in every for term in named(name, dict.fromkeys(teaching.distilled)))

    def kept_in_graph(self, terms: dict[str, Term]) -> dict[str, Term]:
        """The same terms, with a gradient of 0 for all that distillers train but did not use."""
        parts = [teaching.nothing() for teaching in self if next(teaching.parameters(), None) is not None]
        if not parts or not terms:
            return terms
        name, term = next(iter(terms.items()))
        return terms | {name: term._replace(total=term.total + torch.stack(parts).sum())}


def named(stage: str, values: Mapping[str, Value]) -> dict[str, Value]:
    """The same values under names that begin with that of a stage; where it has none, as they are."""
    return {f"{stage}/{name}" if stage else name: value for name, value in values.items()}


def joined(terms: dict[str, Term], more: dict[str, Term]) -> dict[str, Term]:
    """Both; raises ValueError where one would hide the other."""
    twice = terms.keys() & more.keys()
    if twice:
        raise ValueError(f"two losses are called {', '.join(sorted(twice))}: is a distiller given twice?")
    return terms | more


def _built(distil: Distiller | DistillerSpec, student: nn.Module, teacher: Teacher | None) -> Distiller:
    if not isinstance(distil, DistillerSpec):
        return distil
    for name, network in (("student", student), ("teacher", teacher)):
        if not isinstance(network, Network):
            raise ValueError(
                f"{type(distil).__name__} is built for two networks, but the {name} has no `pyramid` and `head`"
            )
    return distil.build(cast("Network", student), cast("Network", teacher))


def _depth(distillers: Sequence[Distiller]) -> tuple[int, int] | None:
    """How deep the distillers look into the towers; they must agree, since each network is run once."""
    depths = {one.inside for one in distillers if isinstance(one, TowerDistiller)}
    if len(depths) > 1:
        raise ValueError(
            f"distillers look into the towers at different depths, {sorted(depths)}: take the same `after`"
        )
    return depths.pop() if depths else None
