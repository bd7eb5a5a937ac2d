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
from ladle.objectives import stage_names
from ladle.recipes.console import say, table
from ladle.recipes.devices import find_device
from ladle.recipes.jobs import Job
from ladle.recipes.lineup import Lineup, build_objective, line_up
from ladle.recipes.methods import METHODS, parts_of
from ladle.recipes.options import Run
from ladle.recipes.plans import Plan
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
    """A job with its pictures opened and its students made out: what is wrong with them shows here."""

    job: Job
    lineup: Lineup
    pictures: Source
    val: Source

    def examiner(self) -> Examiner:
        run = self.job.run
        return Examiner(self.val, self.lineup.imgsz, run.batch, _workers(run))


def carry_out(job: Job, resume: bool = False) -> dict[str, Trained]:
    """Do a job from its first check to its last picture; with ``resume`` after the last epoch it finished.

    Returns what is left of each student, by its name: ``student`` where there is one.
    """
    from ladle.engine import launch

    ready = _prepare(job)
    for line in (*_about(ready), *_about_teacher(ready), *_about_lessons(ready)):
        say(line, job.run.quiet)
    # A run that was stopped in its first epoch has nothing to go on from: it begins again.
    resume = resume and (Path(job.folder) / "resume.pt").exists()
    job.write()

    result: Result = launch(job.run.devices, job.run.device, _work, ready, resume)
    folder = Path(job.folder)
    draw_history([_in_percent(row) for row in result.rows], folder / "plots" / "history.png")
    return {name: _judged(ready, result, name) for name in ready.lineup.specs}


def _judged(ready: _Prepared, result: Result, name: str) -> Trained:
    """Score the best weights of a student and draw how good they are."""
    from ladle.engine import prefix

    job, folder = ready.job, Path(ready.job.folder)
    weights = folder / "weights" / f"{prefix(name, '-')}best.safetensors"
    examiner = ready.examiner()
    score = examiner(load_detector(weights).to(find_device(job.run.device)))
    examiner.draw(score, folder / "plots" / prefix(name, ""))
    who = f", {name} ({ready.lineup.specs[name].name})" if len(ready.lineup.specs) > 1 else ""
    title = f"{folder}{who}, epoch {result.best_epoch[name]} of {job.run.epochs}"
    say(table(title, [score.evaluation.row()]), job.run.quiet)
    return Trained(folder, weights, score.evaluation, result.seconds)


def _prepare(job: Job) -> _Prepared:
    imgsz = detector_spec(job.student, (), imgsz=job.run.imgsz).imgsz
    pictures, val = (open_source(job.data, split, job.run, imgsz) for split in ("train", "val"))
    lineup = line_up(job, pictures.classes, pictures.category_ids)
    for spec in lineup.specs.values():
        spec.build()
    ready = _Prepared(job, lineup, pictures, val)
    _loader(ready, rank=0, world=job.run.devices)
    return ready


def _work(fabric: Fabric, ready: _Prepared, resume: bool) -> Result:
    """The part that runs on every device."""
    from ladle.engine import fit

    run = ready.job.run
    torch.manual_seed(run.seed)
    students = {name: spec.build() for name, spec in ready.lineup.specs.items()}
    objective = build_objective(ready.job, ready.lineup, students)
    teacher = getattr(objective, "teacher", None)
    if teacher is not None:
        teacher.to(fabric.device)
    loader = _loader(ready, fabric.global_rank, fabric.world_size)
    evaluate = partial(_metrics, ready.examiner())
    return fit(fabric, objective, loader, ready.job.settings(), Path(ready.job.folder), evaluate, _save, resume)


def _loader(ready: _Prepared, rank: int, world: int) -> Loader:
    run, imgsz = ready.job.run, ready.lineup.imgsz
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


def _metrics(examine: Examiner, network: nn.Module) -> dict[str, float]:
    assert isinstance(network, Detector)
    numbers = asdict(examine(network).evaluation)
    del numbers["per_class"]
    return numbers


def _save(network: nn.Module, path: Path) -> None:
    assert isinstance(network, Detector)
    save_detector(network, path)


def _about(ready: _Prepared) -> list[str]:
    """What is learnt from, and who learns."""
    job, classes = ready.job, len(ready.pictures.classes)
    repaired = [
        f"          {source.catalogue.summary()} (`ladle check {job.data}` lists everything)"
        for source in (ready.pictures, ready.val)
        if isinstance(source, CatalogueSource) and source.catalogue.defects
    ]
    sizes = f"{len(ready.pictures)} pictures to train on, {len(ready.val)} to validate, {classes} classes"
    return [
        f"data      {job.data}: {sizes}",
        *repaired,
        *(f"{name:<9} {_who(spec)}" for name, spec in ready.lineup.specs.items()),
    ]


def _who(spec: DetectorSpec) -> str:
    origin = "random weights" if spec.backbone.from_scratch else spec.backbone.weights or "its hub's weights"
    return f"{spec.name} at {spec.imgsz} px, backbone from {origin} ({spec.backbone.norm} normalisation)"


def _about_teacher(ready: _Prepared) -> list[str]:
    """Hire the teacher and try it; everything that could be wrong with it is found here, before the first step."""
    job, file = ready.job, ready.job.teacher_file
    if file is None:
        return []
    spec, plan = ready.lineup.specs["student"], ready.lineup.plans["student"]
    teacher = hire(file, spec, plan.features_only, plan.aligned).to(find_device(job.run.device)).detector
    if plan.features_only and not set(spec.classes) <= set(teacher.spec.classes):
        return [f"teacher   {teacher.spec.name}, not tried: it knows other classes, its features alone count ({file})"]
    ap = check_strength(file, teacher, ready.val, spec.imgsz, job.run.batch, job.allow_weak_teacher)
    strength = "unknown AP: the validation pictures hold no object" if math.isnan(ap) else f"{100 * ap:.1f} AP"
    return [f"teacher   {teacher.spec.name}, {strength} on a sample of the validation pictures ({file})"]


def _about_lessons(ready: _Prepared) -> list[str]:
    """Who assigns, what the teacher teaches term by term, what is left out and why."""
    job = ready.job
    words = [job.method] if job.method in METHODS else parts_of(job.method)
    method = [f"method    {word}: {METHODS[word]}" for word in words if job.verb != "colearn" or word != "plain"]
    judges = {"colearn": f", judged by whoever is surer ({job.surer})"}
    lines = _once(method)
    for name, plan in ready.lineup.plans.items():
        if name != "second":
            lines += _once([f"assigner  {text}" for text in _assigners(plan, judges.get(job.verb))])
        whose = f"{name}/" if job.verb == "colearn" else ""
        lines += _once([f"teaches   {whose}{term}: {what}" for term, what in plan.teaches.items()])
        lines += _once([f"skipped   {whose}{reason}" for reason in plan.skipped])
    lines += [_BALANCE[job.balance].format(share=job.balance_share)] if job.balance != "none" else []
    lines.append(f"run       {job.folder}: {job.run.epochs} epochs, batch {job.run.batch}, seed {job.run.seed}")
    return [line for line in lines if line]


_BALANCE = {
    "moments": "balance   backbone and neck: what is taught has moments of its own, and takes {share:g} of a step",
    "norm": "balance   backbone and neck: the gradient of what is taught is at most {share:g} of detection's",
}


def _assigners(plan: Plan, judge: str | None) -> list[str]:
    """The rule of each stage and who judges by it."""
    stages = [f"{name}: " for name in stage_names(len(plan.lessons))] if len(plan.lessons) > 1 else [""]
    told = {"teacher": ", judged by the teacher", "student": ""}
    return [
        f"{stage}{type(lesson.assign).__name__}{judge or told[who]}"
        for stage, lesson, who in zip(stages, plan.lessons, plan.judges, strict=True)
    ]


def _once(lines: list[str]) -> list[str]:
    """Lines that say the same first word say it once."""
    return [*lines[:1], *(" " * 10 + line[10:] for line in lines[1:])]


def _workers(run: Run) -> int:
    if run.workers is not None:
        return run.workers
    return 8 if find_device(run.device) != "cpu" else 0


def _in_percent(row: dict[str, float | int]) -> dict[str, float | int]:
    return {_label(name): 100 * v if _label(name) != name else v for name, v in row.items()}


def _label(metric: str) -> str:
    """The name of an AP as it is drawn, that of one of two students with its name behind; any other name as it is."""
    student, _, name = metric.rpartition("/")
    return f"{name.replace('ap', 'AP', 1)} {student}".strip() if name.startswith("ap") else metric
