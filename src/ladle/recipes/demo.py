"""The whole idea in five minutes: one small student, one budget, three ways to be taught."""

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
"""What every student of the demo gets; scored once, at the end, so that no epoch is chosen by its score."""
_WAYS = {"plain": "plain", "lad": "LAD", "solad": "SoLAD"}
_SURE = 0.5
"""Least score of a detection that is drawn; the square root of two probabilities, hence so high."""
_PICTURES = (3, 8, 21, 26)
"""Validation scenes that are drawn: they hold few and many objects, small and large ones, and a crowd."""


def demo(
    out: str = "runs/demo",
    epochs: Epochs = BUDGET.epochs,
    seed: Seed = 0,
) -> dict[str, Trained]:
    """Train the same tiny student plainly, with LAD and with SoLAD on the built-in scenes, and compare.

    The teacher comes with the package. Every student sees the same images in the same order and starts from the
    same weights; only who decides which prior learns which object, and the soft labels, differ.

    Args:
        out: folder for the runs and the images.
        epochs: budget of every student.
        seed: of the first weights and the order of the images.
    """
    check_out(out)
    if Path(out).name in ("", ".."):
        raise UserError(f"--out {out}: expected the path of a folder that is to be made, such as runs/demo")
    with asked_for_by("--out", out):
        folder = free_folder(Path(out))
    return _compare(folder, teacher_file(), replace(BUDGET, epochs=epochs, eval_every=epochs, seed=seed))


def teacher_file() -> Path:
    """Where the teacher of the built-in scenes lies."""
    return Path(str(files("ladle") / "assets" / "scenes_teacher.safetensors"))


def _compare(out: Path, teacher: Path, budget: Run) -> dict[str, Trained]:
    say(f"StageDistillation {STUDENT} three ways on the built-in scenes: {budget.epochs} epochs each.")
    trained: dict[str, Trained] = {}
    for way, title in _WAYS.items():
        run = replace(budget, name=way, project=str(out))
        if way == "plain":
            trained[title] = train("scenes", STUDENT, run)
        else:
            trained[title] = distill("scenes", STUDENT, str(teacher), way, run)
        one = trained[title]
        say(f"  {title:<6} {100 * one.evaluation.ap:.1f} AP after {one.seconds:.0f} s of training")
    rows = [{"method": t} | one.evaluation.row() | {"seconds": f"{one.seconds:.0f}"} for t, one in trained.items()]
    say(table(f"\n{STUDENT}, {budget.epochs} epochs, seed {budget.seed}", rows))
    for path in _draw(out, load_detector(teacher), trained):
        say(f"wrote {path}")
    return trained


def _draw(out: Path, teacher: Detector, trained: dict[str, Trained]) -> list[Path]:
    _, scenes = split_scenes(0, max(_PICTURES) + 1)
    students = {title: load_detector(one.weights).eval() for title, one in trained.items()}
    torch.manual_seed(0)
    beginner = detector_spec(STUDENT, CLASSES).build().eval()
    judges = {
        "untrained student judges": beginner,
        "trained student judges": students["plain"],
        "teacher judges": teacher.eval(),
    }
    return [
        *(_predictions(scenes, number, students, out / f"predictions-{number}.png") for number in _PICTURES),
        *(_assignments(scenes, number, judges, out / f"assignment-{number}.png") for number in _PICTURES),
    ]


def _predictions(scenes: Scenes, number: int, students: dict[str, Detector], path: Path) -> Path:
    scene = scenes.sample(number)
    panels = [Panel("truth", scene.image, scene.boxes, scene.labels)]
    for title, student in students.items():
        found = student.detect(_alone(scenes, number))[0]
        sure = found.scores >= _SURE
        panels.append(Panel(title, scene.image, found.boxes[sure], found.labels[sure], found.scores[sure]))
    return side_by_side(panels, CLASSES, path)


@torch.no_grad()
def _assignments(scenes: Scenes, number: int, judges: dict[str, Detector], path: Path) -> Path:
    batch = _alone(scenes, number)
    plans = {}
    for title, judge in judges.items():
        output = judge(batch.images, batch.sizes)[0]
        plans[title] = PAA()(output.predictions, output.priors, batch.truth)
    return draw_assignment(batch.images[0], batch.truth, output.priors, plans, path)


def _alone(scenes: Scenes, number: int) -> Batch:
    return collate([scenes.sample(number)])
