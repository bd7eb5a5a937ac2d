"""Run a training job: check everything, print a summary, train, evaluate the best weights."""

from __future__ import annotations

import shlex
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import nn

from ladle.data.depth import spelled
from ladle.data.loader import Loader, default_workers, lost_workers_told, make_loader
from ladle.data.sources import DatasetSource, Source
from ladle.detectors import Detector, DetectorSpec, load_detector, save_detector
from ladle.evaluation import Evaluation
from ladle.methods import WORDS, Plan, Published
from ladle.methods.words import part_name, unscheduled
from ladle.objectives import stage_names
from ladle.recipes.console import say, table
from ladle.recipes.contents import contents_of
from ladle.recipes.devices import find_device
from ladle.recipes.folders import joined_folder
from ladle.recipes.jobs import Job
from ladle.recipes.options import Run
from ladle.recipes.outputs import about_labels, title_of
from ladle.recipes.parts import ASSIGNER, Parts
from ladle.recipes.preflight import check_strength, check_trainable, load_teacher, reads_otherwise, strength_in_words
from ladle.recipes.progress import about, best_weights, disk_error, state_of
from ladle.recipes.report import Evaluated, write_report
from ladle.recipes.report_learning import learning_of
from ladle.recipes.scoring import Evaluator, crowded
from ladle.recipes.setup import Setup, build_objective, resolve, student_spec
from ladle.recipes.sources import Supply, supply
from ladle.teachers import FrozenDetector
from ladle.values import first_sentence, text_of
from ladle.visual import draw_history

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from ladle.engine import Result

__all__ = ["Trained", "check_data", "run_training"]


@dataclass(frozen=True)
class Trained:
    """The result of a run: its folder, the weights of the best epoch, their evaluation, the training time."""

    folder: Path
    weights: Path
    evaluation: Evaluation
    seconds: float


class _Prepared(NamedTuple):
    """A job with its images opened and its students resolved."""

    job: Job
    parts: Parts
    setup: Setup
    images: Source
    val: Source
    notes: list[str]
    resumed: bool

    def evaluator(self) -> Evaluator:
        run = self.job.run
        return Evaluator(self.val, self.setup.imgsz, run.batch, _workers(run))

    def judge(self, name: str, device: torch.device) -> FrozenDetector | None:
        """The teacher that judges for a student, if it is a detector."""
        plan, given, file = self.setup.plans[name], self.parts.teacher, self.job.teacher_file
        if plan.lessons[0].judge is None:
            return None
        if given is not None or file is None:
            return given if isinstance(given, FrozenDetector) else None
        return load_teacher(file, self.setup.specs[name], plan.features_only, plan.aligned).to(device)


def run_training(job: Job, parts: Parts, resume: bool = False) -> dict[str, Trained]:
    """Run a job from the first check to the last plot; with ``resume`` after the last finished epoch.

    Returns the result of each student, by its name: ``student`` if there is one.
    """
    from ladle.engine import launch, one_process

    # A run that was stopped in its first epoch cannot be resumed: it starts again.
    state = state_of(job) if resume else None
    ready = _prepare(job if state else replace(job, contents=None), parts, resumed=state is not None)
    resuming = _once([f"resume    {line}" for line in about(job, state)] if state else [])
    for line in (*_about(ready), *_about_teacher(ready), *_about_lessons(ready), *resuming):
        say(line, job.run.quiet)
    ready.job.write()

    fabric = one_process(job.run.devices, job.run.device)
    result = _work(fabric, ready) if fabric else launch(job.run.devices, job.run.device, _work, ready)
    folder = Path(job.folder)
    draw_history([_in_percent(row) for row in result.rows], folder / "plots" / "history.png")
    evaluated = {name: _evaluate_best(ready, result, name) for name in ready.setup.specs}
    trained = {
        name: Trained(folder, best_weights(ready.job, name), one.score.evaluation, result.seconds)
        for name, one in evaluated.items()
    }
    page = write_report(ready.job, result.seconds, list(evaluated.values()), ready.val)
    for line in _final_lines(ready, trained, page):
        say(line, job.run.quiet)
    return trained


def _evaluate_best(ready: _Prepared, result: Result, name: str) -> Evaluated:
    """Evaluate the best weights of a student and draw the charts."""
    from ladle.engine import prefix

    job, folder, epoch = ready.job, Path(ready.job.folder), result.best_epoch[name]
    evaluator = ready.evaluator()
    detector = load_detector(best_weights(job, name)).to(find_device(job.run.device))
    score = evaluator(detector)
    student = f", {name} ({ready.setup.specs[name].name})" if len(ready.setup.specs) > 1 else ""
    title = f"{folder}{student}, epoch {epoch} of {job.run.epochs}"
    say(table(title_of(title, score.evaluation), [score.evaluation.row()]), job.run.quiet)
    evaluator.draw(score, folder / "plots" / prefix(name, ""))
    lesson, teacher = ready.setup.plans[name].lessons[0], ready.judge(name, detector.mean.device)
    learning = None
    if lesson.judge is None or teacher is not None:
        learning = learning_of(detector, ready.images, lesson, teacher, epoch, job.run.batch)
    return Evaluated(name, detector, epoch, evaluator, score, learning)


def _final_lines(ready: _Prepared, trained: dict[str, Trained], page: Path) -> list[str]:
    """The paths of the weights and of the report, and commands to use the weights."""
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
        f"report    {page}",
        *_once([f"next      {line}" for line in commands]),
    ]


def check_data(job: Job, parts: Parts) -> Job:
    """The job with a summary of its data; raises :class:`UserError` if the data differ from those at its start."""
    return _open(job, parts)[0]


def _open(job: Job, parts: Parts) -> tuple[Job, Supply]:
    imgsz = student_spec(job, parts, ()).imgsz
    found = supply(job.data, job.run, imgsz, parts.data)
    if found.value_range is not None:
        job = replace(job, run=replace(job.run, value_range=spelled(found.value_range)))
    return job.with_contents(contents_of(found.train), contents_of(found.val)), found


def _prepare(job: Job, parts: Parts, resumed: bool) -> _Prepared:
    job, (images, val, value_range, notes) = _open(job, parts)
    setup = resolve(_without_start(job) if resumed else job, parts, images.classes, images.category_ids)
    if value_range is not None:
        setup = setup.with_value_range(value_range)
    for spec in setup.specs.values():
        check_trainable(spec.build(), job.run.batch, job.run.scales(setup.imgsz) or (setup.imgsz,))
    ready = _Prepared(job, parts, setup, images, val, notes, resumed)
    _loader(ready, rank=0, world=job.run.devices)
    return ready


def _without_start(job: Job) -> Job:
    """The same job without the initial weights of the backbones, which a resumed run does not need."""
    start = job.run.start
    norm = start.norm or ("frozen" if start.pretrained or start.weights else None)
    return replace(job, run=replace(job.run, pretrained=False, backbone_weights=None, norm=norm))


@lost_workers_told()
def _work(fabric: Fabric, ready: _Prepared) -> Result:
    """The part of a job that runs on every device."""
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
    return build_objective(ready.job, ready.setup, students, fabric.device, ready.parts.teacher)


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
        pin=find_device(run.device) != "cpu",
    )


def _metrics(evaluator: Evaluator, network: nn.Module) -> dict[str, float]:
    assert isinstance(network, Detector)
    numbers = asdict(evaluator(network).evaluation)
    del numbers["per_class"], numbers["most"]
    return numbers


def _save(network: nn.Module, path: Path) -> None:
    assert isinstance(network, Detector)
    save_detector(network, path)


def _about(ready: _Prepared) -> list[str]:
    """Lines about the data and the students."""
    job, classes = ready.job, len(ready.images.classes)
    val = ready.val
    full = crowded(val.dataset.images, job.run.max_det) if isinstance(val, DatasetSource) else None
    sizes = f"{len(ready.images)} images to train on, {len(ready.val)} to validate, {classes} classes"
    return [
        f"data      {job.data}: {sizes}",
        *([f"          {full}"] if full is not None else []),
        *(" " * 10 + line for line in ready.notes),
        *([f"          `ladle check {job.data}` lists everything"] if ready.notes else []),
        *(f"{name:<9} {_description(spec, ready.resumed)}" for name, spec in ready.setup.specs.items()),
    ]


def _description(spec: DetectorSpec, resumed: bool) -> str:
    origin = "random weights" if spec.backbone.from_scratch else spec.backbone.weights or "its hub's weights"
    if resumed:
        origin = "resume.pt"
    return f"{spec.name} at {spec.imgsz} px, backbone from {origin} ({spec.backbone.norm} normalization)"


def _about_teacher(ready: _Prepared) -> list[str]:
    """Load, check and evaluate the teacher before the first step; returns lines about it."""
    job, file = ready.job, ready.job.teacher_file
    if ready.parts.teacher is not None:
        return [f"teacher   {ready.parts.teacher.info.name}, given in Python and not evaluated"]
    if file is None:
        return []
    spec, plan = ready.setup.specs["student"], ready.setup.plans["student"]
    teacher = load_teacher(file, spec, plan.features_only, plan.aligned).to(find_device(job.run.device)).detector
    if plan.features_only and not set(spec.classes) <= set(teacher.spec.classes):
        return [
            f"teacher   {teacher.spec.name}, not evaluated: it has other classes, only its features are used ({file})"
        ]
    ap = check_strength(file, teacher, ready.val, spec.imgsz, job.run.batch, job.allow_weak_teacher)
    return [
        f"teacher   {teacher.spec.name}, {strength_in_words(ap)} ({file})",
        *reads_otherwise(ready.images, teacher.spec),
    ]


def _about_lessons(ready: _Prepared) -> list[str]:
    """Lines about the assigners, the judge, the distilled terms, and what is left out and why."""
    job = ready.job
    lines = _once([f"method    {line}" for line in _method_in_words(job, ready.parts)])
    judge = f", judged by the more certain of the two ({job.surer})" if job.verb == "colearn" else None
    for name, plan in ready.setup.plans.items():
        if name != "second":
            lines += _once([f"assigner  {line}" for line in _assigners(plan, job.assigner is not None, judge)])
        if name != "second" and job.criterion is not None:
            lines.append(f"criterion {job.criterion}")
        prefix = f"{name}/" if job.verb == "colearn" else ""
        lines += _once([f"teaches   {prefix}{term}: {what}" for term, what in plan.teaches.items()])
        lines += _once([f"skipped   {prefix}{reason}" for reason in plan.skipped])
    lines += [_BALANCE[job.balance].format(share=job.balance_share)] if job.balance != "none" else []
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


_BALANCE = {
    "moments": "balance   backbone and neck: distillation has separate optimizer moments and {share:g} of a step",
    "norm": "balance   backbone and neck: the gradient of distillation is at most {share:g} of detection's",
}


def _assigners(plan: Plan, asked: bool, judge: str | None) -> list[str]:
    """The assigner and the judge of each stage; the first assigner with fields if it was ``asked`` for by a flag."""
    names = [type(lesson.assigner).__name__ for lesson in plan.lessons]
    if asked:
        names[0] = text_of(ASSIGNER, plan.lessons[0].assigner)
    judges = [judge or (", judged by the teacher" if lesson.judge is not None else "") for lesson in plan.lessons]
    stages = [f"{stage}: " if stage else "" for stage in stage_names(len(plan.lessons))]
    return [f"{stage}{name}{judged}" for stage, name, judged in zip(stages, names, judges, strict=True)]


def _once(lines: list[str]) -> list[str]:
    """Remove a repeated first word from all lines but the first."""
    return [*lines[:1], *(" " * 10 + line[10:] for line in lines[1:])]


def _workers(run: Run) -> int:
    if run.workers is not None:
        return run.workers
    return default_workers(find_device(run.device), run.devices)


def _in_percent(row: dict[str, float | int]) -> dict[str, float | int]:
    return {_label(name): 100 * v if _label(name) != name else v for name, v in row.items()}


def _label(metric: str) -> str:
    """The label of an AP in charts, with the student's name appended if there are two; other names are unchanged."""
    student, _, name = metric.rpartition("/")
    return f"{name.replace('ap', 'AP', 1)} {student}".strip() if name.startswith("ap") else metric
