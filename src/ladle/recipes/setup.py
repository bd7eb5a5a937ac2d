"""The networks and lessons of a run: resolved from a job before any weights are created, then built."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch

from ladle.assigners import CostSelector, EvidenceAssigner
from ladle.detectors import Detector, DetectorSpec, adopt_weights, load_detector, read_spec
from ladle.distillers import CrossKD, Method
from ladle.errors import UserError
from ladle.families import Start, detector_spec, lessons_of, network_info
from ladle.methods import LAD, Plan, Published, TeacherOnly, pair_of, plan_of
from ladle.methods.words import JUDGING, Pair, part_name, pieces_of, unscheduled
from ladle.networks import NetworkInfo, prior_mismatches
from ladle.objectives import CoLearning, TrainingStep
from ladle.recipes.jobs import Job
from ladle.recipes.opened import OpenedTeacher
from ladle.recipes.parts import Parts
from ladle.recipes.preflight import load_foreign, load_teacher
from ladle.teachers import auxiliary_info, moved_info, teacher_of_student

__all__ = ["Setup", "build_objective", "links_of", "resolve", "student_spec"]


class Setup(NamedTuple):
    """The students of a job by name, and the plan of each."""

    specs: dict[str, DetectorSpec]
    plans: dict[str, Plan]

    @property
    def imgsz(self) -> int:
        """The long side of the images, the same for all."""
        return next(iter(self.specs.values())).imgsz

    @property
    def weighed(self) -> tuple[str, ...]:
        """The names of the terms whose weight follows the gradients, with those of students where there are two."""
        several = len(self.plans) > 1
        return tuple(
            f"{name}/{term}" if several else term for name, plan in self.plans.items() for term in plan.weighed
        )

    def with_value_range(self, value_range: tuple[int, int]) -> Setup:
        """The same students with the values of 16-bit images that become black and white."""
        return self._replace(specs={name: replace(one, value_range=value_range) for name, one in self.specs.items()})


def student_spec(
    job: Job, parts: Parts, classes: tuple[str, ...], category_ids: tuple[int, ...] | None = None
) -> DetectorSpec:
    """The spec of the student, or of the first of two, for the classes of a data set."""
    run, given = job.run, parts.student
    if given is None:
        return detector_spec(job.student, classes, category_ids, run.imgsz, run.start).keeping(run.max_det)
    if run.start != Start():
        by = job.student if job.initial is not None else f"{given.name} is given as a spec, which"
        raise UserError(
            f"{by} sets the initial weights and the normalization of layers: leave out pretrained, backbone_weights, "
            "norm and neck_norm"
        )
    ids = category_ids if category_ids is not None else tuple(range(1, len(classes) + 1))
    imgsz = run.imgsz if run.imgsz is not None else given.imgsz
    return replace(given, classes=classes, category_ids=ids, imgsz=imgsz).keeping(run.max_det)


def resolve(job: Job, parts: Parts, classes: tuple[str, ...], category_ids: tuple[int, ...]) -> Setup:
    """Resolve the students and plans of a job; raises :class:`UserError` for a combination that cannot work."""
    student = student_spec(job, parts, classes, category_ids)
    setup = _pair(job, parts, student) if job.verb == "colearn" else _alone(job, parts, student)
    run = job.run
    plans = {
        name: plan._replace(lessons=tuple(lesson.within(run.epochs, run.close_mosaic) for lesson in plan.lessons))
        for name, plan in setup.plans.items()
    }
    return setup._replace(plans=plans)


def _alone(job: Job, parts: Parts, student: DetectorSpec) -> Setup:
    """The one student of a run, with or without a teacher."""
    plan = _plan(job, parts, student, _teacher_of(job, parts, student))
    _check_balance(job, plan)
    _check_judges(job, plan)
    return Setup({"student": student}, {"student": plan})


def _teacher_of(job: Job, parts: Parts, student: DetectorSpec) -> DetectorSpec | NetworkInfo | None:
    """The description of a job's teacher; None without one."""
    if parts.teacher is not None:
        return parts.teacher.info
    if job.teacher_of_student is not None:
        return student if job.teacher_of_student.kind == "ema" else auxiliary_info(student)
    if job.foreign_teacher is not None:
        return _opened(job.foreign_teacher, parts, student)().info
    return None if job.teacher_file is None else read_spec(Path(job.teacher_file))


def _opened(text: str, parts: Parts, student: DetectorSpec) -> OpenedTeacher:
    """The foreign teacher of a run, which may be open already."""
    return parts.foreign if parts.foreign is not None else OpenedTeacher(text, student)


def _plan(job: Job, parts: Parts, student: DetectorSpec, teacher: DetectorSpec | NetworkInfo | None) -> Plan:
    """The plan for a student and its teacher, whose predictions are moved where its priors differ."""
    lessons = lessons_of(student, parts.assigner, parts.criterion)
    if teacher is None:
        return plan_of(parts.method, lessons, None, job.method)
    pair = pair_of(student, teacher)
    if job.teacher_of_student is not None and any(isinstance(part, TeacherOnly) for part in _pieces(parts, pair)):
        raise UserError(
            f"--method {job.method}: the teacher {job.teacher} is made of the student, so nothing would be learned "
            "from ground truth; take soft"
        )
    if isinstance(teacher, DetectorSpec) and prior_mismatches(pair.student, pair.teacher):
        plan = plan_of(parts.method, lessons, pair._replace(teacher=moved_info(pair.teacher)), job.method)
        if plan.aligned:
            return plan._replace(moved=True)
    return plan_of(parts.method, lessons, pair, job.method)


def _pieces(parts: Parts, pair: Pair) -> list[object]:
    """The parts of a method, words resolved."""
    return [piece for part in parts.method.parts for piece in pieces_of(part, pair)]


def _check_judges(job: Job, plan: Plan) -> None:
    """Raise :class:`UserError` for a teacher that would judge in no epoch of the run."""
    for judge in (lesson.judge for lesson in plan.lessons):
        if judge is None:
            continue
        last = job.run.epochs if judge.until is None else min(judge.until, job.run.epochs)
        if judge.after >= last:
            raise UserError(
                f"--judge-after {judge.after:g}: the teacher would judge in no epoch, since it does so until epoch "
                f"{last:g} (--epochs, --judge-until); expected a smaller number, or leave out lad"
            )


def _check_balance(job: Job, plan: Plan) -> None:
    """Raise :class:`UserError` for a balance without distillation or detection losses, or a share without a balance."""
    job.settings()
    if plan.weighed and job.balance != "none":
        raise UserError(
            f"--balance {job.balance}: a --weight auto follows the gradients already; leave one of them out"
        )
    if job.balance == "none" and not plan.weighed:
        if job.balance_share != 1.0:
            raise UserError(f"--balance-share {job.balance_share}: it has no effect without a balance; add --balance")
        return
    criterion, flag = plan.lessons[0].criterion, "--weight auto" if plan.weighed else f"--balance {job.balance}"
    lacking = "distilled" if not plan.teaches else "learned from ground truth" if criterion is None else ""
    if lacking:
        raise UserError(f"{flag}: by --method {job.method} nothing is {lacking}; leave it out")


def links_of(job: Job, parts: Parts) -> list[str]:
    """The full names of the assistants between teacher and student, in the order of training.

    Raises :class:`UserError` if a link of the chain from the teacher to the student cannot work.
    """
    if job.assistants is None:
        return []
    if job.foreign_teacher is not None or job.teacher_of_student is not None:
        raise UserError(f"--assistants {job.assistants}: expected a teacher saved by ladle, found {job.teacher}")
    names = [name.strip() for name in job.assistants.split(",")]
    if not all(names):
        raise UserError(
            f"--assistants {job.assistants!r}: expected detectors such as r50,r34, found one without a name"
        )
    if parts.teacher is not None or job.teacher is None:
        raise UserError(f"--assistants {job.assistants}: expected a teacher as a file of weights")
    teacher = read_spec(Path(job.teacher))
    last = student_spec(job, parts, teacher.classes)
    names = [name if "-" in name else f"{last.name.partition('-')[0]}-{name}" for name in names]
    for student in (*(detector_spec(name, teacher.classes, imgsz=job.run.imgsz) for name in names), last):
        student.build()
        try:
            _plan(job, parts, student, teacher)
        except UserError as error:
            link = f"{teacher.name} cannot teach {student.name}"
            raise UserError(f"--assistants {job.assistants}: {link}: {error}") from None
        teacher = student
    return names


def build_objective(
    job: Job,
    setup: Setup,
    networks: dict[str, Detector],
    device: torch.device | str = "cpu",
    parts: Parts | None = None,
) -> CoLearning | TrainingStep:
    """The objective: one student, with or without a teacher, which is moved to ``device``, or two students.

    A teacher among the ``parts`` takes the place of the one that the job names.
    """
    if job.verb == "colearn":
        first, second = networks.values()
        _start(job, first)
        lessons = [(setup.plans["first"].lessons[0], setup.plans["second"].lessons[0])]
        return CoLearning(first, second, lessons, CostSelector(job.surer))
    (student,), (plan,) = networks.values(), setup.plans.values()
    _start(job, student)
    parts = parts if parts is not None else Parts()
    teacher = parts.teacher
    if teacher is None and job.teacher_of_student is not None:
        teacher = teacher_of_student(job.teacher_of_student, student)
    elif teacher is None and job.foreign_teacher is not None:
        teacher = load_foreign(_opened(job.foreign_teacher, parts, student.spec), plan)
    elif teacher is None and job.teacher_file is not None:
        teacher = load_teacher(job.teacher_file, student.spec, plan)
    return TrainingStep(student, plan.lessons, teacher.to(device) if teacher is not None else None)


_NOT_FOR_TWO = ("soft-only", "cross", *JUDGING)
"""The words of methods that are not available for two students."""


def _pair(job: Job, parts: Parts, first: DetectorSpec) -> Setup:
    """Two students that distill into each other, each with the losses of LAD."""
    assert job.second is not None
    second = detector_spec(job.second, first.classes, first.category_ids, first.imgsz, job.run.start)
    second = second.keeping(job.run.max_det)
    staged = [spec.name for spec in (first, second) if spec.regions]
    if staged:
        raise UserError(
            f"{staged[0]} works in stages, but costs can be compared in one stage only; take two detectors of one "
            "stage, such as paa-r18 and paa-r50"
        )
    dual = [spec.name for spec in (first, second) if spec.one_to_one]
    if dual:
        raise UserError(f"{dual[0]}: two students learn together without one-to-one heads; leave +o2o out")
    _check_start(job, first)
    found = prior_mismatches(network_info(first), network_info(second), first.name, second.name)
    if found:
        raise UserError(f"{first.name} and {second.name} cannot learn from each other: {'; '.join(found)}")
    unfit = [part for part in map(_unfit, parts.method.parts) if part is not None]
    if unfit:
        raise UserError(
            f"--method {job.method}: {unfit[0]} is not available for two students; give a method for distillation in "
            f"both directions, such as soft or pkd, or leave --method out"
        )
    method = Method((LAD(), *parts.method.parts))
    plans = {}
    for name, one, other in (("first", first, second), ("second", second, first)):
        lessons = lessons_of(one, parts.assigner, parts.criterion)
        plans[name] = plan_of(method, lessons, pair_of(one, other), f"lad+{job.method}")
        if not isinstance(lessons[0].assigner, EvidenceAssigner):
            raise UserError(
                f"{one.name} assigns by {type(lessons[0].assigner).__name__}, but co-learning compares the costs "
                "behind an assignment, which only PAA returns: take --assigner PAA"
            )
    return Setup({"first": first, "second": second}, plans)


def _unfit(part: object) -> str | None:
    """The name of a part of a method that is not available for two students; None for any other."""
    is_unfit = isinstance(unscheduled(part), LAD | TeacherOnly | CrossKD)
    return part_name(part) if is_unfit or (isinstance(part, Published) and part.word in _NOT_FOR_TWO) else None


def _check_start(job: Job, first: DetectorSpec) -> None:
    """Raise :class:`UserError` unless the initial weights fit the architecture and classes of the first student."""
    if job.first_weights is None or job.starts_from is None:
        return
    given, flag = read_spec(job.starts_from), f"--first-weights {job.first_weights}"
    if job.initial is not None:
        raise UserError(f"{flag}: --first {job.student} gives the initial weights already; leave one of them out")
    lacking = [name for name in first.classes if name not in given.classes]
    more = [name for name in given.classes if name not in first.classes]
    if lacking or more:
        what = (
            f"does not know {', '.join(map(repr, lacking))}" if lacking else f"also knows {', '.join(map(repr, more))}"
        )
        raise UserError(f"{flag}: it {what}; expected a detector of exactly the classes of {job.data}")
    parts = [name for name, values in _architectures(first, given).items() if values[0] != values[1]]
    if parts:
        raise UserError(
            f"{flag}: expected a {first.name}, found a {given.name} with another {' and '.join(parts)}; "
            "set --first, --norm and --neck-norm to those of the file"
        )


def _architectures(one: DetectorSpec, other: DetectorSpec) -> dict[str, tuple[object, object]]:
    """The properties of two detectors that must be equal to exchange weights."""
    both = one, other
    a, b = (replace(spec.backbone, pretrained=False, weights=None) for spec in both)
    return {
        "family": (one.family, other.family),
        "backbone": (a, b),
        "neck": ((one.extra, one.neck_norm, one.neck), (other.extra, other.neck_norm, other.neck)),
        "head": ((one.head, one.regions, one.one_to_one), (other.head, other.regions, other.one_to_one)),
        "normalization of images": ((one.mean, one.std), (other.mean, other.std)),
    }


def _start(job: Job, student: Detector) -> None:
    """Load the weights that the student, or the first of two, starts from, if they are given."""
    file = job.starts_from
    if file is not None:
        adopt_weights(student, load_detector(file))
