"""Train a detector, alone, with a teacher, or together with another."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal, NamedTuple

from ladle.engine import Balance
from ladle.errors import UserError
from ladle.recipes.console import say
from ladle.recipes.jobs import Job, file_hash, new_folder
from ladle.recipes.lineup import links_of
from ladle.recipes.methods import parts_of
from ladle.recipes.options import Run
from ladle.recipes.training import Trained, carry_out

__all__ = ["CoLearned", "Trained", "colearn", "distill", "train"]


def train(
    data: str | None = None,
    model: str = "paa-r18",
    run: Run = Run(),
    resume: str | None = None,
    assigner: str | None = None,
) -> Trained:
    """Train a detector on ground truth.

    Args:
        data: a folder in COCO, YOLO or Pascal VOC form, or ``scenes`` for the built-in ones.
        model: which detector, see ``ladle models``.
        run: how to train.
        resume: go on with this run folder, as it was begun; everything else is ignored.
        assigner: which prior learns which object, see ``ladle models``; by default the detector's own rule.
    """
    if resume is not None:
        return carry_out(Job.read(resume, "train"), resume=True)["student"]
    folder = new_folder(run, "train", model if assigner is None else f"{model}-{assigner}")
    return carry_out(Job("train", _given(data), model, folder, run, assigner=assigner))["student"]


def distill(
    data: str | None = None,
    student: str = "paa-r18",
    teacher: str | None = None,
    method: str = "lad",
    run: Run = Run(),
    allow_weak_teacher: bool = False,
    resume: str | None = None,
    assigner: str | None = None,
    assistants: str | None = None,
    weight: str | None = None,
    warm: str | None = None,
    until: str | None = None,
    keep_count: bool = True,
    class_power: float | None = None,
    judge_until: float | None = None,
    balance: Balance = "none",
    balance_share: float = 1.0,
) -> Trained:
    """Train a detector with a teacher.

    Args:
        data: a folder in COCO, YOLO or Pascal VOC form, or ``scenes`` for the built-in ones.
        student: which detector learns, see ``ladle models``.
        teacher: the weights of a trained detector, such as ``runs/train/NAME/weights/best.safetensors``.
        method: what the teacher does: ``lad`` (it assigns), ``solad`` (and gives soft labels), ``ld``, ``pkd`` and
            more, also several such as ``lad+ld+pkd``; see ``ladle models``.
        run: how to train.
        allow_weak_teacher: go on with a teacher that finds next to nothing.
        resume: go on with this run folder, as it was begun; everything else is ignored.
        assigner: which prior learns which object, see ``ladle models``; by default the student's own rule.
        assistants: detectors between teacher and student, each taught by the one before: ``r50,r34``.
        weight: of what is distilled: a number for all of it, or ``pkd=2,ld=0.5``.
        warm: epochs over which that weight rises from 0, in the same way.
        until: the epoch after which it is no longer distilled, in the same way.
        keep_count: where the teacher's boxes judge by overlap, give each object as many priors as without it; else its
            boxes are held against thresholds made for priors, as in the paper's plain form.
        class_power: power of the teacher's score for an object's class by which such overlaps are multiplied; by
            default 1 in region heads and 0 elsewhere.
        judge_until: the epoch after which the student judges itself; by default the teacher judges to the end.
        balance: whose gradient moves the backbone and the neck: by ``none`` the sum of detection's and the
            distillers', by ``moments`` each with optimizer moments of its own, by ``norm`` the sum with the distillers'
            scaled down to the norm of detection's.
        balance_share: how far the distillers may move them, for each unit that detection does.
    """
    if resume is not None:
        return _through_assistants(Job.read(resume, "distill"), resume=True)
    if parts_of(method) == ("plain",):
        raise UserError("--method plain has no teacher: use `ladle train`")
    if teacher is None:
        raise UserError("distilling needs a teacher: give --teacher runs/train/NAME/weights/best.safetensors")
    job = Job(
        verb="distill",
        data=_given(data),
        student=student,
        folder=new_folder(run, "distill", "-".join([student, *([assigner] if assigner else []), method])),
        run=run,
        method=method,
        assigner=assigner,
        teacher=teacher,
        teacher_sha256=file_hash(Path(teacher)),
        assistants=assistants,
        weight=weight,
        warm=warm,
        until=until,
        keep_count=keep_count,
        class_power=class_power,
        judge_until=judge_until,
        balance=balance,
        balance_share=balance_share,
        allow_weak_teacher=allow_weak_teacher,
    )
    return _through_assistants(job)


class CoLearned(NamedTuple):
    """What is left of the two students of a run."""

    first: Trained
    second: Trained


def colearn(
    data: str | None = None,
    first: str = "paa-r18",
    second: str = "paa-r50",
    run: Run = Run(),
    surer: Literal["spread", "fisher"] = "spread",
    method: str = "plain",
    weight: str | None = None,
    warm: str | None = None,
    until: str | None = None,
    resume: str | None = None,
    assigner: str | None = None,
    first_weights: str | None = None,
) -> CoLearned:
    """Train two detectors together, without a teacher: for each object and level the surer one assigns for both.

    Args:
        data: a folder in COCO, YOLO or Pascal VOC form, or ``scenes`` for the built-in ones.
        first: one detector, see ``ladle models``.
        second: the other, with the same strides and anchors; in the paper the larger one, which is kept.
        run: how to train.
        surer: who is surer: by the ``spread`` of the costs over their mean, or by ``fisher``'s score.
        method: what each also imitates of the other, such as ``soft`` or ``pkd``; nothing by default.
        weight: of what is imitated: a number for all of it, or ``pkd=2,soft=0.5``.
        warm: epochs over which that weight rises from 0, in the same way.
        until: the epoch after which it is no longer imitated, in the same way.
        resume: go on with this run folder, as it was begun; everything else is ignored.
        assigner: the rule of both, one that shows the costs behind it: ``PAA``; by default the detectors' own.
        first_weights: start the first detector as this whole trained one, such as
            ``runs/train/NAME/weights/best.safetensors``, with the same classes; the other starts as ever.
    """
    if resume is not None:
        return CoLearned(**carry_out(Job.read(resume, "colearn"), resume=True))
    job = Job(
        verb="colearn",
        data=_given(data),
        student=first,
        second=second,
        folder=new_folder(run, "colearn", f"{first}-{second}"),
        run=run,
        surer=surer,
        method=method,
        weight=weight,
        warm=warm,
        until=until,
        assigner=assigner,
        first_weights=first_weights,
        first_weights_sha256=file_hash(Path(first_weights), "first-weights") if first_weights is not None else None,
    )
    return CoLearned(**carry_out(job))


def _through_assistants(job: Job, resume: bool = False) -> Trained:
    """Carry out a distillation; before it, one for each assistant of the teacher, which then teaches the next."""
    names = links_of(job)
    if names:
        job.write()
    for number, name in enumerate(names, start=1):
        say(f"assistant {number} of {len(names)}: {name}", job.run.quiet)
        folder = str(Path(job.folder) / "assistants" / f"{number}-{name}")
        link = replace(job, student=name, folder=folder, assistants=None)
        if job.taught_by is not None:
            link = replace(link, teacher=job.taught_by, teacher_sha256=file_hash(Path(job.taught_by)), taught_by=None)
        assistant = carry_out(link, resume)["student"]
        job = replace(job, taught_by=str(assistant.weights))
    if names:
        say(f"the student: {job.student}", job.run.quiet)
    return carry_out(job, resume)["student"]


def _given(data: str | None) -> str:
    if data is None:
        raise UserError("there is nothing to train on: give --data FOLDER (COCO, YOLO or Pascal VOC), or --data scenes")
    return data
