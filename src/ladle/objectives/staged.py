"""One training step of a detector in several stages: what a stage proposes, the next one looks at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ladle.assigners import Assigner, keep_sampled, uses_predictions
from ladle.objectives.lesson import Lesson, is_over
from ladle.objectives.supervised import positives_per_object
from ladle.objectives.teaching import DistillationLosses, StageDistillation, joined, named
from ladle.teachers import FrozenDetector
from ladle.types import Assignment, Batch, GroundTruth, Output, Predictions, Priors, Term

__all__ = ["Staged", "stage_names"]

_CERTAIN = 30.0
"""The logit of what is known: its probability is 1 in float32."""


class Staged(nn.Module):
    """A student in several stages, each taught by a lesson of its own, with ground truth and perhaps by a teacher.

    Where the teacher judges a stage, its assigner is handed what the teacher says at the *student's* priors: in a
    proposal network at the anchors they share, in a region head at the student's own proposals, seen with the
    teacher's features. Ground truth among the proposals is judged as itself. This is label-assignment distillation for
    detectors in two stages, our reading of Gao, Zhang & Yan (2021), of whose text only the abstract is public to us.

    Region heads sample before they look, since looking is most of their work: the plan of all proposals is made first.

    Losses are called ``rpn/class``, ``roi/box`` and so on; ``monitor`` counts positives of each stage.
    """

    def __init__(
        self,
        student: nn.Module,
        lessons: Sequence[Lesson],
        teacher: FrozenDetector | None = None,
        judges: Sequence[Literal["student", "teacher"]] | None = None,
        judge_until: float | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        """Take one lesson and one judge per stage; ``judge_until`` is the epoch after which the student judges itself.

        ``generator`` draws the samples; by default the device's own random numbers do.
        """
        super().__init__()
        judges = judges if judges is not None else ["student"] * len(lessons)
        needs = "teacher" in judges or any(lesson.distillers for lesson in lessons)
        if needs and teacher is None:
            raise ValueError("a teacher that judges or is imitated must be given; pass teacher=FrozenDetector(...)")
        self.student = student
        self.lessons, self.judges = tuple(lessons), tuple(judges)
        self.teacher, self.judge_until, self.generator = teacher, judge_until, generator
        every = (StageDistillation(lesson, student, teacher) for lesson in lessons)
        self.teachings = DistillationLosses(every, stage_names(len(lessons)))
        self.epoch: float | None = None
        self.monitor: dict[str, Tensor] = {}

    def forward(self, batch: Batch) -> dict[str, Term]:
        """The terms of one batch, stage by stage."""
        features = self.student.look(batch.images)  # type: ignore[operator]
        heard = self.teachings.active or any(map(self._judges, range(len(self.lessons))))
        seen = self.teacher.look(batch.images) if self.teacher is not None and heard else None
        previous: Output | None = None
        terms: dict[str, Term] = {}
        parts = zip(self.teachings.names, self._chain, self.lessons, self.teachings, strict=True)
        for number, (name, stage, lesson, teaching) in enumerate(parts):
            truth = _of_one_class(batch.truth) if stage.classes == 1 else batch.truth
            own, plan = self._decide(number, features, seen, previous, truth, batch.sizes)
            found = lesson.criterion(own, truth, plan) if lesson.criterion is not None else {}
            guide = self._guide(number, seen, own) if teaching.active and seen is not None else own
            found = joined(found, teaching(own, guide, truth, plan))
            terms = joined(terms, named(name, found))
            self.monitor[f"{name}/positives_per_object"] = positives_per_object(plan, truth)
            previous = own.detach()
        return self.teachings.kept_in_graph(terms)

    def set_time(self, epoch: float, step: int) -> None:
        """Say how many epochs, or a fraction, and how many steps are done: judges and distillers come and go."""
        self.epoch = epoch
        self.teachings.set_time(epoch, step)

    @property
    def distilled(self) -> frozenset[str]:
        """The terms that distillers gave in the last batch."""
        return self.teachings.distilled

    @property
    def students(self) -> dict[str, nn.Module]:
        """The network that is evaluated and saved."""
        return {"student": self.student}

    @property
    def _chain(self) -> list[Any]:
        return list(cast("Sequence[nn.Module]", self.student.chain))

    def _judges(self, number: int) -> bool:
        """Whether the teacher judges a stage at this time."""
        return self.judges[number] == "teacher" and not is_over(self.judge_until, self.epoch)

    def _guide(self, number: int, seen: tuple[Tensor, ...], own: Output) -> Output:
        assert self.teacher is not None
        return self.teacher.say(number, seen, own.sizes, own.priors, own.predictions.logits.shape[-1])

    def _decide(
        self,
        number: int,
        features: tuple[Tensor, ...],
        seen: tuple[Tensor, ...] | None,
        previous: Output | None,
        truth: GroundTruth,
        sizes: Tensor,
    ) -> tuple[Output, Assignment]:
        """What the student says at the priors it learns from, and what they learn."""
        stage, lesson, judged = self._chain[number], self.lessons[number], self._judges(number)
        rule = lesson.rule(over=self.judges[number] == "teacher" and not judged)
        priors = stage.propose(features, previous, truth, sizes)
        own = Output(self._first_word(stage, rule, judged, features, priors, len(sizes)), priors, features, sizes)
        said = own.predictions
        if judged:
            assert seen is not None
            said = self._guide(number, seen, own).predictions
        said = _independent(said)
        if stage.samples_first:
            said = _with_given(said, priors, truth)
        plan = rule(said, priors, truth)
        if lesson.sampler is not None:
            plan = lesson.sampler(plan, self.generator)
        if stage.samples_first:
            count = lesson.sampler.count if lesson.sampler is not None else plan.background.shape[1]
            few, plan = keep_sampled(priors, plan, count)
            own = Output(stage(features, few)[0], few, features, sizes)
        return own, plan

    def _first_word(
        self, stage: Any, rule: Assigner, judged: bool, features: tuple[Tensor, ...], priors: Priors, batch: int
    ) -> Predictions:
        """What a stage says before its priors are sampled: of proposals nothing, unless the rule has to know."""
        if not stage.samples_first:
            said: Predictions = stage(features, priors)[0]
            return said
        if judged or not uses_predictions(rule):
            return Predictions.placeholder(priors, stage.classes, batch)
        with torch.no_grad():
            glance: Predictions = stage(features, priors)[0]
        return glance


def stage_names(count: int) -> list[str]:
    """What the stages of a detector are called in the names of their losses."""
    return ["rpn", "roi"] if count == 2 else ["rpn", *(f"roi_{number}" for number in range(1, count))]


def _of_one_class(truth: GroundTruth) -> GroundTruth:
    return replace(truth, labels=torch.zeros_like(truth.labels))


def _with_given(said: Predictions, priors: Priors, truth: GroundTruth) -> Predictions:
    """The same, but ground truth among the proposals is what it is, whatever anybody says of its box and its class."""
    boxes = torch.where(priors.given.view(1, -1, 1), priors.boxes, said.boxes)
    known = F.one_hot(truth.labels.clamp(min=0), said.logits.shape[-1]).to(said.logits) * (2 * _CERTAIN) - _CERTAIN
    logits = said.logits.clone()
    logits[:, priors.given] = known
    return replace(said, boxes=boxes, logits=logits)


def _independent(said: Predictions) -> Predictions:
    """For assigners, which ask of each class by itself how likely it is."""
    return replace(said, logits=said.log_odds, exclusive=False) if said.exclusive else said
