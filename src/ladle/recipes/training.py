"""Run a training job: check everything, print a summary, train, evaluate the best weights."""

from __future__ import annotations

import shlex
from collections import deque
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from ladle.data.depth import spelled
from ladle.data.loader import Loader, lost_workers_told, make_loader
from ladle.data.sources import Joined, Source
from ladle.detectors import Detector, load_detector, save_detector
from ladle.engine.loggers import check_installed
from ladle.evaluation import Evaluation
from ladle.objectives import CoLearning, TrainingStep
from ladle.recipes.batch_size import choose_batch
from ladle.recipes.compiling import compile_layers
from ladle.recipes.console import say, table, warn
from ladle.recipes.contents import contents_of
from ladle.recipes.devices import find_device
from ladle.recipes.fixed_views import check_fixed_views, has_fixed_views
from ladle.recipes.folders import joined_folder
from ladle.recipes.jobs import OBJECT, Job
from ladle.recipes.nodes import connected_nodes
from ladle.recipes.opened import OpenedTeacher
from ladle.recipes.outputs import about_labels, title_of
from ladle.recipes.parts import Parts
from ladle.recipes.preflight import check_trainable, load_foreign
from ladle.recipes.prepared import Prepared, workers_of
from ladle.recipes.progress import about, best_weights, disk_error, state_of
from ladle.recipes.recorded import beside
from ladle.recipes.report import Evaluated, remove_report, write_report
from ladle.recipes.report_learning import learning_of
from ladle.recipes.scoring import Evaluator, Score
from ladle.recipes.setup import Setup, build_objective, resolve, student_spec
from ladle.recipes.sources import Supply, supply
from ladle.recipes.summary import about_images, about_lessons, about_teacher, once
from ladle.recipes.unlabelled import open_unlabelled
from ladle.teachers import ForeignTeacher, parse_uri
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


def run_training(job: Job, parts: Parts, resume: bool = False) -> dict[str, Trained]:
    """Run a job from the first check to the last plot; with ``resume`` after the last finished epoch.

    Returns the result of each student, by its name: ``student`` if there is one.
    """
    from ladle.engine import one_process

    check_installed(job.settings().loggers)
    # A run that was stopped in its first epoch cannot be resumed: it starts again.
    state = state_of(job) if resume else None
    ready = _prepare(job if state else replace(job, contents=None), parts, resumed=state is not None)
    resuming = once([f"resume    {line}" for line in about(job, state)] if state else [])
    for line in (*about_images(ready), *about_teacher(ready), *about_lessons(ready), *resuming):
        say(line, job.run.quiet)
    ready.job.write()
    folder = Path(job.folder)
    if state is not None and state.epoch < job.run.epochs:
        remove_report(folder)

    fabric = None if connected_nodes() is not None else one_process(job.run.devices, job.run.device)
    scores: deque[Score] = deque(maxlen=len(ready.setup.specs))  # those of the last evaluation
    result = _work(fabric, ready, scores) if fabric else _launched(ready)
    draw_history([_in_percent(row) for row in result.rows], folder / "plots" / "history.png")
    last = dict(zip(ready.setup.specs, scores, strict=False))  # empty if other processes have trained
    evaluated = {name: _evaluate_best(ready, result, name, last.get(name)) for name in ready.setup.specs}
    trained = {
        name: Trained(folder, best_weights(ready.job, name), one.score.evaluation, result.seconds)
        for name, one in evaluated.items()
    }
    page = write_report(ready.job, result.seconds, list(evaluated.values()), ready.val)
    for line in _final_lines(ready, trained, page):
        say(line, job.run.quiet)
    return trained


def _launched(ready: Prepared) -> Result:
    """Train in a process for each device, of this machine or of several nodes."""
    from ladle.engine import launch, launch_on_nodes

    run, nodes = ready.job.run, connected_nodes()
    if ready.parts.foreign is not None:
        ready.parts.foreign.close()  # each process opens it for itself
    if nodes is not None:
        return launch_on_nodes(nodes, run.devices, run.device, _work, ready)
    return launch(run.devices, run.device, _work, ready)


def _evaluate_best(ready: Prepared, result: Result, name: str, last: Score | None) -> Evaluated:
    """Evaluate the best weights of a student and draw the charts; ``last`` is the evaluation after the last epoch."""
    from ladle.engine import prefix

    job, folder, epoch = ready.job, Path(ready.job.folder), result.best_epoch[name]
    evaluator = ready.evaluator()
    detector = load_detector(best_weights(job, name)).to(find_device(job.run.device))
    score = last if last is not None and epoch == result.rows[-1]["epoch"] else evaluator(detector)
    student = f", {name} ({ready.setup.specs[name].name})" if len(ready.setup.specs) > 1 else ""
    title = f"{folder}{student}, epoch {epoch} of {job.run.epochs}"
    say(table(title_of(title, score.evaluation), [score.evaluation.row()]), job.run.quiet)
    evaluator.draw(score, folder / "plots" / prefix(name, ""))
    lesson, teacher = ready.setup.plans[name].lessons[0], ready.judge(name, detector.mean.device)
    learning = None
    if lesson.judge is None or teacher is not None:
        plots = folder / "plots" / prefix(name, "")
        learning = learning_of(detector, ready.images, lesson, teacher, epoch, job.run.batch_size, plots)
    return Evaluated(name, detector, epoch, evaluator, score, learning)


def _final_lines(ready: Prepared, trained: dict[str, Trained], page: Path) -> list[str]:
    """The paths of the weights and of the report, and commands to use the weights."""
    data, several = ready.job.data, len(trained) > 1
    defects = [] if ready.job.run.on_defect == "repair" else ["--on-defect", ready.job.run.on_defect]
    evaluated = [] if data.startswith(OBJECT) else [["ladle", "val", "--data", data, *defects]]
    weights = [f"{name}: {one.weights}" if several else str(one.weights) for name, one in trained.items()]
    commands = [
        shlex.join([*command, "--model", str(one.weights)])
        for one in trained.values()
        for command in (*evaluated, ["ladle", "predict", "IMAGES"])
    ]
    return [
        *once([f"drawn     {line}" for line in about_labels(ready.val.classes)]),
        *once([f"weights   {line}" for line in weights]),
        f"report    {page}",
        *once([f"next      {line}" for line in commands]),
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


def _prepare(job: Job, parts: Parts, resumed: bool) -> Prepared:
    job, (images, val, value_range, notes) = _open(job, parts)
    if job.foreign_teacher is not None and parts.teacher is None:
        student = student_spec(job, parts, images.classes, images.category_ids)
        parts = parts._replace(foreign=OpenedTeacher(job.foreign_teacher, student))
    setup = resolve(_without_start(job) if resumed else job, parts, images.classes, images.category_ids)
    if value_range is not None:
        setup = setup.with_value_range(value_range)
    check_fixed_views(job, parts, images, setup.imgsz)
    for spec in setup.specs.values():
        check_trainable(spec.build(), job.run.batch_size, job.run.scales(setup.imgsz) or (setup.imgsz,))
    if job.run.batch == "auto":
        batch, why = choose_batch(job, setup, parts, images)
        job = replace(job, run=replace(job.run, batch=batch))
        notes = [*notes, f"--batch auto: {batch} images for each step and device, {why}"]
    views, more = _views(parts, setup, images), open_unlabelled(job, parts, images, val, setup.imgsz, resumed)
    lines: tuple[str, ...] = ()
    if more is not None:
        views, lines = Joined(views, more.source), more.lines
    ready = Prepared(job, parts, setup, images, views, val, notes, resumed, lines)
    _loader(ready, rank=0, world=job.run.world)
    return ready


def _without_start(job: Job) -> Job:
    """The same job without the initial weights of the backbones, which a resumed run does not need."""
    start = job.run.start
    norm = start.norm or ("frozen" if start.pretrained or start.weights else None)
    return replace(job, run=replace(job.run, pretrained=False, backbone_weights=None, norm=norm))


@lost_workers_told()
def _work(fabric: Fabric, ready: Prepared, scores: deque[Score] | None = None) -> Result:
    """The part of a job that runs on every device; every evaluation is added to ``scores``."""
    from ladle.engine import fit

    job, folder = ready.job, Path(ready.job.folder)
    try:
        with joined_folder(folder):
            objective = _objective(fabric, ready)
            if job.run.compile:
                _compile(fabric, ready, objective)
            loader = _loader(ready, fabric.global_rank, fabric.world_size)
            evaluate = partial(_metrics, ready.evaluator(), scores)
            settings = replace(job.settings(), weighed=ready.setup.weighed)
            return fit(fabric, objective, loader, settings, folder, evaluate, _save, ready.resumed)
    except OSError as error:
        if error.errno is None:
            raise
        raise disk_error(job, error) from error


def _objective(fabric: Fabric, ready: Prepared) -> CoLearning | TrainingStep:
    torch.manual_seed(ready.job.run.seed)
    students = {name: spec.build() for name, spec in ready.setup.specs.items()}
    objective = build_objective(ready.job, ready.setup, students, fabric.device, ready.parts)
    return objective if ready.job.run.channels_last else objective.to(memory_format=torch.contiguous_format)


def _compile(fabric: Fabric, ready: Prepared, objective: CoLearning | TrainingStep) -> None:
    """Compile the students, or warn once that this is not possible; both come before the run is seeded."""
    run, side = ready.job.run, max(ready.job.run.scales(ready.setup.imgsz) or (ready.setup.imgsz,))
    half = torch.bfloat16 if run.precision == "bf16" else None
    for name, student in objective.students.items():
        assert isinstance(student, Detector)
        reason = compile_layers(student.to(fabric.device), run.batch_size, side, half)
        if reason is not None and fabric.is_global_zero:
            warn(f"--compile: {ready.setup.specs[name].name} is trained without it, as torch.compile failed: {reason}")


def _views(parts: Parts, setup: Setup, images: Source) -> Source:
    """The training images, with what a foreign teacher recorded for them."""
    given, opened = parts.teacher, parts.foreign
    if isinstance(given, ForeignTeacher):
        return beside(images, given, given.info.name)
    if opened is None or not parse_uri(opened.text).is_recorded:
        return images
    recorded = load_foreign(opened, setup.plans["student"])
    return beside(images, recorded, opened.text) if isinstance(recorded, ForeignTeacher) else images


def _loader(ready: Prepared, rank: int, world: int) -> Loader:
    run, imgsz = ready.job.run, ready.setup.imgsz
    return make_loader(
        ready.views,
        run.batch_size,
        imgsz,
        run.augmentation,
        seed=run.seed,
        workers=workers_of(run),
        shuffle=True,
        multiscale=run.scales(imgsz),
        square=has_fixed_views(ready.parts),
        rank=rank,
        world=world,
        drop_last=True,
        pin=find_device(run.device) != "cpu",
    )


def _metrics(evaluator: Evaluator, scores: deque[Score] | None, network: nn.Module) -> dict[str, float]:
    assert isinstance(network, Detector)
    with torch.compiler.set_stance("force_eager"):  # as `ladle val` does it, and no compilation for each size
        score = evaluator(network)
    if scores is not None:
        scores.append(score)
    numbers = asdict(score.evaluation)
    del numbers["per_class"], numbers["most"]
    return numbers


def _save(network: nn.Module, path: Path) -> None:
    assert isinstance(network, Detector)
    save_detector(network, path)


def _in_percent(row: dict[str, float | int]) -> dict[str, float | int]:
    return {_label(name): 100 * v if _label(name) != name else v for name, v in row.items()}


def _label(metric: str) -> str:
    """The label of an AP in charts, with the student's name appended if there are two; other names are unchanged."""
    student, _, name = metric.rpartition("/")
    return f"{name.replace('ap', 'AP', 1)} {student}".strip() if name.startswith("ap") else metric
