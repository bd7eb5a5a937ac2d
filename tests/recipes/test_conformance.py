"""Every assigner trains every detector it supports, and overfits four scenes with its default family."""

from contextlib import contextmanager
from itertools import product
from types import SimpleNamespace

import pytest
import torch
from jaxtyping import config
from torch import nn

from ladle.data.loader import collate
from ladle.data.scenes import CLASSES, Difficulty, Scenes
from ladle.detectors import Detector
from ladle.evaluation import evaluate
from ladle.families import detector_spec, lessons_of
from ladle.methods import plan_for
from ladle.objectives import TrainingStep
from ladle.recipes.parts import ASSIGNERS
from ladle.teachers import FrozenDetector
from ladle.types import Batch, Term
from tests.families import DENSE, HOME, IN_STAGES

REFUSED = {("retinanet", "FCOS"), ("retinanet", "PseudoIoU")}
PAIRS = [pair for pair in product(DENSE, ASSIGNERS) if pair not in REFUSED]
AT_HOME = [(family, name) for family, name in HOME.items()] + [("fcos", "PseudoIoU"), ("fcos", "Hungarian")]
PLAIN = Difficulty(smallest=0.15, herd_rate=0.0, most_objects=6)
"""No object is smaller than two cells of the finest map, so that few steps are enough to learn them by heart."""


def scenes(count: int, difficulty: Difficulty | None = None) -> Batch:
    images = Scenes(count, size=96, difficulty=difficulty or Difficulty())
    return collate([images.sample(number) for number in range(count)])


def loss_of(terms: dict[str, Term]) -> torch.Tensor:
    return torch.stack(
        [term.total / torch.maximum(term.count, term.floor).clamp(min=1e-6) for term in terms.values()]
    ).sum()


def train(objective: nn.Module, batch: Batch, steps: int, lr: float) -> list[float]:
    optimizer = torch.optim.AdamW(objective.parameters(), lr=lr)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps + 1)
    losses = []
    for _ in range(steps):
        loss = loss_of(objective(batch))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(objective.parameters(), 10.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    return losses


@contextmanager
def shapes_unchecked():
    """For many steps like one that was checked."""
    config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        config.update("jaxtyping_disable", False)


def overfitted(student: Detector, objective: nn.Module) -> float:
    """The AP50 on four scenes after 60 steps on them."""
    batch = scenes(4, PLAIN)
    assert sum(real.sum() for real in batch.truth.valid) >= 8
    loss_of(objective(batch)).backward()  # checks the shapes
    with shapes_unchecked():
        train(objective, batch, steps=60, lr=7e-3)
    student.eval()
    return evaluate(references(batch), dict(enumerate(student.detect(batch))), CLASSES).ap50


def detector(family: str) -> Detector:
    torch.manual_seed(0)
    return detector_spec(f"{family}-tiny", CLASSES).build()


@pytest.mark.slow
@pytest.mark.parametrize(("family", "assigner"), PAIRS)
def test_every_pair_trains(family, assigner):
    student = detector(family)
    before = [parameter.detach().clone() for parameter in student.parameters()]
    losses = train(TrainingStep(student, lessons_of(student.spec, ASSIGNERS[assigner])), scenes(2), steps=2, lr=1e-3)
    assert all(torch.tensor(losses).isfinite())
    assert losses[0] > 0
    still = [name for (name, now), old in zip(student.named_parameters(), before) if torch.equal(now, old)]
    assert not still or (assigner != "AutoAssign" and still == ["stages.0.center_prior"]), f"{still} learnt nothing"


@pytest.mark.parametrize(("family", "assigner"), AT_HOME)
def test_a_teacher_can_judge_with_every_assigner(family, assigner):
    torch.manual_seed(1)
    teacher = FrozenDetector(detector_spec(f"{family}-tiny", CLASSES).build(), CLASSES)
    student = detector(family)
    plan = plan_for("lad", student.spec, teacher.detector.spec, ASSIGNERS[assigner])
    objective = TrainingStep(student, plan.lessons, teacher)
    loss_of(objective(scenes(2))).backward()
    assert any(parameter.grad.abs().sum() > 0 for parameter in student.parameters() if parameter.grad is not None)
    assert all(parameter.grad is None for parameter in teacher.detector.parameters())
    assert objective.monitor["positives_per_object"] > 0


@pytest.mark.slow
@pytest.mark.parametrize(("family", "assigner"), AT_HOME)
def test_four_scenes_are_overfitted(family, assigner):
    student = detector(family)
    assert overfitted(student, TrainingStep(student, lessons_of(student.spec, ASSIGNERS[assigner]))) > 0.7


@pytest.mark.slow
@pytest.mark.parametrize("family", IN_STAGES)
def test_four_scenes_are_overfitted_in_several_stages(family):
    student, lots = detector(family), torch.Generator().manual_seed(0)
    assert overfitted(student, TrainingStep(student, lessons_of(student.spec), generator=lots)) > 0.7


def references(batch: Batch) -> list[SimpleNamespace]:
    images = []
    for row, real in enumerate(batch.truth.valid):
        height, width = batch.originals[row].tolist()
        stretch = (batch.originals[row] / batch.sizes[row]).flip(0).repeat(2)
        boxes, labels = (batch.truth.boxes[row, real] * stretch).numpy(), batch.truth.labels[row, real].numpy()
        crowd = batch.truth.crowd[row, real].numpy()
        images.append(SimpleNamespace(id=row, height=height, width=width, boxes=boxes, labels=labels, crowd=crowd))
    return images
