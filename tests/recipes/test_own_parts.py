"""Custom parts work like those of Ladle: a family by one value, an assigner by one class."""

from dataclasses import dataclass, replace

import pytest
import torch

import ladle.families
from ladle.assigners import OverlapAssigner
from ladle.criteria import DenseCriterion
from ladle.data.loader import collate
from ladle.data.scenes import CLASSES, split_scenes
from ladle.errors import UserError
from ladle.families import FCOS, detector_spec, families, lessons_of
from ladle.methods import plan_for
from ladle.objectives import TrainingStep
from ladle.teachers import FrozenDetector
from ladle.types import Assignment


@dataclass(frozen=True)
class NearestCenter:
    """A prior learns the object with the nearest center, within some strides; a teacher's boxes replace the priors."""

    strides: float = 1.5
    boxes: str = "priors"
    power: float = 0.0

    def judged_by_teacher(self, keep_count, class_power, ignore_rejected):
        """The version in which a teacher's boxes replace the priors."""
        return replace(self, boxes="predictions", power=class_power)

    def __call__(self, predictions, priors, truth):
        """Assign by distance."""
        boxes = predictions.boxes if self.boxes == "predictions" else priors.boxes.expand(len(truth.labels), -1, -1)
        middles = (truth.boxes[..., :2] + truth.boxes[..., 2:]) / 2
        apart = torch.cdist((boxes[..., :2] + boxes[..., 2:]) / 2, middles)
        distance, index = apart.masked_fill(~truth.valid.unsqueeze(1), torch.inf).min(-1)
        near = (distance < self.strides * priors.stride) & priors.valid
        return Assignment.hard(index, near, priors.valid.expand_as(near))


@pytest.fixture(scope="module")
def batch():
    scenes, _ = split_scenes(2, 1)
    return collate([scenes.sample(number) for number in range(2)])


@pytest.fixture
def mine(monkeypatch):
    """A family as one file and one line of ``ladle.families`` would add it."""
    family = replace(FCOS, name="mine", assigner=NearestCenter(), criterion=DenseCriterion(box_weight=3.0))
    monkeypatch.setattr(ladle.families, "MINE", family, raising=False)
    return family


def trained(student, objective, batch):
    """The losses of two steps."""
    optimizer = torch.optim.SGD(student.parameters(), lr=0.01)
    losses = []
    for _ in range(2):
        terms = objective(batch)
        losses.append(torch.stack([one.total / one.count.clamp(min=1) for one in terms.values()]).sum())
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    return [float(loss.detach()) for loss in losses]


def test_a_family_is_chosen_by_its_name_and_trains(mine, batch):
    assert families()["mine"] is mine
    torch.manual_seed(0)
    spec = detector_spec("mine-tiny", CLASSES)
    student, lessons = spec.build(), lessons_of(spec)
    assert (lessons[0].assigner, lessons[0].criterion.box_weight) == (NearestCenter(), 3.0)
    first, second = trained(student, TrainingStep(student, lessons), batch)
    assert second < first


def test_an_assigner_of_ones_own_is_judged_by_a_teacher(mine, batch):
    assert isinstance(NearestCenter(), OverlapAssigner)
    torch.manual_seed(0)
    spec = detector_spec("mine-tiny", CLASSES)
    student, teacher = spec.build(), FrozenDetector(spec.build(), CLASSES)
    plan = plan_for("lad", spec, spec)
    assert (plan.lessons[0].assigner_at(None).boxes, plan.lessons[0].assigner) == ("predictions", NearestCenter())
    objective = TrainingStep(student, plan.lessons, teacher)
    first, second = trained(student, objective, batch)
    assert second < first
    assert objective.monitor["positives_per_object"] > 0


def test_a_family_that_is_none_of_ours_is_named():
    spec = replace(detector_spec("fcos-tiny", CLASSES), family="theirs")
    with pytest.raises(UserError, match="there is no family 'theirs'"):
        lessons_of(spec)
