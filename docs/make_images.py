"""Draw the images of the documentation into ``docs/images``.

    python docs/make_images.py [WEIGHTS]

The judge is the teacher of the built-in scenes that comes with the package, or the detector in WEIGHTS. The scenes are
validation scenes: no teacher has trained on them.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from distiller_images import maps_of_distillers, plans_of_distillers
from PIL import Image

from ladle import assign_stats
from ladle.assigners import (
    ATSS,
    FCOS,
    OTA,
    PAA,
    Assigner,
    AutoAssign,
    DynamicSoftLabel,
    Hungarian,
    MaxIoU,
    PseudoIoU,
    RandomSampler,
    SimOTA,
    TaskAligned,
)
from ladle.data.loader import collate
from ladle.data.scenes import CLASSES, split_scenes
from ladle.detectors import Detector, load_detector
from ladle.families import detector_spec, lessons_of
from ladle.recipes.demo import teacher_file
from ladle.types import Assignment, Batch, Output, Priors
from ladle.visual import draw_assignment, draw_maps

FOLDER = Path(__file__).parent / "images"
STUDENT = "paa-tiny"
HOLLOW, CROWDED, HIDDEN = 25, 34, 12
"""Validation scenes: a ring that is empty in the middle, a crowd, objects behind one another."""
WIDTH, GRAIN = 1100, 10
"""Of the images in pixels, and of their colors."""

Judge = Callable[[Batch], Output]


def main(weights: Path) -> None:
    """Draw every image, with the detector in ``weights`` as the judge."""
    torch.manual_seed(0)
    student, teacher = _judge(detector_spec(STUDENT, CLASSES).build()), _judge(load_detector(weights))
    _draw_judges(student, teacher)
    _draw_assigners(_scene(HIDDEN), teacher(_scene(HIDDEN)))
    _draw_judged(_scene(HIDDEN), student(_scene(HIDDEN)), teacher(_scene(HIDDEN)))
    _draw_distillers(_scene(HIDDEN), student(_scene(HIDDEN)), weights)
    _draw_sample(_scene(CROWDED))
    _draw_statistics(weights)


def _draw_judges(student: Judge, teacher: Judge) -> None:
    batch = _scene(HOLLOW)
    judges = {"an untrained student judges": student(batch), "its teacher judges": teacher(batch)}
    _draw(
        "assignment",
        batch,
        student(batch).priors,
        {title: _assign(PAA(), batch, output) for title, output in judges.items()},
    )
    batch = _scene(CROWDED)
    plans = {
        "all candidates, without a judge": _assign(PAA().pool, batch, student(batch)),
        "an untrained student judges": _assign(PAA(), batch, student(batch)),
        "its teacher judges: LAD": _assign(PAA(), batch, teacher(batch)),
    }
    _draw("lad", batch, student(batch).priors, plans)


def _draw_assigners(batch: Batch, output: Output) -> None:
    """The rules with other settings of theirs; where predictions count, they are the teacher's."""
    judged = "the teacher's boxes"
    rules: dict[str, dict[str, Assigner]] = {
        "max_iou": {
            "MaxIoU()": MaxIoU(),
            "MaxIoU(rescue=None)": MaxIoU(rescue=None),
            f"MaxIoU(), {judged}, counts kept": MaxIoU(boxes="predictions", keep_count=True),
        },
        "atss": {
            "ATSS()": ATSS(),
            f"ATSS(), {judged}": ATSS(boxes="predictions"),
            f"ATSS(), {judged}, counts kept": ATSS(boxes="predictions", keep_count=True),
        },
        "fcos": {
            "FCOS()": FCOS(),
            "FCOS(radius=None)": FCOS(radius=None),
            f"FCOS(), {judged}": FCOS(boxes="predictions"),
        },
        "pseudo_iou": {f"PseudoIoU({least})": PseudoIoU(least) for least in (0.2, 0.4, 0.6)},
        "paa": {"PAA().pool": PAA().pool, "PAA()": PAA(), "PAA(topk=3)": PAA(topk=3)},
        "sim_ota": {
            'SimOTA(candidates="center")': SimOTA(),
            'SimOTA(candidates="center or box")': SimOTA(radius=2.5, candidates="center or box", penalty=1e5),
        },
        "dynamic_soft_label": {
            "DynamicSoftLabel()": DynamicSoftLabel(),
            "DynamicSoftLabel(topk=5)": DynamicSoftLabel(topk=5),
        },
    }
    for name, assigners in rules.items():
        _draw(name, batch, output.priors, {title: _assign(rule, batch, output) for title, rule in assigners.items()})


def _draw_judged(batch: Batch, student: Output, teacher: Output) -> None:
    """The rules that look at predictions, for two judges: one that knows nothing and one that does."""
    rules: dict[str, Assigner] = {
        "ota": OTA(),
        "task_aligned": TaskAligned(),
        "auto_assign": AutoAssign(),
        "hungarian": Hungarian(),
    }
    for name, rule in rules.items():
        judges = {"an untrained student judges": student, "the teacher judges": teacher}
        plans = {title: _by_object(_assign(rule, batch, output), batch) for title, output in judges.items()}
        _draw(name, batch, student.priors, plans)


def _draw_sample(batch: Batch) -> None:
    """What a proposal network learns from: anchors alone decide, so no detector is trained."""
    detector = detector_spec("fasterrcnn-tiny", CLASSES).build()
    (lesson, _), output = lessons_of(detector.spec), _judge(detector)(batch)
    plan = _assign(lesson.assigner, batch, output)
    plans = {
        "the whole plan": plan,
        "RandomSampler(256, 0.5)": RandomSampler(256, 0.5)(plan, torch.Generator().manual_seed(0)),
    }
    _draw("sampling", batch, output.priors, plans)


def _draw_statistics(weights: Path) -> None:
    """The chart of ``ladle assign stats``."""
    with TemporaryDirectory() as folder:
        assign_stats("scenes", weights, images=200, out=folder)
        shutil.copy(Path(folder) / "stats.png", FOLDER / "assign.png")
    _shrink(FOLDER / "assign.png")


def _by_object(plan: Assignment, batch: Batch) -> Assignment:
    """Strengths as shares of the largest of their object, so that a faint dot means the same in every box."""
    dense = plan.dense(batch.truth.labels.shape[1])
    largest = dense.amax(1, keepdim=True).clamp(min=1e-30)
    return replace(plan, affinity=plan.affinity / largest.expand_as(dense).gather(2, plan.objects))


def _draw_distillers(batch: Batch, beginner: Output, weights: Path) -> None:
    """What counts for each distiller: dots on priors, shades on maps."""
    teacher = load_detector(weights)
    student = detector_spec(teacher.spec.name, CLASSES).build()
    for name, plans in plans_of_distillers(batch, beginner, _judge(teacher)(batch)).items():
        _draw(name, batch, beginner.priors, plans)
    for name, maps in maps_of_distillers(batch, student, teacher).items():
        file = FOLDER / f"{name}.png"
        draw_maps(batch.images[0], batch.truth, maps, file)
        _shrink(file)


def _judge(detector: Detector) -> Judge:
    detector.eval()

    @torch.no_grad()
    def say(batch: Batch) -> Output:
        return detector(batch.images, batch.sizes)[0]

    return say


def _scene(number: int) -> Batch:
    _, scenes = split_scenes(0, number + 1)
    return collate([scenes.sample(number)])


def _assign(rule: Assigner, batch: Batch, output: Output) -> Assignment:
    return rule(output.predictions, output.priors, batch.truth)


def _draw(name: str, batch: Batch, priors: Priors, plans: dict[str, Assignment]) -> None:
    file = FOLDER / f"{name}.png"
    draw_assignment(batch.images[0], batch.truth, priors, plans, file)
    _shrink(file)


def _shrink(file: Path) -> None:
    drawn = Image.open(file).convert("RGB")
    small = drawn.resize((WIDTH, round(drawn.height * WIDTH / drawn.width)), Image.Resampling.LANCZOS)
    # Without the lowest bits of the scenes' noise an image takes a fraction of the space.
    small.point(lambda value: min(255, round(value / GRAIN) * GRAIN)).save(file, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else teacher_file())
