"""Who takes part in a run and what is taught: made out from a job before any weights are, then built."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from ladle.assigners import CostSelector, EvidenceAssigner
from ladle.detectors import Detector, DetectorSpec, load_detector, read_spec, state_in_order
from ladle.errors import UserError
from ladle.families import detector_spec
from ladle.objectives import CoLearning, Staged, Supervised
from ladle.recipes.jobs import Job
from ladle.recipes.methods import JUDGED, Times, parts_of, times_of
from ladle.recipes.plans import Judging, Plan, plan_of
from ladle.recipes.preflight import load_teacher
from ladle.teachers import differences

__all__ = ["Setup", "build_objective", "links_of", "resolve"]


class Setup(NamedTuple):
    """The students of a job by name, and what each of them is taught."""

    specs: dict[str, DetectorSpec]
    plans: dict[str, Plan]

    @property
    def imgsz(self) -> int:
        """The long side of the images, the same for all."""
        return next(iter(self.specs.values())).imgsz

    def seeing(self, value_range: tuple[int, int]) -> Setup:
        """The same students, to be told which values of 16-bit images become black and white."""
        return self._replace(specs={name: replace(one, value_range=value_range) for name, one in self.specs.items()})


def resolve(job: Job, classes: tuple[str, ...], category_ids: tuple[int, ...]) -> Setup:
    """Make out who takes part; raises :class:`UserError` for what cannot work, in one sentence."""
    student = detector_spec(job.student, classes, category_ids, job.run.imgsz, job.run.start).keeping(job.run.max_det)
    if job.verb == "colearn":
        return _pair(job, student)
    teacher = _read(job.teacher_file)
    times = _times(job)
    judging = Judging(job.keep_count, job.class_power, job.judge_until)
    plan = plan_of(job.method, student, teacher, job.assigner, times, judging)
    _heed_balance(job, plan)
    return Setup({"student": student}, {"student": plan})


def _times(job: Job) -> Times:
    """Weights and times of what is imitated; raises :class:`UserError` where there are some and nothing is imitated."""
    times = times_of(job.method, job.weight, job.warm, job.until)
    for flag, said in (("weight", job.weight), ("warm", job.warm), ("until", job.until)):
        if said is not None and not times:
            raise UserError(f"--{flag} {said}: by --method {job.method} nothing is imitated; leave it out, or add pkd")
    return times


def _heed_balance(job: Job, plan: Plan) -> None:
    """Refuse a balance of what is not distilled, or without losses of detection, and a share without a balance."""
    job.settings()
    if job.balance == "none":
        if job.balance_share != 1.0:
            raise UserError(f"--balance-share {job.balance_share}: there is no balance to share in; add --balance")
        return
    lacking = "distilled" if not plan.teaches else "learnt from ground truth" if plan.lesson.criterion is None else ""
    if lacking:
        raise UserError(f"--balance {job.balance}: by --method {job.method} nothing is {lacking}; leave it out")


def links_of(job: Job) -> list[str]:
    """The assistants of a job's teacher, by their full names, the strongest first.

    Raises :class:`UserError` where a link of the chain from the teacher to the student cannot work.
    """
    if job.assistants is None:
        return []
    names = [name.strip() for name in job.assistants.split(",")]
    if not all(names):
        raise UserError(
            f"--assistants {job.assistants!r}: expected detectors such as r50,r34, found one without a name"
        )
    family = job.student.partition("-")[0]
    teacher = _read(job.teacher)
    assert teacher is not None
    names = [name if "-" in name else f"{family}-{name}" for name in names]
    for name in (*names, job.student):
        student = detector_spec(name, teacher.classes, imgsz=job.run.imgsz)
        student.build()
        plan = plan_of(job.method, student, teacher, job.assigner)
        found = differences(student, teacher) if plan.aligned else []
        if found:
            raise UserError(f"--assistants {job.assistants}: {teacher.name} cannot teach {name}: {'; '.join(found)}")
        teacher = student
    return names


def build_objective(
    job: Job, setup: Setup, networks: dict[str, Detector], device: torch.device | str = "cpu"
) -> nn.Module:
    """What is trained: one student, alone or with a teacher, which goes to ``device`` by itself, or two together."""
    if job.verb == "colearn":
        first, second = networks.values()
        _start(job, first)
        lessons = [(setup.plans["first"].lesson, setup.plans["second"].lesson)]
        return CoLearning(first, second, lessons, CostSelector(job.surer))
    (student,), (plan,) = networks.values(), setup.plans.values()
    teacher = None
    if job.teacher_file is not None:
        teacher = load_teacher(job.teacher_file, student.spec, plan.features_only, plan.aligned).to(device)
    if student.spec.regions:
        return Staged(student, plan.lessons, teacher, plan.judges, job.judge_until)
    return Supervised(student, plan.lessons, teacher, plan.judge, job.judge_until)


def _pair(job: Job, first: DetectorSpec) -> Setup:
    """Two students: each other's teachers, and judged by whoever is surer, so that they pay LAD's losses."""
    assert job.second is not None
    second = detector_spec(job.second, first.classes, first.category_ids, first.imgsz, job.run.start)
    second = second.keeping(job.run.max_det)
    staged = [spec.name for spec in (first, second) if spec.regions]
    if staged:
        raise UserError(
            f"{staged[0]} works in stages, but whoever is surer can only be told of one; take two detectors of one "
            "stage, such as paa-r18 and paa-r50"
        )
    _check_start(job, first)
    found = differences(first, second)
    if found:
        said = "; ".join(found).replace("the teacher", second.name).replace("the student", first.name)
        raise UserError(f"{first.name} and {second.name} cannot learn from each other: {said}")
    words = [word for word in parts_of(job.method) if word != "plain"]
    unfit = [word for word in words if word in ("soft-only", "cross", *JUDGED)]
    if unfit:
        raise UserError(
            f"--method {job.method}: {unfit[0]} is not for two students that learn together; name what each imitates "
            f"of the other, such as soft or pkd, or leave --method out"
        )
    method, times = "+".join(["lad", *words]), _times(job)
    plans = {
        name: plan_of(method, own, other, job.assigner, times)
        for name, own, other in (("first", first, second), ("second", second, first))
    }
    for spec, plan in zip((first, second), plans.values(), strict=True):
        if not isinstance(plan.lesson.assign, EvidenceAssigner):
            raise UserError(
                f"{spec.name} assigns by {type(plan.lesson.assign).__name__}, but co-learning compares the costs "
                "behind an assignment, which PAA alone shows: take --assigner PAA"
            )
    return Setup({"first": first, "second": second}, plans)


def _check_start(job: Job, first: DetectorSpec) -> None:
    """Refuse first weights of another detector, or of other classes, than the first of two students."""
    if job.starts_from is None:
        return
    given, said = read_spec(Path(job.starts_from)), f"--first-weights {job.starts_from}"
    lacking = [name for name in first.classes if name not in given.classes]
    more = [name for name in given.classes if name not in first.classes]
    if lacking or more:
        what = (
            f"does not know {', '.join(map(repr, lacking))}" if lacking else f"also knows {', '.join(map(repr, more))}"
        )
        raise UserError(f"{said}: it {what}; expected a detector of exactly the classes of {job.data}")
    parts = [name for name, values in _makes(first, given).items() if values[0] != values[1]]
    if parts:
        raise UserError(
            f"{said}: expected a {first.name}, found a {given.name} with another {' and '.join(parts)}; "
            "name with --first, --norm and --neck-norm the detector that it is"
        )


def _makes(one: DetectorSpec, other: DetectorSpec) -> dict[str, tuple[object, object]]:
    """What decides of two detectors whether the weights of one are those of the other."""
    both = one, other
    a, b = (replace(spec.backbone, pretrained=False, weights=None) for spec in both)
    return {
        "family": (one.family, other.family),
        "backbone": (a, b),
        "neck": ((one.extra, one.neck_norm), (other.extra, other.neck_norm)),
        "head": ((one.head, one.regions), (other.head, other.regions)),
        "normalization of images": ((one.mean, one.std), (other.mean, other.std)),
    }


def _start(job: Job, first: Detector) -> None:
    """Give the first of two students all weights of the trained detector that it starts as, if it starts as one."""
    if job.starts_from is not None:
        first.load_state_dict(state_in_order(load_detector(job.starts_from), first.spec.classes))


def _read(file: str | None) -> DetectorSpec | None:
    return None if file is None else read_spec(Path(file))
