"""Two students that learn together: the more certain one assigns each object for both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from ladle.assigners import CostSelector, EvidenceAssigner, Selection
from ladle.lessons import Lesson, Time
from ladle.objectives.distillation import DistillationLosses, StageDistillation, joined, named
from ladle.objectives.monitoring import assignment_metrics
from ladle.types import Assignment, Batch, Output, Term

__all__ = ["CoLearning"]

FIRST, SECOND = "first", "second"
"""The names of the two students, with which the names of their losses, metrics and files begin."""


class CoLearning(nn.Module):
    """Co-learning label assignment distillation (CoLAD, Nguyen et al., WACV 2022, section 3.3).

    Both networks compute the costs of the same candidates. For each object and level ``selector`` takes the costs of
    the more certain one. One assignment is made from them, and each network has its own losses under it. With
    distillers each network also imitates the other's current output.

    Losses are called ``first/class``, ``second/class`` and so on. ``monitor`` holds for each level the share of objects
    for which the second network's costs were taken.
    """

    def __init__(
        self,
        first: nn.Module,
        second: nn.Module,
        lessons: Sequence[tuple[Lesson, Lesson]],
        selector: CostSelector = CostSelector(),
    ) -> None:
        """Take a pair of lessons per stage; raises ValueError unless both have the same EvidenceAssigner.

        Students with a one-to-one head are refused too.
        """
        super().__init__()
        for one, other in lessons:
            if one.assigner != other.assigner or not isinstance(one.assigner, EvidenceAssigner):
                raise ValueError(
                    "both students need the same assigner, one that returns its costs, such as PAA(); they "
                    f"have {one.assigner} and {other.assigner}"
                )
        if any(lesson.one_to_one is not None for pair in lessons for lesson in pair):
            raise ValueError("two students that learn together have no one-to-one heads: leave them out")
        self.students = nn.ModuleDict({FIRST: first, SECOND: second})
        self.lessons = tuple(lessons)
        self.selector = selector
        every = (
            StageDistillation(lesson, student, other)
            for pair in lessons
            for lesson, student, other in zip(pair, (first, second), (second, first), strict=True)
        )
        self.distillation = DistillationLosses(every, (FIRST, SECOND) * len(lessons))
        if any(stage.tower_depths is not None for stage in self.distillation):
            raise ValueError(
                "two students that learn cannot send features through each other's head: leave out CrossKD"
            )
        self.time: Time | None = None
        self.monitor: dict[str, Tensor] = {}

    def forward(self, batch: Batch) -> dict[str, Term]:
        """The terms of one batch, of both networks."""
        first, second = (net(batch.images, batch.sizes, batch.truth) for net in self.students.values())
        terms: dict[str, Term] = {}
        stages = iter(self.distillation)
        for lessons, pair in zip(self.lessons, zip(first, second, strict=True), strict=True):
            plan, selection = self._decide(lessons[0], *pair, batch)
            for number, name in enumerate((FIRST, SECOND)):
                student, other, lesson = pair[number], pair[1 - number], lessons[number]
                criterion = lesson.criterion_at(self.time)
                found = criterion(student, batch.truth, plan) if criterion is not None else {}
                found = joined(found, next(stages)(student, other.detach(), batch.truth, plan))
                terms = joined(terms, named(name, found))
            self.monitor = assignment_metrics(plan, batch.truth) | _second_share(selection)
        return self.distillation.kept_in_graph(terms)

    def set_time(self, epoch: float, step: int) -> None:
        """Set the epochs, fractions included, and the steps done so far, for schedules."""
        self.time = (epoch, step)
        self.distillation.set_time(epoch, step)

    @property
    def distilled(self) -> frozenset[str]:
        """The names of the distillers' terms in the last batch."""
        return self.distillation.distilled

    def _decide(self, lesson: Lesson, first: Output, second: Output, batch: Batch) -> tuple[Assignment, Selection]:
        """One assignment for both networks, which have the same priors and candidates."""
        assigner = cast("EvidenceAssigner", lesson.assigner)
        evidence = [assigner.weigh(one.predictions, first.priors, batch.truth) for one in (first, second)]
        selection = self.selector(evidence[0], evidence[1], first.priors, batch.truth)
        return assigner.select(selection.evidence, first.priors, batch.truth), selection


@torch.no_grad()
def _second_share(selection: Selection) -> dict[str, Tensor]:
    """The fraction of objects on each level for which the second network's costs were taken; nan without objects."""
    shares = selection.second.sum((0, 1)) / selection.decided.sum((0, 1))
    return {f"second_judges/level_{number}": share for number, share in enumerate(shares.unbind(), start=1)}
