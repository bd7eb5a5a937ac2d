"""Carry out a training job: check everything, say what will be done, do it, judge the best weights."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import nn

from ladle.data.loader import Loader, make_loader
from ladle.data.sources import CatalogueSource, Source
from ladle.detectors import Detector, DetectorSpec, detector_spec, load_detector, save_detector
from ladle.evaluation import Evaluation
from ladle.objectives import Supervised
from ladle.recipes.console import say, table
from ladle.recipes.devices import find_device
from ladle.recipes.jobs import Job
from ladle.recipes.lessons import lesson_of
from ladle.recipes.methods import METHODS, plan_of
from ladle.recipes.options import Run
from ladle.recipes.preflight import check_strength, hire
from ladle.recipes.scoring import Examiner
from ladle.recipes.sources import open_source
from ladle.visual import draw_history

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from ladle.engine import Result

__all__ = ["Trained", "carry_out"]


@dataclass(frozen=True)
class Trained:
    """What a run left behind: its folder, the weights of the best epoch, how good they are, the training time."""

    folder: Path
    weights: Path
    evaluation: Evaluation
    seconds: float


class _Prepared(NamedTuple):
    """A job with its pictures opened, its student described, and both tried: what is wrong with them shows here."""

    job: Job
    spec: DetectorSpec
    pictures: Source
    val: Source

    def examiner(self) -> Examiner:
        run = self.job.run
        return Examiner(self.val, self.spec.imgsz, run.batch, _workers(run))


def carry_out(job: Job, resume: bool = False) -> Trained:
    """Do a job from its first check to its last picture; with ``resume`` after the last epoch it finished."""
    from ladle.engine import launch

    ready = _prepare(job)
    for line in (*_about(ready), *_about_teacher(ready)):
        say(line, job.run.quiet)
    # A run that was stopped in its first epoch has nothing to go on from: it begins again.
    resume = resume and (Path(job.folder) / "resume.pt").exists()
    job.write()

    result: Result = launch(job.run.devices, job.run.device, _work, ready, resume)
    folder = Path(job.folder)
    weights = folder / "weights" / "best.safetensors"
    examiner = ready.examiner()
    score = examiner(load_detector(weights).to(find_device(job.run.device)))
    draw_history([_in_percent(row) for row in result.rows], folder / "plots" / "history.png")
    examiner.draw(score, folder / "plots")
    say(table(f"{folder}, epoch {result.best_epoch['student']} of {job.run.epochs}", [score.evaluation.row()]), job.run.quiet)
    return Trained(folder, weights, score.evaluation, result.seconds)


def _prepare(job: Job) -> _Prepared:
    described = detector_spec(job.student, (), imgsz=job.run.imgsz)
    pictures, val = (open_source(job.data, split, job.run, described.imgsz) for split in ("train", "val"))
    spec = detector_spec(job.student, pictures.classes, pictures.category_ids, described.imgsz, job.run.start)
    spec.build()
    lesson_of(spec.family, job.assigner)
    ready = _Prepared(job, spec, pictures, val)
    _loader(ready, rank=0, world=job.run.devices)
    return ready


def _work(fabric: Fabric, ready: _Prepared, resume: bool) -> Result:
    """The part that runs on every device."""
    from ladle.engine import fit

    run = ready.job.run
    torch.manual_seed(run.seed)
    objective = _objective(ready.job, ready.spec.build())
    if objective.teacher is not None:
        objective.teacher.to(fabric.device)
    loader = _loader(ready, fabric.global_rank, fabric.world_size)
    evaluate = partial(_metrics, ready.examiner())
    return fit(fabric, objective, loader, run.settings(), Path(ready.job.folder), evaluate, _save, resume)


def _loader(ready: _Prepared, rank: int, world: int) -> Loader:
    run, imgsz = ready.job.run, ready.spec.imgsz
    return make_loader(
        ready.pictures,
        run.batch,
        imgsz,
        run.augmentation,
        seed=run.seed,
        workers=_workers(run),
        shuffle=True,
        multiscale=run.scales(imgsz),
        rank=rank,
        world=world,
        drop_last=True,
    )


def _objective(job: Job, student: Detector) -> Supervised:
    if job.teacher is None:
        return Supervised(student, [plan_of("plain", student.spec, assigner=job.assigner).lesson])
    teacher = hire(job.teacher, student.spec)
    plan = plan_of(job.method, student.spec, teacher.detector.spec, job.assigner)
    return Supervised(student, [plan.lesson], teacher, plan.judge)


def _metrics(examine: Examiner, network: nn.Module) -> dict[str, float]:
    assert isinstance(network, Detector)
    numbers = asdict(examine(network).evaluation)
    del numbers["per_class"]
    return numbers


def _save(network: nn.Module, path: Path) -> None:
    assert isinstance(network, Detector)
    save_detector(network, path)


def _about(ready: _Prepared) -> list[str]:
    job, spec = ready.job, ready.spec
    origin = "random weights" if spec.backbone.from_scratch else spec.backbone.weights or "its hub's weights"
    repaired = [
        f"          {source.catalogue.summary()} (`ladle check {job.data}` lists everything)"
        for source in (ready.pictures, ready.val)
        if isinstance(source, CatalogueSource) and source.catalogue.defects
    ]
    judge = ", judged by the teacher" if job.method in ("lad", "solad") else ""
    sizes = f"{len(ready.pictures)} pictures to train on, {len(ready.val)} to validate, {len(spec.classes)} classes"
    return [
        f"data      {job.data}: {sizes}",
        *repaired,
        f"student   {spec.name} at {spec.imgsz} px, backbone from {origin} ({spec.backbone.norm} normalisation)",
        f"method    {job.method}: {METHODS[job.method]}",
        f"assigner  {type(lesson_of(spec.family, job.assigner).assign).__name__}{judge}",
        f"run       {job.folder}: {job.run.epochs} epochs, batch {job.run.batch}, seed {job.run.seed}",
    ]


def _about_teacher(ready: _Prepared) -> list[str]:
    """Hire the teacher and try it; everything that could be wrong with it is found here, before the first step."""
    job, spec = ready.job, ready.spec
    if job.teacher is None:
        return []
    teacher = hire(job.teacher, spec).to(find_device(job.run.device)).detector
    plan = plan_of(job.method, spec, teacher.spec, job.assigner)
    ap = check_strength(job.teacher, teacher, ready.val, spec.imgsz, job.run.batch, job.allow_weak_teacher)
    strength = "unknown AP: the validation pictures hold no object" if math.isnan(ap) else f"{100 * ap:.1f} AP"
    return [
        f"teacher   {teacher.spec.name}, {strength} on a sample of the validation pictures ({job.teacher})",
        *(f"skipped   {reason}" for reason in plan.skipped),
    ]


def _workers(run: Run) -> int:
    if run.workers is not None:
        return run.workers
    return 8 if find_device(run.device) != "cpu" else 0


def _in_percent(row: dict[str, float | int]) -> dict[str, float | int]:
    return {name.replace("ap", "AP", 1): 100 * v if name.startswith("ap") else v for name, v in row.items()}
