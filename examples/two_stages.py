"""Two-stage distillation: a Faster R-CNN with another one as its teacher in both stages.

Each stage has a lesson. If the teacher judges, the assigner is given the teacher's predictions at the *student's*
anchors and proposals. Takes some twenty seconds on a CPU::

    python examples/two_stages.py
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import torch
from torch import nn

from ladle import FrozenDetector, Lesson
from ladle.assigners import MaxIoU, RandomSampler
from ladle.criteria import RegionCriterion
from ladle.data.loader import make_loader
from ladle.data.scenes import Scenes, split_scenes
from ladle.detectors import PLAIN_STDS
from ladle.families import detector_spec
from ladle.lessons import TeacherJudges
from ladle.objectives import TrainingStep

Judge = Literal["student", "teacher"]


def lessons(judges: Sequence[Judge]) -> list[Lesson]:
    """The lessons of the proposal network and of the region head."""
    # Refined boxes overlap objects far better than anchors, so each object keeps its number of positives. In the region
    # head overlaps are multiplied by the teacher's class score, and proposals that it rejects are ignored.
    rpn, roi = TeacherJudges(keep_count=True), TeacherJudges(keep_count=True, class_power=1.0, ignore_rejected=True)
    return [
        Lesson(
            MaxIoU(positive=0.7, negative=0.3, rescued="prior"),
            RegionCriterion(stds=PLAIN_STDS),
            sampler=RandomSampler(256, 0.5),
            judge=rpn if judges[0] == "teacher" else None,
        ),
        Lesson(
            MaxIoU(positive=0.5, negative=0.5, rescue=None),
            RegionCriterion(),
            sampler=RandomSampler(128, 0.25),
            judge=roi if judges[1] == "teacher" else None,
        ),
    ]


def learn(objective: TrainingStep, scenes: Scenes, epochs: int) -> Iterator[dict[str, float]]:
    """Train, and yield the mean of each loss after every epoch."""
    optimizer = torch.optim.AdamW(objective.parameters(), lr=0.002)
    loader = make_loader(scenes, batch=4, imgsz=scenes.size, shuffle=True, drop_last=True)
    for epoch in range(epochs):
        loader.set_epoch(epoch)
        objective.train()
        sums: dict[str, float] = {}
        for batch in loader:
            terms = objective(batch)
            parts = {name: term.total / term.count.maximum(term.floor).clamp(min=1e-9) for name, term in terms.items()}
            loss = torch.stack([*parts.values()]).sum()
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(objective.parameters(), 10.0)
            optimizer.step()
            sums = {name: sums.get(name, 0.0) + part.item() for name, part in parts.items()}
        yield {name: value / len(loader) for name, value in sums.items()}


def main(epochs: int = 3, images: int = 24, judges: Sequence[Judge] = ("teacher", "teacher")) -> list[dict[str, float]]:
    """Train a teacher and then distill it into a student; return the student's losses of each epoch."""
    torch.manual_seed(0)
    scenes, _ = split_scenes(train=images, val=1, size=96)
    teacher = detector_spec("fasterrcnn-mini", scenes.classes, imgsz=96).build()
    for losses in learn(TrainingStep(teacher, lessons(("student", "student"))), scenes, epochs):
        print("teacher:", ", ".join(f"{name} {value:.3f}" for name, value in losses.items()))

    student = detector_spec("fasterrcnn-tiny", scenes.classes, imgsz=96).build()
    objective = TrainingStep(student, lessons(judges), FrozenDetector(teacher, scenes.classes))
    history = []
    for losses in learn(objective, scenes, epochs):
        print("student:", ", ".join(f"{name} {value:.3f}" for name, value in losses.items()))
        history.append(losses)
    return history


if __name__ == "__main__":
    main()
