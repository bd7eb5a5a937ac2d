"""Draw the images of detectors in two stages into ``docs/images``: plans with and without a teacher.

    ladle train --data scenes:3000 --model fasterrcnn-small --epochs 12 --lr 0.003 --jitter 0 --crop 0 --name teacher
    ladle train --data scenes --model fasterrcnn-tiny --epochs 8 --lr 0.004 --jitter 0 --crop 0 --name student
    python docs/two_stage_images.py STUDENT TEACHER

STUDENT and TEACHER are the weights that these two runs leave: the package holds no detector in two stages.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from make_images import HIDDEN, _draw, _scene

from ladle.detectors import Detector, load_detector
from ladle.methods import plan_for
from ladle.teachers import FrozenDetector
from ladle.types import Assignment, Batch, Output, Priors

TITLES = {"plain": "the student's own rule", "lad": "judged by the teacher"}


def main(student: Path, teacher: Path) -> None:
    """Draw the plan of either stage, by the student's own rule and judged by the teacher."""
    torch.manual_seed(0)
    batch, own = _scene(HIDDEN), load_detector(student).eval()
    guide = FrozenDetector(load_detector(teacher), own.spec.classes)
    for name, (priors, plans) in zip(("two_stages_rpn", "two_stages"), _stages(own, guide, batch), strict=True):
        _draw(name, batch, priors, plans)


@torch.no_grad()
def _stages(own: Detector, guide: FrozenDetector, batch: Batch) -> list[tuple[Priors, dict[str, Assignment]]]:
    """For each stage its priors and their plans, before a sample is drawn; without ground truth among the proposals."""
    features, seen = own.extract_features(batch.images), guide.observe(batch)
    lessons = {method: plan_for(method, own.spec, guide.detector.spec).lessons for method in TITLES}
    objects = batch.truth.one_class()
    previous: Output | None = None
    stages = []
    for number, stage in enumerate(own.chain):
        priors = stage.propose(features, previous, None, batch.sizes)
        said = stage(features, priors)[0]
        judged = guide.predict_at(seen, priors, number, stage.class_agnostic).predictions
        truth = objects if stage.class_agnostic else batch.truth
        plans = {
            title: lessons[method][number].assigner_at(None)(judged if method == "lad" else said, priors, truth)
            for method, title in TITLES.items()
        }
        stages.append((priors, plans))
        previous = Output(said, priors, features, batch.sizes)
    return stages


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
