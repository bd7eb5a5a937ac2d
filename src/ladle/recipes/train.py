"""Train a detector, alone or with a teacher."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from ladle.data.loader import make_loader
from ladle.data.sources import CatalogueSource, Source
from ladle.detectors import Detector, DetectorSpec, detector_spec, load_detector, save_detector
from ladle.engine import Result, fit, launch
from ladle.errors import UserError
from ladle.evaluation import Evaluation
from ladle.objectives import Supervised
from ladle.recipes.console import say, table
from ladle.recipes.jobs import Job, file_hash, new_folder
from ladle.recipes.methods import METHODS, Method, plan_of
from ladle.recipes.options import Run
from ladle.recipes.preflight import check_strength, hire
from ladle.recipes.scoring import Examiner
from ladle.recipes.sources import open_source
from ladle.visual import draw_history

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["Trained", "distill", "train"]


@dataclass(frozen=True)
class Trained:
    """What a run left behind: its folder, the weights of the best epoch, how good they are, the training time."""

    folder: Path
    weights: Path
    evaluation: Evaluation
    seconds: float


def train(data: str | None = None, model: str = "paa-r18", run: Run = Run(), resume: str | None = None) -> Trained:
    """Train a detector on ground truth.

    Args:
        data: a folder in COCO, YOLO or Pascal VOC form, or ``scenes`` for the built-in ones.
        model: which detector, see ``ladle models``.
        run: how to train.
        resume: go on with this run folder, as it was begun; everything else is ignored.
    """
    if resume is not None:
        return _carry_out(Job.read(resume, "train"), resume=True)
    return _carry_out(Job("train", _given(data), model, new_folder(run, "train", model), run))


def distill(
    data: str | None = None,
    student: str = "paa-r18",
    teacher: str | None = None,
    method: Method = "lad",
    run: Run = Run(),
    allow_weak_teacher: bool = False,
    resume: str | None = None,
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
    """
    if resume is not None:
        return _carry_out(Job.read(resume, "distill"), resume=True)
    if teacher is None:
        raise UserError("distilling needs a teacher: give --teacher runs/train/NAME/weights/best.safetensors")
    if method not in METHODS or method == "plain":
        raise UserError(f"no method is called {method!r}: take --method {', '.join(m for m in METHODS if m != 'plain')}")
    folder = new_folder(run, "distill", f"{student}-{method}")
    job = Job("distill", _given(data), student, folder, run, method, teacher, file_hash(Path(teacher)), allow_weak_teacher)
    return _carry_out(job)


def _given(data: str | None) -> str:
    if data is None:
        raise UserError("there is nothing to train on: give --data FOLDER (COCO, YOLO or Pascal VOC), or --data scenes")
    return data


def _carry_out(job: Job, resume: bool = False) -> Trained:
    """Check everything, say what will be done, do it, and judge the best weights."""
    spec = _student_spec(job)
    imgsz, quiet = spec.imgsz, job.run.quiet
    pictures, val = open_source(job.data, "train", job.run, imgsz), open_source(job.data, "val", job.run, imgsz)
    for line in (*_about(job, spec, pictures, val), *_about_teacher(job, spec, val)):
        say(line, quiet)
    job.write()

    result: Result = launch(job.run.devices, job.run.device, _work, job, resume)
    folder = Path(job.folder)
    weights = folder / "weights" / "best.safetensors"
    examiner = Examiner(val, imgsz, job.run.batch, _workers(job.run))
    score = examiner(load_detector(weights).to(_device(job.run)))
    draw_history([_in_percent(row) for row in result.rows], folder / "plots" / "history.png")
    examiner.draw(score, folder / "plots")
    say(table(f"{folder}: best of {job.run.epochs} epochs", [score.evaluation.row()]), quiet)
    return Trained(folder, weights, score.evaluation, result.seconds)


def _work(fabric: Fabric, job: Job, resume: bool) -> Result:
    """The part that runs on every device."""
    run, spec = job.run, _student_spec(job)
    source = open_source(job.data, "train", run, spec.imgsz)
    loader = make_loader(
        source,
        run.batch,
        spec.imgsz,
        run.augmentation,
        seed=run.seed,
        workers=_workers(run),
        shuffle=True,
        multiscale=run.scales(spec.imgsz),
        rank=fabric.global_rank,
        world=fabric.world_size,
        drop_last=True,
    )
    torch.manual_seed(run.seed)
    objective = _objective(job, spec.build())
    if objective.teacher is not None:
        objective.teacher.to(fabric.device)
    val = open_source(job.data, "val", run, spec.imgsz)
    examine = Examiner(val, spec.imgsz, run.batch, _workers(run))
    return fit(
        fabric, objective, loader, run.settings(), Path(job.folder), partial(_metrics, examine), _save, resume=resume
    )


def _objective(job: Job, student: Detector) -> Supervised:
    if job.teacher is None:
        return Supervised(student, [plan_of("plain", student.spec.family).lesson])
    teacher = hire(job.teacher, student.spec)
    plan = plan_of(job.method, student.spec.family, teacher.detector.spec.family)
    return Supervised(student, [plan.lesson], teacher, plan.judge)


def _student_spec(job: Job) -> DetectorSpec:
    named = detector_spec(job.student, (), imgsz=job.run.imgsz, start=job.run.start)
    source = open_source(job.data, "train", job.run, named.imgsz)
    return detector_spec(job.student, source.classes, source.category_ids, named.imgsz, job.run.start)


def _metrics(examine: Examiner, network: nn.Module) -> dict[str, float]:
    assert isinstance(network, Detector)
    numbers = asdict(examine(network).evaluation)
    del numbers["per_class"]
    return numbers


def _save(network: nn.Module, path: Path) -> None:
    assert isinstance(network, Detector)
    save_detector(network, path)


def _about(job: Job, spec: DetectorSpec, pictures: Source, val: Source) -> list[str]:
    start = "from random weights" if spec.backbone.from_scratch else f"from {spec.backbone.weights or 'its hub weights'}"
    lines = [
        f"data      {job.data}: {len(pictures)} pictures to train on, {len(val)} to validate, {len(spec.classes)} classes",
        f"student   {spec.name} at {spec.imgsz} px, backbone {start} ({spec.backbone.norm} normalisation)",
        f"method    {job.method}: {METHODS[job.method]}",
        f"run       {job.folder}: {job.run.epochs} epochs, batch {job.run.batch}, seed {job.run.seed}",
    ]
    for source in (pictures, val):
        if isinstance(source, CatalogueSource) and source.catalogue.defects:
            lines.insert(1, f"          {source.catalogue.summary()} (`ladle check {job.data}` lists them)")
    return lines


def _about_teacher(job: Job, spec: DetectorSpec, val: Source) -> list[str]:
    """Hire the teacher and try it; everything that could be wrong with it is found here, before the first step."""
    if job.teacher is None:
        return []
    teacher = hire(job.teacher, spec)
    family = teacher.detector.spec.family
    plan = plan_of(job.method, spec.family, family)
    teacher.to(_device(job.run))
    ap = check_strength(job.teacher, teacher.detector, val, spec.imgsz, job.run.batch, job.allow_weak_teacher)
    strength = "unknown AP: the validation pictures hold no object" if math.isnan(ap) else f"{100 * ap:.1f} AP"
    return [
        f"teacher   {teacher.detector.spec.name}, {strength} on a sample of the validation pictures ({job.teacher})",
        *(f"skipped   {reason}" for reason in plan.skipped),
    ]


def _workers(run: Run) -> int:
    if run.workers is not None:
        return run.workers
    return 8 if _device(run) != "cpu" else 0


def _device(run: Run) -> str:
    available = "cuda" if torch.cuda.is_available() else "cpu"
    return available if run.device == "auto" else run.device


def _in_percent(row: dict[str, float | int]) -> dict[str, float | int]:
    return {name.replace("ap", "AP", 1): 100 * v if name.startswith("ap") else v for name, v in row.items()}
