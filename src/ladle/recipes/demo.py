"""The demo: one small student is trained with three methods on the same budget, and compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from importlib.resources import files
from pathlib import Path

import torch

from ladle.assigners import PAA
from ladle.children import cores, run_tasks
from ladle.data.loader import collate
from ladle.data.scenes import CLASSES, Scenes, split_scenes
from ladle.data.sources import Splits
from ladle.detectors import Detector, load_detector
from ladle.errors import UserError
from ladle.families import detector_spec
from ladle.files import path_as_text
from ladle.objectives import agreement
from ladle.recipes.console import say, table
from ladle.recipes.folders import asked_for_by
from ladle.recipes.options import Epochs, Run, Seed
from ladle.recipes.outputs import check_out, free_folder
from ladle.recipes.train import Trained, distill, train
from ladle.types import Assignment, Batch, Priors
from ladle.visual import Panel, draw_assignment, side_by_side

__all__ = ["BUDGET", "STUDENT", "demo", "teacher_file"]

STUDENT = "paa-tiny"
BUDGET = Run(epochs=16, lr=0.004, jitter=0.0, crop=0.0, eval_every=16, quiet=True)
"""The settings of recorded comparisons; every student is evaluated once, so that no epoch is selected by its AP."""
_EPOCHS, _BATCH = 4, 8
"""The shorter budget of the demo; small batches make more steps of it."""
_QUICK_EPOCHS, _QUICK_SCENES = 2, (96, 48)
"""The epochs, and the scenes for training and validation, with ``--quick``."""
_FIRST = 8
"""The validation scene of the first image."""
_METHODS = {"plain": "plain", "lad": "LAD", "solad": "SoLAD"}
_QUICK_METHODS = ("plain", "solad")
_DRAWN = (3, 8, 21, 26)
"""Validation scenes that are drawn: they have few and many objects, small and large ones, and a crowd."""


def demo(
    out: str | Path = "runs/demo",
    epochs: Epochs | None = None,
    seed: Seed = 0,
    quick: bool = False,
) -> dict[str, Trained]:
    """Train the same tiny student without distillation, with LAD and with SoLAD on the built-in scenes, and compare.

    The teacher is included in the package. Every student trains on the same images in the same order and starts from
    the same weights; only the judge and the soft labels differ.

    Args:
        out: folder for the runs and the drawings.
        epochs: number of epochs of every student: by default 4, with ``quick`` 2.
        seed: seed of the initial weights and the order of the images.
        quick: train two students on few images, too short to tell methods apart, to see what a run does.
    """
    out = path_as_text(out)
    check_out(out)
    if Path(out).name in ("", ".."):
        raise UserError(f"--out {out}: expected the path of a new folder, such as runs/demo")
    with asked_for_by("--out", out):
        folder = free_folder(Path(out))
    epochs = epochs or (_QUICK_EPOCHS if quick else _EPOCHS)
    data, methods = (
        ("scenes", tuple(_METHODS)) if not quick else (Splits(*split_scenes(*_QUICK_SCENES)), _QUICK_METHODS)
    )
    teacher = load_detector(teacher_file()).eval()
    _first_look(folder, teacher)
    budget = replace(BUDGET, epochs=epochs, batch=_BATCH, eval_every=epochs, seed=seed)
    trained = _train(folder, data, methods, budget)
    _show(folder, teacher, trained, "too short to tell methods apart" if quick else f"{epochs} epochs, seed {seed}")
    return trained


def teacher_file() -> Path:
    """The weight file of the teacher for the built-in scenes."""
    return Path(str(files("ladle") / "assets" / "scenes_teacher.safetensors"))


def _first_look(out: Path, teacher: Detector) -> None:
    """Draw one scene as an untrained student and as the teacher would assign it, and tell how far they agree."""
    _, scenes = split_scenes(0, _FIRST + 1)
    batch = _batch(scenes, _FIRST)
    plans, priors = _plans({"untrained student judges": _untrained(), "teacher judges": teacher}, batch)
    path = draw_assignment(batch.images[0], batch.truth, priors, plans, out / "who-learns-what.png")
    own, theirs = plans.values()
    say(f"who learns what: {path}")
    say(
        f"  each dot is a prior of {STUDENT} in the color of its object: {int(own.positive.sum())} positives if the "
        f"untrained student judges, {int(theirs.positive.sum())} if the teacher does; "
        f"{100 * float(agreement(own, theirs)):.0f} % of the student's are the teacher's too"
    )


def _train(out: Path, data: str | Splits, methods: Sequence[str], budget: Run) -> dict[str, Trained]:
    """Train a student with each method, some at the same time: so small a network hardly gains by a second core.

    They are one more than there are cores, so that no core is idle while the last student trains.
    """
    at_once = min(len(methods), cores() + 1)
    about = f"{budget.epochs} epochs each, {at_once} at a time"
    say(f"training {STUDENT} with {len(methods)} methods on the built-in scenes, {about}")
    runs = {method: replace(budget, name=method, project=str(out)) for method in methods}
    tasks = [partial(_train_one, data, method, run, max(1, cores() // at_once)) for method, run in runs.items()]
    trained: dict[str, Trained] = {}
    for number, one in run_tasks(tasks, at_once):
        trained[methods[number]] = one
        title = _METHODS[methods[number]]
        say(f"  {title:<6} {100 * one.evaluation.ap:.1f} AP after {one.seconds:.0f} s of training")
    return {_METHODS[method]: trained[method] for method in methods}


def _train_one(data: str | Splits, method: str, run: Run, threads: int) -> Trained:
    torch.set_num_threads(threads)
    if method == "plain":
        return train(data, STUDENT, run)
    return distill(data, STUDENT, str(teacher_file()), method, run)


def _show(out: Path, teacher: Detector, trained: dict[str, Trained], about: str) -> None:
    """Print the table and what each image shows; the images first exist then."""
    found, learnt = _draw(out, teacher, trained)
    rows = [{"method": t} | one.evaluation.row() | {"seconds": f"{one.seconds:.0f}"} for t, one in trained.items()]
    say(table(f"\n{STUDENT}, {about}", rows))
    finds = "what the students find, of the highest scores as many as there are objects"
    for title, paths in ((finds, found), ("who learns what, by the judge", learnt)):
        say(f"{title}:")
        for path in paths:
            say(f"  {path}")
    for title, one in trained.items():
        say(f"the run of {title}: {one.folder / 'report.html'}")


def _draw(out: Path, teacher: Detector, trained: dict[str, Trained]) -> tuple[list[Path], list[Path]]:
    """Draw the detections of the students, and the assignments by the judge."""
    _, scenes = split_scenes(0, max(_DRAWN) + 1)
    students = {title: load_detector(one.weights).eval() for title, one in trained.items()}
    judges = {
        "untrained student judges": _untrained(),
        "trained student judges": students["plain"],
        "teacher judges": teacher,
    }
    return (
        [_predictions(scenes, number, students, out / f"predictions-{number}.png") for number in _DRAWN],
        [_assignments(scenes, number, judges, out / f"assignment-{number}.png") for number in _DRAWN],
    )


def _untrained() -> Detector:
    torch.manual_seed(0)
    return detector_spec(STUDENT, CLASSES).build().eval()


def _predictions(scenes: Scenes, number: int, students: dict[str, Detector], path: Path) -> Path:
    """Draw as many detections of each student as there are objects: those of the highest scores."""
    scene = scenes.sample(number)
    panels = [Panel("truth", scene.image, scene.boxes, scene.labels)]
    for title, student in students.items():
        found = student.detect(_batch(scenes, number))[0]
        shown = found.scores.argsort(descending=True)[: len(scene.labels)]
        panels.append(Panel(title, scene.image, found.boxes[shown], found.labels[shown], found.scores[shown]))
    return side_by_side(panels, CLASSES, path)


def _assignments(scenes: Scenes, number: int, judges: dict[str, Detector], path: Path) -> Path:
    batch = _batch(scenes, number)
    plans, priors = _plans(judges, batch)
    return draw_assignment(batch.images[0], batch.truth, priors, plans, path)


@torch.no_grad()
def _plans(judges: dict[str, Detector], batch: Batch) -> tuple[dict[str, Assignment], Priors]:
    """The assignment by each judge, and the priors, which all of them have."""
    plans = {}
    for title, judge in judges.items():
        output = judge(batch.images, batch.sizes)[0]
        plans[title] = PAA()(output.predictions, output.priors, batch.truth)
    return plans, output.priors


def _batch(scenes: Scenes, number: int) -> Batch:
    return collate([scenes.sample(number)])
