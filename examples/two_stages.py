"""Two stages: a Faster R-CNN that is taught in both by another one.

Each stage has a lesson and a judge of its own. Where the teacher judges, it says what it makes of the *student's*
anchors and proposals, and the rule of overlap looks at that. Takes some twenty seconds on a CPU::

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
from ladle.objectives import Staged

Judge = Literal["student", "teacher"]


def lessons(judge: Judge) -> list[Lesson]:
    """What the proposal network and the region head learn, and by which rule."""
    anchors = MaxIoU(positive=0.7, negative=0.3, rescued="prior")
    proposals = MaxIoU(positive=0.5, negative=0.5, rescue=None)
    if judge == "teacher":
        # Refined boxes overlap far better than anchors: each object keeps its number of positives. In the region head
        # the teacher's score counts too, and proposals that it turns down are ignored.
        anchors = MaxIoU(0.7, 0.3, rescued="prior", boxes="predictions", keep_count=True)
        proposals = MaxIoU(
            0.5, 0.5, rescue=None, boxes="predictions", keep_count=True, class_power=1.0, ignore_rejected=True
        )
    return [
        Lesson(anchors, RegionCriterion(stds=PLAIN_STDS), sampler=RandomSampler(256, 0.5)),
        Lesson(proposals, RegionCriterion(), sampler=RandomSampler(128, 0.25)),
    ]


def learn(objective: Staged, scenes: Scenes, epochs: int) -> Iterator[dict[str, float]]:
    """Train, and tell the mean of each loss after every epoch."""
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
    """Train a teacher by itself and a student under it; return the student's losses of each epoch."""
    torch.manual_seed(0)
    scenes, _ = split_scenes(train=images, val=1, size=96)
    teacher = detector_spec("fasterrcnn-mini", scenes.classes, imgsz=96).build()
    for losses in learn(Staged(teacher, lessons("student")), scenes, epochs):
        print("teacher:", ", ".join(f"{name} {value:.3f}" for name, value in losses.items()))

    student = detector_spec("fasterrcnn-tiny", scenes.classes, imgsz=96).build()
    both = [lessons(judge)[stage] for stage, judge in enumerate(judges)]
    objective = Staged(student, both, FrozenDetector(teacher, scenes.classes), judges)
    told = []
    for losses in learn(objective, scenes, epochs):
        print("student:", ", ".join(f"{name} {value:.3f}" for name, value in losses.items()))
        told.append(losses)
    return told


if __name__ == "__main__":
    main()
