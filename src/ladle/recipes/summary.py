"""The lines that a run prints before its first step: data, students, teacher, assigners, losses."""

from __future__ import annotations

import math
import shlex

from ladle.data.predicted import WithPredictions
from ladle.data.sources import DatasetSource
from ladle.detectors import DetectorSpec, read_spec
from ladle.families import network_info
from ladle.lessons import TeacherJudges
from ladle.methods import WORDS, Plan, Published
from ladle.methods.words import part_name, unscheduled
from ladle.names import readable
from ladle.networks import prior_mismatches
from ladle.objectives import stage_names
from ladle.recipes.devices import find_device
from ladle.recipes.jobs import Job
from ladle.recipes.opened import OpenedTeacher
from ladle.recipes.parts import ASSIGNER, Parts
from ladle.recipes.preflight import (
    MOVED,
    check_ap,
    check_strength,
    load_foreign,
    load_teacher,
    reads_otherwise,
    strength_in_words,
)
from ladle.recipes.prepared import Prepared
from ladle.recipes.recorded import recorded_note
from ladle.recipes.scoring import crowded
from ladle.teachers import DenseTeacher, MovedTeacher, TimmTeacher
from ladle.teachers.classes import listed
from ladle.values import first_sentence, text_of

__all__ = ["about_images", "about_lessons", "about_teacher", "once"]


def about_images(ready: Prepared) -> list[str]:
    """Lines about the data and the students."""
    job, classes = ready.job, len(ready.images.classes)
    val = ready.val
    full = crowded(val.dataset.images, job.run.max_det) if isinstance(val, DatasetSource) else None
    sizes = f"{len(ready.images)} images to train on, {len(ready.val)} to validate, {classes} classes"
    return [
        f"data      {job.data}: {sizes}",
        *([f"          {full}"] if full is not None else []),
        *(" " * 10 + line for line in ready.about_unlabelled),
        *(" " * 10 + line for line in ready.notes),
        *([f"          `ladle check {shlex.quote(job.data)}` lists everything"] if ready.notes else []),
        *(f"{name:<9} {_description(spec, ready.resumed, name, job)}" for name, spec in ready.setup.specs.items()),
        *(" " * 10 + line for line in _about_classes(ready)),
    ]


def _description(spec: DetectorSpec, resumed: bool, student: str, job: Job) -> str:
    origin = "random weights" if spec.backbone.from_scratch else spec.backbone.weights or "its hub's weights"
    begun = f"{spec.name} at {spec.imgsz} px"
    if job.initial is not None and student != "second" and not resumed:
        return f"{begun}, from {job.student} ({spec.backbone.norm} normalization)"
    if resumed:
        origin = "resume.pt"
    return f"{begun}, backbone from {origin} ({spec.backbone.norm} normalization)"


def _about_classes(ready: Prepared) -> list[str]:
    """Which classes of the data and of a trained detector that the student starts from are known to one alone."""
    file, known = ready.job.initial, ready.images.classes
    if file is None or ready.resumed:
        return []
    given = read_spec(file).classes
    new, left = ([name for name in some if name not in others] for some, others in ((known, given), (given, known)))
    return [
        *([f"classes it does not know, whose scores start at random: {listed(readable(new))}"] if new else []),
        *(
            [f"classes it knows that the data do not have, which are left out: {listed(readable(left))}"]
            if left
            else []
        ),
    ]


def about_teacher(ready: Prepared) -> list[str]:
    """Load, check and evaluate the teacher before the first step; returns lines about it."""
    job, file = ready.job, ready.job.teacher_file
    if ready.parts.teacher is not None:
        return [f"teacher   {ready.parts.teacher.info.name}, given in Python and not evaluated"]
    if job.teacher_of_student is not None:
        return [f"teacher   {_OF_STUDENT[job.teacher_of_student.kind]} ({job.teacher})"]
    if ready.parts.foreign is not None:
        return _about_foreign(ready, ready.parts.foreign)
    if file is None:
        return []
    spec, plan = ready.setup.specs["student"], ready.setup.plans["student"]
    device = find_device(job.run.device)
    loaded = load_teacher(file, spec, plan).to(device)
    teacher = loaded.frozen.detector if isinstance(loaded, MovedTeacher) else loaded.detector
    if plan.features_only and not set(spec.classes) <= set(teacher.spec.classes):
        return [
            f"teacher   {teacher.spec.name}, not evaluated: it has other classes, only its features are used ({file})"
        ]
    ap = check_strength(file, teacher, ready.val, spec.imgsz, job.run.batch_size, device, job.allow_weak_teacher)
    return [
        f"teacher   {teacher.spec.name}, {strength_in_words(ap)} ({file})",
        *([f"          {_moved(teacher.spec, spec)}"] if plan.moved else []),
        *reads_otherwise(ready.images, teacher.spec),
    ]


_OF_STUDENT = {
    "ema": "the running average of the student, which has its initial weights",
    "auxiliary": "a heavier head on the student's feature maps, which is trained with it and not saved",
}
"""Teachers that are made of the student, in words."""


def _about_foreign(ready: Prepared, opened: OpenedTeacher) -> list[str]:
    """Evaluate a foreign teacher; returns lines about it."""
    job, spec, device = ready.job, ready.setup.specs["student"], find_device(ready.job.run.device)
    text, teacher = opened.text, load_foreign(opened, ready.setup.plans["student"]).to(device)
    if isinstance(teacher, TimmTeacher):
        first = f"teacher   {teacher.info.name}, not evaluated: it gives feature maps only ({text})"
        return [first, *(f"          {line}" for line in teacher.about)]
    if isinstance(teacher, DenseTeacher):
        return _about_dense(teacher, text, job.allow_weak_teacher)
    recorded = isinstance(ready.views, WithPredictions)
    images, split = (ready.images, "training") if recorded else (ready.val, "validation")
    weak, other = job.allow_weak_teacher, ready.views if recorded else None
    ap = check_strength(text, teacher, images, spec.imgsz, job.run.batch_size, device, weak, other)
    notes = [recorded_note(ready.views)] if recorded else []
    lines = (*teacher.detector.about, *notes, teacher.table.summary(), MOVED)
    return [
        f"teacher   {teacher.info.name}, {strength_in_words(ap, split)} ({text})",
        *(f"          {line}" for line in lines),
    ]


def _about_dense(teacher: DenseTeacher, text: str, allow_weak: bool) -> list[str]:
    """Lines about recorded dense predictions, whose teacher was evaluated when they were recorded."""
    ap = teacher.header.ap if teacher.header.ap is not None else math.nan
    check_ap(text, ap, "a sample of the validation images", allow_weak)
    lines = (*teacher.about, teacher.table.summary(), *([MOVED] if teacher.moved else []))
    return [
        f"teacher   {teacher.header.name}, {strength_in_words(ap)} when it was recorded ({text})",
        *(f"          {line}" for line in lines),
    ]


def _moved(teacher: DetectorSpec, student: DetectorSpec) -> str:
    """Why and how the predictions of a teacher are moved."""
    found = "; ".join(prior_mismatches(network_info(student), network_info(teacher)))
    return f"{found}: {MOVED}"


def about_lessons(ready: Prepared) -> list[str]:
    """Lines about the assigners, the judge, the distilled terms, and what is left out and why."""
    job = ready.job
    lines = once([f"method    {line}" for line in _method_in_words(job, ready.parts)])
    judge = f", judged by the more certain of the two ({job.surer})" if job.verb == "colearn" else None
    for name, plan in ready.setup.plans.items():
        if name != "second":
            lines += once([f"assigner  {line}" for line in _assigners(plan, job.assigner is not None, judge)])
        if name != "second" and job.criterion is not None:
            lines.append(f"criterion {job.criterion}")
        prefix = f"{name}/" if job.verb == "colearn" else ""
        lines += once([f"teaches   {prefix}{term}: {what}" for term, what in plan.teaches.items()])
        lines += once([f"skipped   {prefix}{reason}" for reason in plan.skipped])
    lines += [_BALANCE[job.balance].format(share=job.balance_share)] if job.balance != "none" else []
    if ready.setup.weighed:
        lines.append(_WEIGHED.format(terms=", ".join(ready.setup.weighed), share=job.balance_share))
    lines.append(f"run       {job.folder}: {job.run.epochs} epochs, batch {job.run.batch}, seed {job.run.seed}")
    return [line for line in lines if line]


def _method_in_words(job: Job, parts: Parts) -> list[str]:
    """A line for each part of a method."""
    if job.method in WORDS:
        return [] if job.verb == "colearn" and job.method == "plain" else [f"{job.method}: {WORDS[job.method].meaning}"]
    lines = []
    for part in parts.method.parts:
        meaning = WORDS[part.word].meaning if isinstance(part, Published) else first_sentence(type(unscheduled(part)))
        lines.append(f"{part_name(part)}: {meaning}")
    return lines


_WEIGHED = (
    "weight    of {terms}: the norm of their gradient in backbone and neck is {share:g} of that of all other losses"
)
_BALANCE = {
    "moments": "balance   backbone and neck: distillation has separate optimizer moments and {share:g} of a step",
    "norm": "balance   backbone and neck: the gradient of distillation is at most {share:g} of detection's",
}


def _assigners(plan: Plan, asked: bool, judge: str | None) -> list[str]:
    """The assigner and the judge of each stage; the first assigner with fields if it was ``asked`` for by a flag."""
    names = [type(lesson.assigner).__name__ for lesson in plan.lessons]
    if asked:
        names[0] = text_of(ASSIGNER, plan.lessons[0].assigner)
    judges = [judge or _judged(lesson.judge) for lesson in plan.lessons]
    stages = [f"{stage}: " if stage else "" for stage in stage_names(len(plan.lessons))]
    lines = [f"{stage}{name}{judged}" for stage, name, judged in zip(stages, names, judges, strict=True)]
    beside = [lesson.one_to_one for lesson in plan.lessons if lesson.one_to_one is not None]
    return lines + [f"one_to_one: {text_of(ASSIGNER, one.lesson.assigner)}" for one in beside]


def _judged(judge: TeacherJudges | None) -> str:
    """Whether the teacher judges, and in which epochs if not in all."""
    if judge is None:
        return ""
    after = f" after epoch {judge.after:g}" if judge.after else ""
    until = f" until epoch {judge.until:g}" if judge.until is not None else ""
    return f", judged by the teacher{after}{until}"


def once(lines: list[str]) -> list[str]:
    """Remove a repeated first word from all lines but the first."""
    return [*lines[:1], *(" " * 10 + line[10:] for line in lines[1:])]
