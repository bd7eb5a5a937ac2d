"""Train a detector, alone or with a teacher."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

from ladle.errors import UserError
from ladle.recipes.jobs import Job, file_hash, new_folder
from ladle.recipes.methods import Distilled
from ladle.recipes.options import Run
from ladle.recipes.training import Trained, carry_out

__all__ = ["Trained", "distill", "train"]


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
        return carry_out(Job.read(resume, "train"), resume=True)
    folder = new_folder(run, "train", model if assigner is None else f"{model}-{assigner}")
    return carry_out(Job("train", _given(data), model, folder, run, assigner=assigner))


def distill(
    data: str | None = None,
    student: str = "paa-r18",
    teacher: str | None = None,
    method: Distilled = "lad",
    run: Run = Run(),
    allow_weak_teacher: bool = False,
    resume: str | None = None,
    assigner: str | None = None,
) -> Trained:
    """Train a detector with a teacher.

    Args:
        data: a folder in COCO, YOLO or Pascal VOC form, or ``scenes`` for the built-in ones.
        student: which detector learns, see ``ladle models``.
        teacher: the weights of a trained detector, such as ``runs/train/NAME/weights/best.safetensors``.
        method: ``lad`` (the teacher assigns), ``solad`` (and gives soft labels), ``soft`` (soft labels beside ground
            truth), ``soft-only``.
        run: how to train.
        allow_weak_teacher: go on with a teacher that finds next to nothing.
        resume: go on with this run folder, as it was begun; everything else is ignored.
        assigner: which prior learns which object, see ``ladle models``; by default the student's own rule.
    """
    if resume is not None:
        return carry_out(Job.read(resume, "distill"), resume=True)
    if teacher is None:
        raise UserError("distilling needs a teacher: give --teacher runs/train/NAME/weights/best.safetensors")
    if method not in get_args(Distilled):
        known = ", ".join(get_args(Distilled))
        raise UserError(f"no method is called {method!r}: take --method {known}")
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
        allow_weak_teacher=allow_weak_teacher,
    )
    return carry_out(job)


def _given(data: str | None) -> str:
    if data is None:
        raise UserError("there is nothing to train on: give --data FOLDER (COCO, YOLO or Pascal VOC), or --data scenes")
    return data
