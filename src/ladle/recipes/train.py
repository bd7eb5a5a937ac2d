"""Train a detector without a teacher, with a teacher, or together with another detector."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from inspect import signature
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from ladle.assigners import Assigner
from ladle.data.sources import Splits
from ladle.detectors import DetectorSpec
from ladle.distillers import Joinable, Method
from ladle.engine import Balance
from ladle.errors import UserError
from ladle.files import path_as_text
from ladle.lessons import Criterion
from ladle.limits import Range, verify_arguments
from ladle.recipes.jobs import Job, text_of_number
from ladle.recipes.nodes import on_all_nodes
from ladle.recipes.options import Run
from ladle.recipes.origins import file_hash
from ladle.recipes.parts import (
    ASSIGNER,
    CRITERION,
    given_parts,
    name_of_student,
    parts_of,
    text_of_method,
    text_of_object,
    text_of_part,
)
from ladle.recipes.runs import new_run, resume_run, run_chain
from ladle.recipes.training import Trained, run_training
from ladle.teachers import Teacher
from ladle.teachers.uri import with_class_map

__all__ = ["CoLearned", "Trained", "colearn", "distill", "train"]


@on_all_nodes
def train(
    data: str | Path | Splits | None = None,
    model: str | Path | DetectorSpec = "paa-r18",
    run: Run = Run(),
    resume: str | Path | None = None,
    assigner: str | Assigner | None = None,
    criterion: str | Criterion | None = None,
) -> Trained:
    """Train a detector on ground truth.

    Args:
        data: a folder in COCO, YOLO or Pascal VOC format, or ``scenes`` for the built-in ones; in Python also
            :class:`ladle.data.Splits`.
        model: which detector, see ``ladle models``, or the weights of a trained one to start from, such as
            ``runs/train/NAME/weights/best.safetensors``, whose classes may be others; in Python also a spec.
        run: how to train.
        resume: resume this run folder with its flags; ``epochs`` and a few others may be changed, see the docs.
        assigner: which prior learns which object: an assigner, or text such as ``PAA``, ``PAA(topk=13)`` or
            ``mymodule:Mine``, see ``ladle models``; by default that of the detector.
        criterion: the losses: a criterion, or text such as ``DenseCriterion(box_weight=3.0)`` or ``mymodule:Mine``; by
            default that of the detector.
    """
    data, model, resume = path_as_text(data), path_as_text(model), path_as_text(resume)
    parts = given_parts(data=data, student=model, assigner=assigner, criterion=criterion)
    job = Job("train", text_of_object(data or ""), text_of_object(model), run=run)
    job = _with_texts(job, assigner, criterion)
    if resume is not None:
        return resume_run("train", resume, _asked(job, train), parts)["student"]
    parts = parts_of(job, parts)
    with new_run(job, "-".join(filter(None, [name_of_student(job, parts), job.assigner]))) as job:
        return run_training(job, parts)["student"]


@on_all_nodes
def distill(
    data: str | Path | Splits | None = None,
    student: str | Path | DetectorSpec = "paa-r18",
    teacher: str | Path | Teacher | None = None,
    method: str | Method | Joinable = "lad",
    run: Run = Run(),
    allow_weak_teacher: bool = False,
    resume: str | Path | None = None,
    assigner: str | Assigner | None = None,
    criterion: str | Criterion | None = None,
    assistants: str | None = None,
    weight: str | float | None = None,
    warm: str | float | None = None,
    until: str | float | None = None,
    keep_count: bool = True,
    class_power: Annotated[float, Range(0, 100)] | None = None,
    judge_until: Annotated[float, Range(0)] | None = None,
    judge_after: Annotated[float, Range(0)] = 0.0,
    balance: Balance = "none",
    balance_share: Annotated[float, Range(0, above=True)] = 1.0,
    class_map: str | Path | None = None,
    unlabelled: str | Path | None = None,
    unlabelled_score: str | float | None = None,
) -> Trained:
    """Train a detector with a teacher.

    Args:
        data: a folder in COCO, YOLO or Pascal VOC format, or ``scenes`` for the built-in ones; in Python also
            :class:`ladle.data.Splits`.
        student: the detector to train, see ``ladle models``, or the weights of a trained one to start from; in Python
            also a spec.
        teacher: the weights of a trained detector, such as ``runs/train/NAME/weights/best.safetensors``, or a detector
            of any origin, such as ``onnx:file.onnx``; or none at all: ``ema`` is the running average of the student,
            ``auxiliary`` a heavier head on its feature maps; in Python also any :class:`ladle.teachers.Teacher`.
        method: ``lad`` (the teacher judges), ``solad`` (also soft labels), ``ld``, ``pkd`` and
            more, also several such as ``lad+ld+pkd``; see ``ladle models``. Parts may have fields, ``pkd(weight=2.0)``,
            and be a custom distiller, ``lad+mymodule:Mine``; in Python also a sum such as ``LAD() + PKD()``.
        run: how to train.
        allow_weak_teacher: accept a teacher below 1 AP.
        resume: resume this run folder with its flags; ``epochs`` and a few others may be changed, see the docs.
        assigner: which prior learns which object: an assigner, or text such as ``PAA``, ``PAA(topk=13)`` or
            ``mymodule:Mine``, see ``ladle models``; by default that of the student.
        criterion: the losses: a criterion, or text such as ``DenseCriterion(box_weight=3.0)`` or ``mymodule:Mine``; by
            default that of the student.
        assistants: detectors between teacher and student, each trained with the previous one as teacher: ``r50,r34``.
        weight: loss weight of the distillers: one number for all, or ``pkd=2,ld=0.5``; ``auto`` or ``pkd=auto`` follows
            the ratio of gradient norms.
        warm: epochs over which this weight rises from 0, given in the same way.
        until: last epoch of a distiller, given in the same way.
        keep_count: if the teacher's boxes replace the priors, give each object as many priors as without it; else
            their overlaps are compared with thresholds made for priors, as in the paper's basic version.
        class_power: power of the teacher's score for an object's class by which such overlaps are multiplied; by
            default 1 in region heads and 0 elsewhere.
        judge_until: the epoch after which the student judges; by default the teacher judges to the end.
        judge_after: epochs in which the student judges before the teacher does.
        balance: how the gradients of detection and distillation are combined in the backbone and the neck: ``none``
            adds them, ``moments`` uses separate optimizer moments, ``norm`` first scales the distillation gradient
            down to the norm of the detection gradient.
        balance_share: largest update by distillation, relative to that by detection; with ``weight="auto"`` the ratio
            of their gradient norms.
        class_map: a YAML file of pairs of classes, the student's and those of a teacher of another origin.
        unlabelled: a folder of further training images without labels; the teacher's boxes of high scores are their
            objects.
        unlabelled_score: the least score of these boxes: one number for all classes, or ``cat=0.4,dog=0.6``; by default
            for each class that with the highest F1 on the labeled images.
    """
    data, student, teacher = path_as_text(data), path_as_text(student), path_as_text(teacher)
    resume, class_map, unlabelled = path_as_text(resume), path_as_text(class_map), path_as_text(unlabelled)
    verify_arguments(
        distill,
        allow_weak_teacher=allow_weak_teacher,
        assistants=assistants,
        weight=weight,
        warm=warm,
        until=until,
        keep_count=keep_count,
        class_power=class_power,
        judge_until=judge_until,
        judge_after=judge_after,
        balance=balance,
        balance_share=balance_share,
        class_map=class_map,
        unlabelled=unlabelled,
        unlabelled_score=unlabelled_score,
    )
    if class_map is not None and resume is None:
        teacher = _mapped(teacher, class_map)
    parts = given_parts(
        data=data, student=student, teacher=teacher, method=method, assigner=assigner, criterion=criterion
    )
    job = Job(
        verb="distill",
        data=text_of_object(data or ""),
        student=text_of_object(student),
        run=run,
        method=method if isinstance(method, str) else text_of_method(parts.method),
        teacher=None if teacher is None else text_of_object(teacher),
        assistants=assistants,
        weight=text_of_number(weight),
        warm=text_of_number(warm),
        until=text_of_number(until),
        keep_count=keep_count,
        class_power=class_power,
        judge_until=judge_until,
        judge_after=judge_after,
        balance=balance,
        balance_share=balance_share,
        allow_weak_teacher=allow_weak_teacher,
        unlabelled=unlabelled,
        unlabelled_score=text_of_number(unlabelled_score),
    )
    job = _with_texts(job, assigner, criterion)
    if resume is not None:
        mapped = {} if class_map is None else {"class_map": class_map}
        return resume_run("distill", resume, _asked(job, distill) | mapped, parts)["student"]
    if job.method == "plain":
        raise UserError("--method plain has no teacher: use `ladle train`")
    parts = parts_of(job, parts)
    if job.teacher is None:
        raise UserError("distillation needs a teacher: give --teacher runs/train/NAME/weights/best.safetensors")
    if parts.teacher is None:
        job = job.with_teacher()
    with new_run(job, "-".join(filter(None, [name_of_student(job, parts), job.assigner, job.method]))) as job:
        return run_chain(job, parts)["student"]


def _mapped(teacher: str | Teacher | None, class_map: str) -> str:
    """The text of a teacher with a map of classes."""
    if not isinstance(teacher, str):
        given = "none" if teacher is None else "one that is given in Python, with its classes"
        raise UserError(f"--class-map {class_map}: expected a --teacher such as onnx:file.onnx, found {given}")
    return with_class_map(teacher, class_map)


class CoLearned(NamedTuple):
    """The results of the two students of a run."""

    first: Trained
    second: Trained


@on_all_nodes
def colearn(
    data: str | Path | Splits | None = None,
    first: str | Path = "paa-r18",
    second: str = "paa-r50",
    run: Run = Run(),
    surer: Literal["spread", "fisher"] = "spread",
    method: str | Method | Joinable = "plain",
    weight: str | float | None = None,
    warm: str | float | None = None,
    until: str | float | None = None,
    resume: str | Path | None = None,
    assigner: str | Assigner | None = None,
    criterion: str | Criterion | None = None,
    first_weights: str | Path | None = None,
) -> CoLearned:
    """Train two detectors together, without a teacher: for each object and level the more certain one judges for both.

    Args:
        data: a folder in COCO, YOLO or Pascal VOC format, or ``scenes`` for the built-in ones; in Python also
            :class:`ladle.data.Splits`.
        first: one detector, see ``ladle models``, or the weights of a trained one to start from.
        second: the other, with the same strides and anchors; in the paper the larger one, which is used afterwards.
        run: how to train.
        surer: which of the two is more certain: by the ``spread`` of the costs over their mean, or by ``fisher``'s
            score.
        method: additional distillation in both directions, such as ``soft`` or ``pkd``; none by default.
        weight: loss weight of the distillers: one number for all, or ``pkd=2,soft=0.5``.
        warm: epochs over which this weight rises from 0, given in the same way.
        until: last epoch of a distiller, given in the same way.
        resume: resume this run folder with its flags; ``epochs`` and a few others may be changed, see the docs.
        assigner: the assigner of both, which must return its costs: ``PAA``; by default those of the detectors.
        criterion: the losses of both; by default those of the detectors.
        first_weights: initialize the first detector from the weights of this trained one, such as
            ``runs/train/NAME/weights/best.safetensors``, with the same classes.
    """
    data, first, resume = path_as_text(data), path_as_text(first), path_as_text(resume)
    first_weights = path_as_text(first_weights)
    verify_arguments(
        colearn,
        first=first,
        second=second,
        surer=surer,
        weight=weight,
        warm=warm,
        until=until,
        first_weights=first_weights,
    )
    parts = given_parts(data=data, method=method, assigner=assigner, criterion=criterion)
    job = Job(
        verb="colearn",
        data=text_of_object(data or ""),
        student=first,
        second=second,
        run=run,
        surer=surer,
        method=method if isinstance(method, str) else text_of_method(parts.method),
        weight=text_of_number(weight),
        warm=text_of_number(warm),
        until=text_of_number(until),
        first_weights=first_weights,
        first_weights_sha256=file_hash(Path(first_weights), "first-weights") if first_weights is not None else None,
    )
    job = _with_texts(job, assigner, criterion)
    if resume is not None:
        return CoLearned(**resume_run("colearn", resume, _asked(job, colearn), parts))
    parts = parts_of(job, parts)
    with new_run(job, f"{name_of_student(job, parts)}-{second}") as job:
        return CoLearned(**run_training(job, parts))


def _with_texts(job: Job, assigner: object, criterion: object) -> Job:
    """The job with the texts of its assigner and its criterion."""
    return replace(job, assigner=text_of_part(ASSIGNER, assigner), criterion=text_of_part(CRITERION, criterion))


def _asked(job: Job, recipe: Callable[..., Any]) -> dict[str, Any]:
    """The flags of a job that differ from the recipe's defaults, and the number of nodes."""
    defaults = {name: one.default for name, one in signature(recipe).parameters.items()} | asdict(Run())
    asked = {name: value for name, value in job.flags.items() if value != defaults[name]}
    asked["nodes"] = job.run.nodes  # which is the number of commands, whatever the run had before
    return asked if job.data else {name: value for name, value in asked.items() if name != "data"}
