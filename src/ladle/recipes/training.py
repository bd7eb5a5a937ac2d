"""Carry out a training job: check everything, say what will be done, do it, judge the best weights."""

from __future__ import annotations

import shlex
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import nn

from ladle.data.depth import spelled
from ladle.data.loader import Loader, lost_workers_told, make_loader
from ladle.data.sources import DatasetSource, Source
from ladle.detectors import Detector, DetectorSpec, load_detector, save_detector
from ladle.evaluation import Evaluation
from ladle.families import detector_spec
from ladle.objectives import stage_names
from ladle.recipes.assigners import text_of
from ladle.recipes.console import say, table
from ladle.recipes.contents import contents_of
from ladle.recipes.devices import find_device
from ladle.recipes.folders import joined_folder
from ladle.recipes.jobs import Job
from ladle.recipes.methods import METHODS, parts_of
from ladle.recipes.options import Run
from ladle.recipes.outputs import about_labels, title_of
from ladle.recipes.plans import Plan
from ladle.recipes.preflight import check_looks, check_strength, load_teacher, reads_otherwise, strength_in_words
from ladle.recipes.progress import about, best_weights, disk_error, state_of
from ladle.recipes.scoring import Evaluator, crowded
from ladle.recipes.setup import Setup, build_objective, resolve
from ladle.recipes.sources import Supply, supply
from ladle.visual import draw_history

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from ladle.engine import Result

__all__ = ["Trained", "check_data", "run_training"]


@dataclass(frozen=True)
class Trained:
    """What a run left behind: its folder, the weights of the best epoch, how good they are, the training time."""

    folder: Path
    weights: Path
    evaluation: Evaluation
    seconds: float


class _Prepared(NamedTuple):
    """A job with its images opened and its students made out: what is wrong with them shows here."""

    job: Job
    setup: Setup
    images: Source
    val: Source
    said: list[str]
    resumed: bool

    def evaluator(self) -> Evaluator:
        run = self.job.run
        return Evaluator(self.val, self.setup.imgsz, run.batch, _workers(run))


def run_training(job: Job, resume: bool = False) -> dict[str, Trained]:
    """Do a job from its first check to its last image; with ``resume`` after the last epoch it finished.

    Returns what is left of each student, by its name: ``student`` where there is one.
    """
    from ladle.engine import launch

    # A run that was stopped in its first epoch has nothing to go on from: it begins again.
    state = state_of(job) if resume else None
    ready = _prepare(job if state else replace(job, contents=None), resumed=state is not None)
    resuming = _once([f"resume    {line}" for line in about(job, state)] if state else [])
    for line in (*_about(ready), *_about_teacher(ready), *_about_lessons(ready), *resuming):
        say(line, job.run.quiet)
    ready.job.write()

    result: Result = launch(job.run.devices, job.run.device, _work, ready)
    folder = Path(job.folder)
    draw_history([_in_percent(row) for row in result.rows], folder / "plots" / "history.png")
    trained = {name: _judged(ready, result, name) for name in ready.setup.specs}
    for line in _what_is_left(ready, trained):
        say(line, job.run.quiet)
    return trained


def _judged(ready: _Prepared, result: Result, name: str) -> Trained:
    """Score the best weights of a student and draw how good they are."""
    from ladle.engine import prefix

    job, folder, weights = ready.job, Path(ready.job.folder), best_weights(ready.job, name)
    evaluator = ready.evaluator()
    score = evaluator(load_detector(weights).to(find_device(job.run.device)))
    who = f", {name} ({ready.setup.specs[name].name})" if len(ready.setup.specs) > 1 else ""
    title = f"{folder}{who}, epoch {result.best_epoch[name]} of {job.run.epochs}"
    say(table(title_of(title, score.evaluation), [score.evaluation.row()]), job.run.quiet)
    evaluator.draw(score, folder / "plots" / prefix(name, ""))
    return Trained(folder, weights, score.evaluation, result.seconds)


def _what_is_left(ready: _Prepared, trained: dict[str, Trained]) -> list[str]:
    """Where the weights are, and what to type next."""
    data, several = ready.job.data, len(trained) > 1
    weights = [f"{name}: {one.weights}" if several else str(one.weights) for name, one in trained.items()]
    commands = [
        command
        for one in trained.values()
        for command in (
            shlex.join(["ladle", "val", "--data", data, "--model", str(one.weights)]),
            shlex.join(["ladle", "predict", "IMAGES", "--model", str(one.weights)]),
        )
    ]
    return [
        *_once([f"drawn     {line}" for line in about_labels(ready.val.classes)]),
        *_once([f"weights   {line}" for line in weights]),
        *_once([f"next      {line}" for line in commands]),
    ]


def check_data(job: Job) -> Job:
    """The job with what its data hold; raises :class:`UserError` where that is not what it began with."""
    return _open(job)[0]


def _open(job: Job) -> tuple[Job, Supply]:
    imgsz = detector_spec(job.student, (), imgsz=job.run.imgsz).imgsz
    found = supply(job.data, job.run, imgsz)
    if found.value_range is not None:
        job = replace(job, run=replace(job.run, value_range=spelled(found.value_range)))
    return job.with_contents(contents_of(found.train), contents_of(found.val)), found


def _prepare(job: Job, resumed: bool) -> _Prepared:
    job, (images, val, value_range, said) = _open(job)
    setup = resolve(_without_start(job) if resumed else job, images.classes, images.category_ids)
    if value_range is not None:
        setup = setup.seeing(value_range)
    for spec in setup.specs.values():
        check_looks(spec.build(), job.run.batch, job.run.scales(setup.imgsz) or (setup.imgsz,))
    ready = _Prepared(job, setup, images, val, said, resumed)
    _loader(ready, rank=0, world=job.run.devices)
    return ready


def _without_start(job: Job) -> Job:
    """The same job for networks whose weights are kept: those that their backbones began with are not asked for."""
    start = job.run.start
    norm = start.norm or ("frozen" if start.pretrained or start.weights else None)
    return replace(job, run=replace(job.run, pretrained=False, backbone_weights=None, norm=norm))


@lost_workers_told()
def _work(fabric: Fabric, ready: _Prepared) -> Result:
    """The part that runs on every device."""
    from ladle.engine import fit

    job, folder = ready.job, Path(ready.job.folder)
    try:
        with joined_folder(folder):
            objective = _objective(fabric, ready)
            loader = _loader(ready, fabric.global_rank, fabric.world_size)
            evaluate = partial(_metrics, ready.evaluator())
            return fit(fabric, objective, loader, job.settings(), folder, evaluate, _save, ready.resumed)
    except OSError as error:
        if error.errno is None:
            raise
        raise disk_error(job, error) from error


def _objective(fabric: Fabric, ready: _Prepared) -> nn.Module:
    torch.manual_seed(ready.job.run.seed)
    students = {name: spec.build() for name, spec in ready.setup.specs.items()}
    return build_objective(ready.job, ready.setup, students, fabric.device)


def _loader(ready: _Prepared, rank: int, world: int) -> Loader:
    run, imgsz = ready.job.run, ready.setup.imgsz
    return make_loader(
        ready.images,
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


def _metrics(examine: Evaluator, network: nn.Module) -> dict[str, float]:
    assert isinstance(network, Detector)
    numbers = asdict(examine(network).evaluation)
    del numbers["per_class"], numbers["most"]
    return numbers


def _save(network: nn.Module, path: Path) -> None:
    assert isinstance(network, Detector)
    save_detector(network, path)


def _about(ready: _Prepared) -> list[str]:
    """What is learnt from, and who learns."""
    job, classes = ready.job, len(ready.images.classes)
    val = ready.val
    full = crowded(val.dataset.images, job.run.max_det) if isinstance(val, DatasetSource) else None
    sizes = f"{len(ready.images)} images to train on, {len(ready.val)} to validate, {classes} classes"
    return [
        f"data      {job.data}: {sizes}",
        *([f"          {full}"] if full is not None else []),
        *(" " * 10 + line for line in ready.said),
        *([f"          `ladle check {job.data}` lists everything"] if ready.said else []),
        *(f"{name:<9} {_who(spec, ready.resumed)}" for name, spec in ready.setup.specs.items()),
    ]


def _who(spec: DetectorSpec, resumed: bool) -> str:
    origin = "random weights" if spec.backbone.from_scratch else spec.backbone.weights or "its hub's weights"
    if resumed:
        origin = "resume.pt"
    return f"{spec.name} at {spec.imgsz} px, backbone from {origin} ({spec.backbone.norm} normalization)"


def _about_teacher(ready: _Prepared) -> list[str]:
    """Hire the teacher and try it; everything that could be wrong with it is found here, before the first step."""
    job, file = ready.job, ready.job.teacher_file
    if file is None:
        return []
    spec, plan = ready.setup.specs["student"], ready.setup.plans["student"]
    teacher = load_teacher(file, spec, plan.features_only, plan.aligned).to(find_device(job.run.device)).detector
    if plan.features_only and not set(spec.classes) <= set(teacher.spec.classes):
        return [f"teacher   {teacher.spec.name}, not tried: it knows other classes, its features alone count ({file})"]
    ap = check_strength(file, teacher, ready.val, spec.imgsz, job.run.batch, job.allow_weak_teacher)
    return [
        f"teacher   {teacher.spec.name}, {strength_in_words(ap)} ({file})",
        *reads_otherwise(ready.images, teacher.spec),
    ]


def _about_lessons(ready: _Prepared) -> list[str]:
    """Who assigns, what the teacher teaches term by term, what is left out and why."""
    job = ready.job
    words = [job.method] if job.method in METHODS else parts_of(job.method)
    method = [f"method    {word}: {METHODS[word]}" for word in words if job.verb != "colearn" or word != "plain"]
    judges = {"colearn": f", judged by whoever is surer ({job.surer})"}
    lines = _once(method)
    for name, plan in ready.setup.plans.items():
        if name != "second":
            rules = _assigners(plan, job.assigner is not None, judges.get(job.verb))
            lines += _once([f"assigner  {rule}" for rule in rules])
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


def _assigners(plan: Plan, asked: bool, judge: str | None) -> list[str]:
    """The rule of each stage and who judges by it; that of the first with its fields where it was ``asked`` for."""
    stages = [f"{name}: " for name in stage_names(len(plan.lessons))] if len(plan.lessons) > 1 else [""]
    told = {"teacher": ", judged by the teacher", "student": ""}
    rules = [type(lesson.assign).__name__ for lesson in plan.lessons]
    if asked:
        rules[0] = text_of(plan.lesson.rule(over=True))
    return [f"{stage}{rule}{judge or told[who]}" for stage, rule, who in zip(stages, rules, plan.judges, strict=True)]


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
