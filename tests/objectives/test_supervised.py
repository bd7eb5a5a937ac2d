"""The identities that make distillation trustworthy."""

import pytest
import torch

from ladle.assigners import PAA
from ladle.criteria import DenseCriterion
from ladle.distillers import SoftLabels
from ladle.families import Start, detector_spec
from ladle.objectives import Lesson, Supervised
from ladle.teachers import FrozenDetector
from ladle.types import Batch, GroundTruth

CLASSES = ("disc", "ring", "star")
SPEC = detector_spec("paa-tiny", CLASSES, start=Start(norm="group"))
"""Group normalization: the network says the same in training and in evaluation."""


def build(seed):
    torch.manual_seed(seed)
    return SPEC.build()


def batch(seed):
    generator = torch.Generator().manual_seed(seed)
    low = torch.rand(2, 4, 2, generator=generator) * 60
    boxes = torch.cat([low, low + 8 + 40 * torch.rand(2, 4, 2, generator=generator)], -1)
    labels = torch.randint(3, (2, 4), generator=generator)
    images = torch.randint(256, (2, 3, 96, 128), dtype=torch.uint8, generator=generator)
    sizes = torch.tensor([[96, 128], [90, 100]])
    return Batch(images, GroundTruth.pad(list(boxes), list(labels)), sizes, sizes, (seed, -seed))


def train(objective, steps=3):
    optimizer = torch.optim.SGD(objective.parameters(), lr=0.01, momentum=0.9)
    for step in range(steps):
        terms = objective(batch(step))
        loss = sum(t.total / torch.maximum(t.count, t.floor).clamp(min=1e-9) for t in terms.values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return objective.student.state_dict()


def same(first, second):
    return all(torch.equal(first[name], second[name]) for name in first)


LESSON = Lesson(PAA(), DenseCriterion())


def test_distillation_of_weight_zero_is_exactly_plain_training():
    nothing = Lesson(PAA(), DenseCriterion(), (SoftLabels(weight=0, quality=0, box=0),))
    plain = train(Supervised(build(0), [LESSON]))
    taught = train(Supervised(build(0), [nothing], FrozenDetector(build(1), CLASSES)))
    assert same(plain, taught)


def test_distillation_of_some_weight_is_not_plain_training():
    some = Lesson(PAA(), DenseCriterion(), (SoftLabels(weight=0.1),))
    plain = train(Supervised(build(0), [LESSON]))
    assert not same(plain, train(Supervised(build(0), [some], FrozenDetector(build(1), CLASSES))))


class Mirror:
    """A teacher whose weights are the student's own, at every step."""

    def __init__(self, student):
        self.student = student

    def to(self, device):
        return self

    @torch.no_grad()
    def __call__(self, images, sizes, priors):
        return self.student(images, sizes, priors=priors)


def test_a_teacher_with_the_students_own_weights_judges_exactly_as_the_student():
    plain = train(Supervised(build(0), [LESSON]))
    student = build(0)
    assert same(plain, train(Supervised(student, [LESSON], Mirror(student), judge="teacher")))


def test_a_frozen_copy_of_the_student_teaches_the_first_step_exactly():
    plain = train(Supervised(build(0), [LESSON]), steps=1)
    copy = FrozenDetector(build(0), CLASSES)
    assert same(plain, train(Supervised(build(0), [LESSON], copy, judge="teacher"), steps=1))


def test_another_teacher_judges_differently():
    plain = train(Supervised(build(0), [LESSON]))
    assert not same(plain, train(Supervised(build(0), [LESSON], FrozenDetector(build(1), CLASSES), judge="teacher")))


def test_the_teacher_is_in_no_parameter_no_state_and_never_trains():
    teacher = FrozenDetector(build(1), CLASSES)
    before = {name: value.clone() for name, value in teacher.detector.state_dict().items()}
    student = build(0)
    objective = Supervised(student, [LESSON], teacher, judge="teacher")
    assert sum(1 for _ in objective.parameters()) == sum(1 for _ in student.parameters())
    assert {name.removeprefix("student.") for name in objective.state_dict()} == set(student.state_dict())
    train(objective.train())
    assert same(before, teacher.detector.state_dict())
    assert not any(module.training for module in teacher.detector.modules())
    assert not any(parameter.requires_grad for parameter in teacher.detector.parameters())


def test_a_judge_that_is_not_given_is_refused():
    with pytest.raises(ValueError, match="must be given"):
        Supervised(build(0), [LESSON], judge="teacher")
    with pytest.raises(ValueError, match="must be given"):
        Supervised(build(0), [Lesson(PAA(), DenseCriterion(), (SoftLabels(),))])


def test_without_a_criterion_only_the_teacher_teaches():
    objective = Supervised(build(0), [Lesson(PAA(), None, (SoftLabels(),))], FrozenDetector(build(1), CLASSES))
    assert set(objective(batch(0))) == {"soft_class", "soft_box", "soft_quality"}


class Decoder(torch.nn.Module):
    """A student in two stages with one head: what it says is said twice."""

    def __init__(self):
        super().__init__()
        self.net = build(0)

    def forward(self, images, sizes, truth):
        return self.net(images, sizes) * 2


class Echo(FrozenDetector):
    """A teacher of such a student."""

    def __call__(self, images, sizes, priors, inside=None):
        return super().__call__(images, sizes, priors[:1], inside) * 2


def test_stages_share_no_name_and_each_pays_its_own_losses():
    lessons = [Lesson(PAA(), DenseCriterion(box_weight=weight), (SoftLabels(),)) for weight in (1.0, 2.0)]
    alone = Supervised(build(0), lessons[:1], FrozenDetector(build(1), CLASSES))(batch(0))
    objective = Supervised(Decoder(), lessons, Echo(build(1), CLASSES))
    terms = objective(batch(0))
    assert set(terms) == {f"stage_{number}/{name}" for number in (1, 2) for name in alone}
    for name, term in alone.items():
        factor = 2 if name == "box" else 1
        torch.testing.assert_close(terms[f"stage_1/{name}"].total, term.total)
        torch.testing.assert_close(terms[f"stage_2/{name}"].total, factor * term.total)
    assert objective.distilled == {name for name in terms if "soft" in name}
    assert set(objective.monitor) == {f"stage_{number}/positives_per_object" for number in (1, 2)}


def test_a_criterion_and_a_distiller_cannot_hide_each_other():
    def distil(*given):
        return {"box": SoftLabels()(*given)["soft_box"]}

    lesson = Lesson(PAA(), DenseCriterion(), (distil,))
    with pytest.raises(ValueError, match="two losses are called box"):
        Supervised(build(0), [lesson], FrozenDetector(build(1), CLASSES))(batch(0))


def test_positives_per_object_are_monitored():
    objective = Supervised(build(0), [LESSON])
    objective(batch(0))
    assert float(objective.monitor["positives_per_object"]) > 0
