"""One training step: plain training and every kind of distillation, for detectors of one or several stages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ladle.assigners import keep_sampled, uses_predictions
from ladle.detectors import Student
from ladle.lessons import Lesson, Time
from ladle.objectives.distillation import DistillationLosses, StageDistillation, joined, named
from ladle.teachers import Observation, Teacher
from ladle.types import Assignment, Batch, GroundTruth, Output, Predictions, Priors, Term

__all__ = ["TrainingStep", "positives_per_object", "stage_names"]

_CERTAIN = 30.0
"""The logit of what is known: its probability is 1 in float32."""


class TrainingStep(nn.Module):
    """The losses of a student on a batch, stage by stage, each stage by a lesson of its own.

    With ``judge=TeacherJudges()`` in a lesson the assigner is given what the teacher predicts at the *student's*
    priors: this is label-assignment distillation (LAD, Nguyen et al. 2022). Nothing else changes. In a region head the
    priors are the student's own proposals, seen with the teacher's features; ground truth among the proposals is judged
    as itself. That form for several stages is our reading of Gao, Zhang & Yan (2021), of whose text only the abstract
    is public to us. Distillers add their terms.

    Region heads sample before they predict, since predicting is most of their work: all proposals are assigned first.

    The teacher is not registered: it is absent from parameters, state dict and data-parallel wrappers. What distillers
    train of their own is a part of this module, and of no student's weights.

    The losses of a detector of one stage are called ``class``, ``box`` and so on, those of several ``rpn/class``,
    ``roi/box`` and so on. ``monitor`` then holds how many positives an object has on average, for each stage.

    Example:
        >>> from ladle.data.loader import collate
        >>> from ladle.data.scenes import CLASSES, split_scenes
        >>> from ladle.families import detector_spec, lessons_of
        >>> from ladle.objectives import TrainingStep
        >>> student = detector_spec("paa-tiny", CLASSES, imgsz=64).build()
        >>> step = TrainingStep(student, lessons_of(student.spec))
        >>> scenes, _ = split_scenes(train=2, val=1, size=64)
        >>> sorted(step(collate([scenes.sample(0), scenes.sample(1)])))
        ['box', 'class', 'quality']
    """

    def __init__(
        self,
        student: nn.Module,
        lessons: Sequence[Lesson],
        teacher: Teacher | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        """Take one lesson per stage of a :class:`~ladle.detectors.Student`.

        Raises ValueError where a teacher is needed and missing, TypeError where the student lacks a method.

        ``generator`` draws the samples of region heads; by default the device's own random numbers do.
        """
        super().__init__()
        if not isinstance(student, Student):
            raise TypeError(
                f"{type(student).__name__} has no `chain` and `extract_features`, see ladle.detectors.Student"
            )
        if teacher is None and any(lesson.judge is not None for lesson in lessons):
            raise ValueError("a teacher judges in one of the lessons: pass teacher=FrozenDetector(...)")
        self.student = student
        self.lessons = tuple(lessons)
        self.teacher, self.generator = teacher, generator
        every = (StageDistillation(lesson, student, teacher) for lesson in lessons)
        self.distillation = DistillationLosses(every, stage_names(len(self.lessons)))
        self.time: Time | None = None
        self.monitor: dict[str, Tensor] = {}

    def forward(self, batch: Batch) -> dict[str, Term]:
        """The terms of one batch."""
        features, seen = self._network.extract_features(batch.images), self._observe(batch)
        losses: dict[str, Term] = {}
        previous: Output | None = None
        for number, (stage, lesson) in enumerate(zip(self._network.chain, self.lessons, strict=True)):
            truth = _one_class(batch.truth) if stage.class_agnostic else batch.truth
            priors = stage.propose(features, previous, truth, batch.sizes)
            if stage.samples_first:
                predictions = self._proposal_predictions(number, features, seen, priors, truth)
            else:
                student, teacher = self._outputs(number, features, seen, priors, batch.sizes)
                predictions = (teacher if lesson.teacher_judges(self.time) else student).predictions
            assignment = lesson.assigner_at(self.time)(_independent(predictions), priors, truth)
            if lesson.sampler is not None:
                assignment = lesson.sampler(assignment, self.generator)
            if stage.samples_first:
                most = lesson.sampler.count if lesson.sampler is not None else priors.boxes.shape[1]
                kept, assignment = keep_sampled(priors, assignment, most)
                student, teacher = self._outputs(number, features, seen, kept, batch.sizes)
            losses = joined(losses, self._losses(number, student, teacher, truth, assignment))
            previous = student.detach()
        return self.distillation.kept_in_graph(losses)

    def set_time(self, epoch: float, step: int) -> None:
        """Say how many epochs, a fraction within an epoch, and how many steps are done: before every step."""
        self.time = (epoch, step)
        self.distillation.set_time(epoch, step)

    @property
    def students(self) -> dict[str, nn.Module]:
        """The network that is evaluated and saved."""
        return {"student": self.student}

    @property
    def distilled(self) -> frozenset[str]:
        """The terms that distillers gave in the last batch."""
        return self.distillation.distilled

    @property
    def _network(self) -> Student:
        return cast("Student", self.student)

    def _distillation(self, number: int) -> StageDistillation:
        return cast("StageDistillation", self.distillation[number])

    def _observe(self, batch: Batch) -> Observation | None:
        """The teacher's observation of a batch; None where it is not needed at this time, so that it is not run."""
        judges = any(lesson.teacher_judges(self.time) for lesson in self.lessons)
        if self.teacher is None or not (judges or self.distillation.active):
            return None
        return self.teacher.observe(batch)

    def _outputs(
        self,
        number: int,
        features: tuple[Tensor, ...],
        seen: Observation | None,
        priors: Priors,
        sizes: Tensor,
    ) -> tuple[Output, Output]:
        """The student's output of a stage, and the teacher's where it judges or teaches; else the student's again."""
        stage, lesson, distillation = self._network.chain[number], self.lessons[number], self._distillation(number)
        mine, theirs = distillation.tower_depths or (None, None)
        predictions, towers = stage(features, priors, mine)
        student = Output(predictions, priors, features, sizes, towers)
        judged = lesson.teacher_judges(self.time) and not stage.samples_first
        if seen is None or not (judged or distillation.active):
            return student, student
        return student, self._teacher_output(number, seen, priors, theirs)

    def _teacher_output(self, number: int, seen: Observation, priors: Priors, tower_depth: int | None = None) -> Output:
        assert self.teacher is not None
        return self.teacher.predict_at(seen, priors, number, self._network.chain[number].class_agnostic, tower_depth)

    def _proposal_predictions(
        self, number: int, features: tuple[Tensor, ...], seen: Observation | None, priors: Priors, truth: GroundTruth
    ) -> Predictions:
        """What is known of all proposals before a sample is drawn: nothing, unless the assigner needs predictions."""
        stage, lesson = self._network.chain[number], self.lessons[number]
        if lesson.teacher_judges(self.time):
            assert seen is not None
            predictions = self._teacher_output(number, seen, priors).predictions
        elif uses_predictions(lesson.assigner):
            with torch.no_grad():
                predictions = stage(features, priors, None)[0]
        else:
            predictions = Predictions.placeholder(priors, stage.classes, len(features[0]))
        return _with_ground_truth(_independent(predictions), priors, truth)

    def _losses(
        self, number: int, student: Output, teacher: Output, truth: GroundTruth, assignment: Assignment
    ) -> dict[str, Term]:
        """The terms of a stage under its assignment, by their full names."""
        lesson, name = self.lessons[number], self.distillation.names[number]
        terms = lesson.criterion(student, truth, assignment) if lesson.criterion is not None else {}
        terms = joined(terms, self._distillation(number)(student, teacher, truth, assignment))
        self.monitor |= named(name, {"positives_per_object": positives_per_object(assignment, truth)})
        return named(name, terms)


def stage_names(count: int) -> list[str]:
    """What the losses of each stage begin with: nothing where there is one stage."""
    if count == 1:
        return [""]
    return ["rpn", "roi"] if count == 2 else ["rpn", *(f"roi_{number}" for number in range(1, count))]


@torch.no_grad()
def positives_per_object(assignment: Assignment, truth: GroundTruth) -> Tensor:
    """How many priors learn an object, on average over the objects of a batch."""
    return assignment.positive.sum() / truth.learnable.sum().clamp(min=1)


def _one_class(truth: GroundTruth) -> GroundTruth:
    return replace(truth, labels=torch.zeros_like(truth.labels))


def _independent(predictions: Predictions) -> Predictions:
    """For assigners, which take the probability of each class by itself."""
    if not predictions.exclusive:
        return predictions
    return replace(predictions, logits=predictions.log_odds, exclusive=False)


def _with_ground_truth(predictions: Predictions, priors: Priors, truth: GroundTruth) -> Predictions:
    """The same, but ground truth among the proposals has its own box and class, whatever a network predicts there."""
    given = priors.is_ground_truth
    if given is None:
        return predictions
    boxes = torch.where(given.view(1, -1, 1), priors.boxes, predictions.boxes)
    known = F.one_hot(truth.labels.clamp(min=0), predictions.logits.shape[-1]).to(predictions.logits)
    logits = predictions.logits.clone()
    logits[:, given] = known * (2 * _CERTAIN) - _CERTAIN
    return replace(predictions, boxes=boxes, logits=logits)
