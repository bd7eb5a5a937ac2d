"""The demo: one small student is trained with three methods on the same budget, and compared."""

from __future__ import annotations

from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import torch

from ladle.assigners import PAA
from ladle.data.loader import collate
from ladle.data.scenes import CLASSES, Scenes, split_scenes
from ladle.detectors import Detector, load_detector
from ladle.errors import UserError
from ladle.families import detector_spec
from ladle.recipes.console import say, table
from ladle.recipes.folders import asked_for_by
from ladle.recipes.options import Epochs, Run, Seed
from ladle.recipes.outputs import check_out, free_folder
from ladle.recipes.train import Trained, distill, train
from ladle.types import Batch
from ladle.visual import Panel, draw_assignment, side_by_side

__all__ = ["BUDGET", "STUDENT", "demo", "teacher_file"]

STUDENT = "paa-tiny"
BUDGET = Run(epochs=16, lr=0.004, jitter=0.0, crop=0.0, eval_every=16, quiet=True)
"""The training settings of every student; evaluated once, at the end, so that no epoch is selected by its score."""
_METHODS = {"plain": "plain", "lad": "LAD", "solad": "SoLAD"}
_MIN_SCORE = 0.5
"""Least score of a detection that is drawn; it is high because a score is the square root of two probabilities."""
_DRAWN = (3, 8, 21, 26)
"""Validation scenes that are drawn: they have few and many objects, small and large ones, and a crowd."""


def demo(
    out: str = "runs/demo",
    epochs: Epochs = BUDGET.epochs,
    seed: Seed = 0,
) -> dict[str, Trained]:
    """Train the same tiny student without distillation, with LAD and with SoLAD on the built-in scenes, and compare.

    The teacher is included in the package. Every student trains on the same images in the same order and starts from
    the same weights; only the judge and the soft labels differ.

    Args:
        out: folder for the runs and the drawings.
        epochs: number of epochs of every student.
        seed: seed of the initial weights and the order of the images.
    """
    check_out(out)
    if Path(out).name in ("", ".."):
        raise UserError(f"--out {out}: expected the path of a new folder, such as runs/demo")
    with asked_for_by("--out", out):
        folder = free_folder(Path(out))
    return _compare(folder, teacher_file(), replace(BUDGET, epochs=epochs, eval_every=epochs, seed=seed))


def teacher_file() -> Path:
    """The weight file of the teacher for the built-in scenes."""
    return Path(str(files("ladle") / "assets" / "scenes_teacher.safetensors"))


def _compare(out: Path, teacher: Path, budget: Run) -> dict[str, Trained]:
    say(f"Training {STUDENT} with three methods on the built-in scenes: {budget.epochs} epochs each.")
    trained: dict[str, Trained] = {}
    for method, title in _METHODS.items():
        run = replace(budget, name=method, project=str(out))
        if method == "plain":
            trained[title] = train("scenes", STUDENT, run)
        else:
            trained[title] = distill("scenes", STUDENT, str(teacher), method, run)
        one = trained[title]
        say(f"  {title:<6} {100 * one.evaluation.ap:.1f} AP after {one.seconds:.0f} s of training")
    rows = [{"method": t} | one.evaluation.row() | {"seconds": f"{one.seconds:.0f}"} for t, one in trained.items()]
    say(table(f"\n{STUDENT}, {budget.epochs} epochs, seed {budget.seed}", rows))
    for path in _draw(out, load_detector(teacher), trained):
        say(f"wrote {path}")
    return trained


def _draw(out: Path, teacher: Detector, trained: dict[str, Trained]) -> list[Path]:
    _, scenes = split_scenes(0, max(_DRAWN) + 1)
    students = {title: load_detector(one.weights).eval() for title, one in trained.items()}
    torch.manual_seed(0)
    untrained = detector_spec(STUDENT, CLASSES).build().eval()
    judges = {
        "untrained student judges": untrained,
        "trained student judges": students["plain"],
        "teacher judges": teacher.eval(),
    }
    return [
        *(_predictions(scenes, number, students, out / f"predictions-{number}.png") for number in _DRAWN),
        *(_assignments(scenes, number, judges, out / f"assignment-{number}.png") for number in _DRAWN),
    ]


def _predictions(scenes: Scenes, number: int, students: dict[str, Detector], path: Path) -> Path:
    scene = scenes.sample(number)
    panels = [Panel("truth", scene.image, scene.boxes, scene.labels)]
    for title, student in students.items():
        found = student.detect(_batch(scenes, number))[0]
        shown = found.scores >= _MIN_SCORE
        panels.append(Panel(title, scene.image, found.boxes[shown], found.labels[shown], found.scores[shown]))
    return side_by_side(panels, CLASSES, path)


@torch.no_grad()
def _assignments(scenes: Scenes, number: int, judges: dict[str, Detector], path: Path) -> Path:
    batch = _batch(scenes, number)
    plans = {}
    for title, judge in judges.items():
        output = judge(batch.images, batch.sizes)[0]
        plans[title] = PAA()(output.predictions, output.priors, batch.truth)
    return draw_assignment(batch.images[0], batch.truth, output.priors, plans, path)


def _batch(scenes: Scenes, number: int) -> Batch:
    return collate([scenes.sample(number)])
