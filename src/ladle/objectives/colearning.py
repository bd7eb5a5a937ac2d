"""Two students that learn together: whoever is surer of an object decides for both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from ladle.assigners import CostSelector, EvidenceAssigner, Selection
from ladle.objectives.lesson import Lesson
from ladle.objectives.supervised import positives_per_object
from ladle.objectives.teaching import DistillationLosses, StageDistillation, joined, named
from ladle.types import Assignment, Batch, Output, Term

__all__ = ["CoLearning"]

FIRST, SECOND = "first", "second"
"""What the two students are called, in the names of their losses, their scores and their files."""


class CoLearning(nn.Module):
    """Co-learning label assignment distillation (CoLAD, Nguyen et al., WACV 2022, section 3.3).

    Both networks price the same candidates. For each object and level the one that is surer by ``surer`` provides the
    costs; one plan is made of them, and each network pays its own losses on it. Their distillers, if they have any,
    have each imitate the other as it is at that moment.

    Losses are called ``first/class``, ``second/class`` and so on. ``monitor`` says for each level in what share of the
    decisions the second network was the surer one; in the others it was the first.
    """

    def __init__(
        self,
        first: nn.Module,
        second: nn.Module,
        lessons: Sequence[tuple[Lesson, Lesson]],
        surer: CostSelector = CostSelector(),
    ) -> None:
        """Take a pair of lessons per stage; raises ValueError unless both have one assigner, which shows evidence."""
        super().__init__()
        for one, other in lessons:
            if one.assign != other.assign or not isinstance(one.assign, EvidenceAssigner):
                raise ValueError(
                    "both students must learn by the same assigner, one that shows its evidence, such as PAA(); they "
                    f"have {one.assign} and {other.assign}"
                )
        self.students = nn.ModuleDict({FIRST: first, SECOND: second})
        self.lessons = tuple(lessons)
        self.surer = surer
        every = (
            StageDistillation(lesson, own, other)
            for pair in lessons
            for lesson, own, other in zip(pair, (first, second), (second, first), strict=True)
        )
        self.teachings = DistillationLosses(every, (FIRST, SECOND) * len(lessons))
        if any(teaching.inside is not None for teaching in self.teachings):
            raise ValueError(
                "two students that learn cannot send features through each other's head: leave out CrossKD"
            )
        self.monitor: dict[str, Tensor] = {}

    def forward(self, batch: Batch) -> dict[str, Term]:
        """The terms of one batch, of both networks."""
        first, second = (net(batch.images, batch.sizes, batch.truth) for net in self.students.values())
        terms: dict[str, Term] = {}
        teachings = iter(self.teachings)
        for lessons, pair in zip(self.lessons, zip(first, second, strict=True), strict=True):
            plan, verdict = self._decide(lessons[0], *pair, batch)
            for number, name in enumerate((FIRST, SECOND)):
                own, other, lesson = pair[number], pair[1 - number], lessons[number]
                mine = lesson.criterion(own, batch.truth, plan) if lesson.criterion is not None else {}
                mine = joined(mine, next(teachings)(own, other.detach(), batch.truth, plan))
                terms = joined(terms, named(name, mine))
            self.monitor = {"positives_per_object": positives_per_object(plan, batch.truth)} | _won(verdict)
        return self.teachings.kept_in_graph(terms)

    def set_time(self, epoch: float, step: int) -> None:
        """Say how many epochs, or a fraction, and how many steps are done: some distillers come and go."""
        self.teachings.set_time(epoch, step)

    @property
    def distilled(self) -> frozenset[str]:
        """The terms that distillers gave in the last batch."""
        return self.teachings.distilled

    def _decide(self, lesson: Lesson, first: Output, second: Output, batch: Batch) -> tuple[Assignment, Selection]:
        """One plan for both; their priors are the same, and so are their candidates."""
        assign = cast("EvidenceAssigner", lesson.assign)
        evidence = [assign.weigh(one.predictions, first.priors, batch.truth) for one in (first, second)]
        verdict = self.surer(evidence[0], evidence[1], first.priors, batch.truth)
        return assign.select(verdict.evidence, first.priors, batch.truth), verdict


@torch.no_grad()
def _won(verdict: Selection) -> dict[str, Tensor]:
    """The second network's share of the decisions of each level, finest first; nan where there was none."""
    shares = verdict.second.sum((0, 1)) / verdict.decided.sum((0, 1))
    return {f"second_judges/level_{number}": share for number, share in enumerate(shares.unbind(), start=1)}
