"""The losses of a training step: plain training and distillation, for detectors with one or several stages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor, nn

from ladle.assigners import Assigner, SoftAssigner, keep_sampled, uses_predictions
from ladle.detectors import DualStudent, Stage, Student
from ladle.device import has_graphs
from ladle.lessons import Lesson, Time
from ladle.objectives.distillation import DistillationLosses, StageDistillation, joined, named, scaled
from ladle.objectives.monitoring import agreement, assignment_metrics
from ladle.replays import Replayed
from ladle.teachers import Observation, StudentTeacher, Teacher
from ladle.types import Assignment, Batch, GroundTruth, Output, Predictions, Priors, Term

__all__ = ["TrainingStep", "stage_names"]

_COMPARED_EVERY = 10
"""Steps between comparisons of the student's own plan with the teacher's; each calls the assigner twice."""
_CERTAIN = 30.0
"""The logit of a known class: its probability is 1 in float32."""


class TrainingStep(nn.Module):
    """The losses of a student on a batch, with one lesson for each stage.

    With ``judge=TeacherJudges()`` in a lesson the assigner is given what the teacher predicts at the *student's*
    priors: this is label-assignment distillation (LAD, Nguyen et al. 2022). Nothing else changes. In a region head the
    priors are the student's proposals, and the teacher predicts from its own features; the prediction at a ground-truth
    box among the proposals is that box and its class. This form for several stages is our reading of Gao, Zhang & Yan
    (2021), of whose text only the abstract is public to us. Distillers add their terms.

    For a region head all proposals are assigned and then sampled, and the head runs on the sample only, since that is
    most of the work.

    The teacher is not registered: it is not in the parameters, the state dict or data-parallel wrappers, unless it is
    made of the student (:class:`~ladle.teachers.StudentTeacher`). The parameters of distillers are parameters of this
    module, not of the student. An auxiliary head has the losses of the student too, ``auxiliary/class`` and so on.

    The losses of a one-stage detector are called ``class``, ``box`` and so on, those of other detectors ``rpn/class``,
    ``roi/box`` and so on. ``monitor`` holds the numbers of :func:`~ladle.objectives.assignment_metrics` for each stage;
    in every tenth step also their :func:`~ladle.objectives.agreement`, where both networks predict.

    A one-to-one head beside the stages (:class:`~ladle.detectors.DualStudent`) has the losses ``one_to_one/class`` and
    so on; with ``detached`` in its lesson they have no gradient in the feature maps. Teachers judge and distill the
    stages only.

    Examples:
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

        Raises ValueError if a teacher is needed and missing, TypeError if the student lacks a method.

        ``generator`` is for the sampling of region heads; by default the global generator of the device.
        """
        super().__init__()
        if not isinstance(student, Student):
            raise TypeError(
                f"{type(student).__name__} has no `chain` and `extract_features`, see ladle.detectors.Student"
            )
        if teacher is None and any(lesson.judge is not None for lesson in lessons):
            raise ValueError("a teacher judges in one of the lessons: pass teacher=FrozenDetector(...)")
        _check_heads(student, lessons)
        self.student = student
        self.lessons = tuple(lessons)
        self.teacher, self.generator = teacher, generator
        made: object = teacher
        self._of_student: StudentTeacher | None = made if isinstance(made, StudentTeacher) else None
        # Registered, so that it is stored for a resume and, unless it is frozen, trained.
        self.of_student = self._of_student.network if self._of_student is not None else None
        every = (StageDistillation(lesson, student, teacher) for lesson in lessons)
        self.distillation = DistillationLosses(every, stage_names(len(self.lessons)))
        self._replayed: dict[int, Replayed] = {}
        self.time: Time | None = None
        self.monitor: dict[str, Tensor] = {}

    def forward(self, batch: Batch) -> dict[str, Term]:
        """The terms of one batch."""
        self.monitor = {}
        features = self._network.extract_features(batch.images)
        seen = self._observe(batch, features)
        losses: dict[str, Term] = {}
        previous: Output | None = None
        for number, (stage, lesson) in enumerate(zip(self._network.chain, self.lessons, strict=True)):
            truth = batch.truth.one_class() if stage.class_agnostic else batch.truth
            priors = stage.propose(features, previous, truth, batch.sizes)
            if stage.samples_first:
                predictions = self._proposal_predictions(number, features, seen, priors, truth)
            else:
                student, teacher = self._outputs(number, features, seen, priors, batch.sizes)
                predictions = (teacher.detach() if lesson.teacher_judges(self.time) else student).predictions
            assignment = self._assigner_of(lesson, batch)(_independent(predictions), priors, truth)
            if lesson.sampler is not None:
                assignment = lesson.sampler(assignment, self.generator)
            if stage.samples_first:
                most = lesson.sampler.count if lesson.sampler is not None else priors.boxes.shape[1]
                kept, assignment = keep_sampled(priors, assignment, most)
                student, teacher = self._outputs(number, features, seen, kept, batch.sizes)
            losses = joined(losses, self._losses(number, student, teacher, truth, assignment))
            previous = student.detach()
        losses = joined(losses, self._one_to_one(batch, features))
        return self.distillation.kept_in_graph(losses)

    def set_time(self, epoch: float, step: int) -> None:
        """Set the epochs, fractions included, and the steps done so far; call it before every step."""
        self.time = (epoch, step)
        self.distillation.set_time(epoch, step)
        if self._of_student is not None:
            self._of_student.follow(self.student, epoch, step)

    def _assigner_of(self, lesson: Lesson, batch: Batch) -> Assigner:
        """The lesson's assigner of this time; on a GPU it is replayed."""
        now = lesson.assigner_at(self.time)
        if not has_graphs(batch.images):
            return now
        if id(now) not in self._replayed:
            self._replayed[id(now)] = Replayed(now)
        return self._replayed[id(now)]

    @property
    def students(self) -> dict[str, nn.Module]:
        """The network that is evaluated and saved."""
        return {"student": self.student}

    @property
    def distilled(self) -> frozenset[str]:
        """The names of the distillers' terms in the last batch."""
        return self.distillation.distilled

    @property
    def _network(self) -> Student:
        return cast("Student", self.student)

    def _distillation(self, number: int) -> StageDistillation:
        return cast("StageDistillation", self.distillation[number])

    @property
    def _learns(self) -> bool:
        """Whether the teacher is made of the student and learns with it."""
        return self._of_student is not None and self._of_student.learns

    def _observe(self, batch: Batch, features: tuple[Tensor, ...]) -> Observation | None:
        """The teacher's observation of a batch; None if it is not needed at this time, and so not run."""
        judges = any(lesson.teacher_judges(self.time) for lesson in self.lessons)
        if self.teacher is None or not (judges or self._learns or self.distillation.active):
            return None
        if self._of_student is not None:
            return self._of_student.observe_student(batch, features)
        return self.teacher.observe(batch)

    def _outputs(
        self,
        number: int,
        features: tuple[Tensor, ...],
        seen: Observation | None,
        priors: Priors,
        sizes: Tensor,
    ) -> tuple[Output, Output]:
        """The student's output of a stage, and the teacher's if it is needed, otherwise the student's again."""
        stage, lesson, distillation = self._network.chain[number], self.lessons[number], self._distillation(number)
        student_depth, teacher_depth = distillation.tower_depths or (None, None)
        predictions, towers = stage(features, priors, student_depth)
        student = Output(predictions, priors, features, sizes, towers)
        judged = lesson.teacher_judges(self.time) and not stage.samples_first
        if seen is None or not (judged or self._learns or distillation.active):
            return student, student
        return student, self._teacher_output(number, seen, priors, teacher_depth)

    def _teacher_output(self, number: int, seen: Observation, priors: Priors, tower_depth: int | None = None) -> Output:
        assert self.teacher is not None
        return self.teacher.predict_at(seen, priors, number, self._network.chain[number].class_agnostic, tower_depth)

    def _proposal_predictions(
        self, number: int, features: tuple[Tensor, ...], seen: Observation | None, priors: Priors, truth: GroundTruth
    ) -> Predictions:
        """Predictions for assigning all proposals before sampling; placeholders if the assigner does not use them."""
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
        criterion = lesson.criterion_at(self.time)
        terms = criterion(student, truth, assignment) if criterion is not None else {}
        terms = scaled(terms, lesson.weight_at(self.time))
        if criterion is not None and self._learns:
            terms = joined(terms, named("auxiliary", criterion(teacher, truth, assignment)))
        terms = joined(terms, self._distillation(number)(student, teacher, truth, assignment))
        metrics = assignment_metrics(assignment, truth) | self._agreement(number, student, teacher, truth)
        self.monitor |= named(name, metrics)
        return named(name, terms)

    def _one_to_one(self, batch: Batch, features: tuple[Tensor, ...]) -> dict[str, Term]:
        """The terms of a one-to-one head, if there is one."""
        one, head = self.lessons[-1].one_to_one, _one_to_one_head(self.student)
        if one is None or head is None:
            return {}
        maps, truth = tuple(each.detach() if one.detached else each for each in features), batch.truth
        priors = head.propose(maps, None, truth, batch.sizes)
        output = Output(head(maps, priors)[0], priors, maps, batch.sizes)
        assignment = self._assigner_of(one.lesson, batch)(_independent(output.predictions), priors, truth)
        self.monitor |= named("one_to_one", assignment_metrics(assignment, truth))
        criterion = one.lesson.criterion_at(self.time)
        return named("one_to_one", criterion(output, truth, assignment) if criterion is not None else {})

    def _agreement(self, number: int, student: Output, teacher: Output, truth: GroundTruth) -> dict[str, Tensor]:
        """How far both networks assign alike; nothing where one assigner would not give two hard plans."""
        assigner = self.lessons[number].assigner_at(self.time)
        due = self.time is not None and self.time[1] % _COMPARED_EVERY == 1
        comparable = uses_predictions(assigner) and not isinstance(assigner, SoftAssigner)
        if not due or not comparable or teacher is student or self._network.chain[number].samples_first:
            return {}
        if teacher.predictions.logits.shape != student.predictions.logits.shape:  # a teacher with features only
            return {}
        plans = [assigner(_independent(one.predictions.detach()), student.priors, truth) for one in (student, teacher)]
        return {"agreement": agreement(*plans)}


def stage_names(count: int) -> list[str]:
    """The prefix of the losses of each stage; empty for a single stage."""
    if count == 1:
        return [""]
    return ["rpn", "roi"] if count == 2 else ["rpn", *(f"roi_{number}" for number in range(1, count))]


def _one_to_one_head(student: nn.Module) -> Stage | None:
    return student.one_to_one if isinstance(student, DualStudent) else None


def _check_heads(student: nn.Module, lessons: Sequence[Lesson]) -> None:
    """Raise ValueError for a one-to-one head without a lesson, and for such a lesson without a head."""
    head = _one_to_one_head(student) is not None
    if head != any(lesson.one_to_one is not None for lesson in lessons):
        found = "a one-to-one head, and no lesson" if head else "no one-to-one head, and a lesson"
        raise ValueError(f"the student has {found} for it: take lessons_of(spec) for the spec of the student")


def _independent(predictions: Predictions) -> Predictions:
    """The predictions with one independent logit for each class, as assigners need them."""
    if not predictions.exclusive:
        return predictions
    return replace(predictions, logits=predictions.log_odds, exclusive=False)


def _with_ground_truth(predictions: Predictions, priors: Priors, truth: GroundTruth) -> Predictions:
    """The predictions, with box and class of the object at each ground-truth box among the proposals."""
    is_ground_truth = priors.is_ground_truth
    if is_ground_truth is None:
        return predictions
    boxes = torch.where(is_ground_truth.unsqueeze(-1), priors.boxes, predictions.boxes)
    classes = torch.arange(predictions.logits.shape[-1], device=boxes.device)
    known = (truth.labels.clamp(min=0).unsqueeze(-1) == classes).to(predictions.logits) * (2 * _CERTAIN) - _CERTAIN
    # The objects, each at its place among the proposals; a mask as an index would wait for the device.
    rows = known[:, (is_ground_truth[0].cumsum(0) - 1).clamp(min=0)] if known.shape[1] else predictions.logits
    logits = torch.where(is_ground_truth.unsqueeze(-1), rows, predictions.logits)
    return replace(predictions, boxes=boxes, logits=logits)
