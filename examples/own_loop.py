"""A custom training loop: plain PyTorch with a Ladle objective, here SoLAD.

An objective is an ``nn.Module`` that takes a batch and returns named terms, each still to be divided by its count.
Takes some ten seconds on a CPU::

    python examples/own_loop.py
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from ladle import FrozenDetector, Lesson, TrainingStep, load_detector
from ladle.assigners import PAA
from ladle.data.loader import make_loader
from ladle.data.scenes import split_scenes
from ladle.distillers import SoftLabels
from ladle.families import detector_spec, families
from ladle.lessons import TeacherJudges
from ladle.recipes.demo import teacher_file
from ladle.types import Term


def total(terms: Iterable[Term]) -> Tensor:
    """The loss of one process: every term divided by its count, or by its floor if that is larger."""
    return torch.stack([term.total / torch.maximum(term.count, term.floor).clamp(min=1e-9) for term in terms]).sum()


def main(epochs: int = 2, images: int = 64) -> list[float]:
    """Distill for some epochs; return the mean loss of each."""
    torch.manual_seed(0)
    train, val = split_scenes(train=images, val=2, size=96)
    student = detector_spec("paa-tiny", train.classes, imgsz=96).build()
    teacher = load_detector(teacher_file())
    objective = TrainingStep(
        student,
        [Lesson(PAA(), families()["paa"].criterion, (SoftLabels(),), judge=TeacherJudges())],
        teacher=FrozenDetector(teacher, train.classes),
    )
    loader = make_loader(train, batch=8, imgsz=96, shuffle=True, drop_last=True)
    # The teacher is not among the objective's parameters: it cannot be trained by mistake.
    optimizer = torch.optim.AdamW(objective.parameters(), lr=0.003)

    losses = []
    for epoch in range(epochs):
        loader.set_epoch(epoch)
        objective.train()
        seen = []
        for batch in loader:
            loss = total(objective(batch).values())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            seen.append(loss.item())
        losses.append(sum(seen) / len(seen))
        print(f"epoch {epoch + 1}: loss {losses[-1]:.3f}")

    student.eval()
    for batch in make_loader(val, batch=2, imgsz=96):
        for name, found in zip(batch.ids, student.detect(batch), strict=True):
            print(f"scene {name}: {len(found.boxes)} objects found, the highest score is {found.scores[0]:.2f}")
    return losses


if __name__ == "__main__":
    main()
