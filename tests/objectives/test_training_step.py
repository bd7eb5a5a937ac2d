"""The identities that make distillation trustworthy."""

from copy import deepcopy
from dataclasses import dataclass

import pytest
import torch

from ladle.assigners import ATSS, PAA
from ladle.criteria import DenseCriterion
from ladle.distillers import PKD, SoftLabels, Summary
from ladle.families import Start, detector_spec
from ladle.lessons import Lesson, TeacherJudges
from ladle.objectives import TrainingStep
from ladle.teachers import FrozenDetector
from ladle.types import Batch, GroundTruth, Output

METRICS = ("positives_per_object", "unassigned", "unassigned_small", "unassigned_medium", "unassigned_large")

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
JUDGED = Lesson(PAA(), DenseCriterion(), judge=TeacherJudges())


def test_distillation_of_weight_zero_is_exactly_plain_training():
    nothing = Lesson(PAA(), DenseCriterion(), (SoftLabels(class_weight=0, quality_weight=0, box_weight=0),))
    plain = train(TrainingStep(build(0), [LESSON]))
    taught = train(TrainingStep(build(0), [nothing], FrozenDetector(build(1), CLASSES)))
    assert same(plain, taught)


def test_distillation_of_some_weight_is_not_plain_training():
    some = Lesson(PAA(), DenseCriterion(), (SoftLabels(class_weight=0.1),))
    plain = train(TrainingStep(build(0), [LESSON]))
    assert not same(plain, train(TrainingStep(build(0), [some], FrozenDetector(build(1), CLASSES))))


class Mirror(FrozenDetector):
    """A teacher whose weights are the student's own, at every step."""

    def __init__(self, student):
        super().__init__(deepcopy(student), CLASSES)
        self.student = student

    @torch.no_grad()
    def observe(self, batch):
        return self.student.extract_features(batch.images)

    @torch.no_grad()
    def predict_at(self, seen, priors, stage=0, class_agnostic=False, tower_depth=None):
        predictions, towers = self.student.chain[stage](seen, priors, tower_depth)
        return Output(predictions, priors, seen, None, towers)


def test_a_teacher_with_the_students_own_weights_judges_exactly_as_the_student():
    plain = train(TrainingStep(build(0), [LESSON]))
    student = build(0)
    assert same(plain, train(TrainingStep(student, [JUDGED], Mirror(student))))


def test_a_frozen_copy_of_the_student_teaches_the_first_step_exactly():
    plain = train(TrainingStep(build(0), [LESSON]), steps=1)
    copy = FrozenDetector(build(0), CLASSES)
    assert same(plain, train(TrainingStep(build(0), [JUDGED], copy), steps=1))


def test_another_teacher_judges_differently():
    plain = train(TrainingStep(build(0), [LESSON]))
    assert not same(plain, train(TrainingStep(build(0), [JUDGED], FrozenDetector(build(1), CLASSES))))


def test_the_teacher_is_in_no_parameter_no_state_and_never_trains():
    teacher = FrozenDetector(build(1), CLASSES)
    before = {name: value.clone() for name, value in teacher.detector.state_dict().items()}
    student = build(0)
    objective = TrainingStep(student, [JUDGED], teacher)
    assert sum(1 for _ in objective.parameters()) == sum(1 for _ in student.parameters())
    assert {name.removeprefix("student.") for name in objective.state_dict()} == set(student.state_dict())
    train(objective.train())
    assert same(before, teacher.detector.state_dict())
    assert not any(module.training for module in teacher.detector.modules())
    assert not any(parameter.requires_grad for parameter in teacher.detector.parameters())


def test_a_teacher_that_is_missing_is_refused():
    with pytest.raises(ValueError, match="a teacher judges in one of the lessons"):
        TrainingStep(build(0), [JUDGED])
    with pytest.raises(ValueError, match="a distiller needs a teacher"):
        TrainingStep(build(0), [Lesson(PAA(), DenseCriterion(), (SoftLabels(),))])


def test_a_network_that_is_no_student_is_refused():
    with pytest.raises(TypeError, match="Identity has no `chain` and `extract_features`"):
        TrainingStep(torch.nn.Identity(), [LESSON])


def test_without_a_criterion_only_the_teacher_teaches():
    objective = TrainingStep(build(0), [Lesson(PAA(), None, (SoftLabels(),))], FrozenDetector(build(1), CLASSES))
    assert set(objective(batch(0))) == {"soft_class", "soft_box", "soft_quality"}


class Decoder(torch.nn.Module):
    """A student of two stages that share one head, as the layers of a decoder might."""

    def __init__(self):
        super().__init__()
        self.net = build(0)
        self.pyramid, self.head = self.net.pyramid, None

    @property
    def chain(self):
        return [*self.net.chain, *self.net.chain]

    def extract_features(self, images):
        return self.net.extract_features(images)


def test_losses_of_stages_never_share_a_name():
    lessons = [Lesson(PAA(), DenseCriterion(box_weight=weight), (SoftLabels(),)) for weight in (1.0, 2.0)]
    teacher = FrozenDetector(build(1), CLASSES)
    alone = TrainingStep(build(0), lessons[:1], teacher)(batch(0))
    objective = TrainingStep(Decoder(), lessons, teacher)
    terms = objective(batch(0))
    assert set(terms) == {f"{stage}/{name}" for stage in ("rpn", "roi") for name in alone}
    for name, term in alone.items():
        factor = 2 if name == "box" else 1
        torch.testing.assert_close(terms[f"rpn/{name}"].total, term.total)
        torch.testing.assert_close(terms[f"roi/{name}"].total, factor * term.total)
    assert objective.distilled == {name for name in terms if "soft" in name}
    assert set(objective.monitor) == {f"{stage}/{name}" for stage in ("rpn", "roi") for name in METRICS}


@dataclass(frozen=True)
class Clashing:
    """A distiller whose loss has the name of one of the criterion's."""

    features_only = False
    every_stage = True

    def summarize(self, student, teacher, stage):
        return Summary({"box": "boxes"})

    def build(self, student, teacher):
        return self

    def __call__(self, student, teacher, truth, assignment):
        return {"box": SoftLabels()(student, teacher, truth, assignment)["soft_box"]}


def test_a_criterion_and_a_distiller_cannot_replace_each_others_loss():
    lesson = Lesson(PAA(), DenseCriterion(), (Clashing(),))
    with pytest.raises(ValueError, match="two losses are called box"):
        TrainingStep(build(0), [lesson], FrozenDetector(build(1), CLASSES))(batch(0))


def test_positives_per_object_are_monitored():
    objective = TrainingStep(build(0), [LESSON])
    objective(batch(0))
    assert float(objective.monitor["positives_per_object"]) > 0


def test_every_tenth_step_tells_how_far_student_and_teacher_assign_alike():
    torch.manual_seed(0)
    student, teacher = build(0), FrozenDetector(build(1), CLASSES)
    objective = TrainingStep(student, [JUDGED], teacher)
    seen = batch(0)
    with torch.no_grad():
        priors = student.chain[0].propose(student.extract_features(seen.images), None, seen.truth, seen.sizes)
        own = PAA()(student.chain[0](student.extract_features(seen.images), priors, None)[0], priors, seen.truth)
        theirs = PAA()(teacher.predict_at(teacher.observe(seen), priors).predictions, priors, seen.truth)
    pairs, judged = (
        {(*p, int(plan.index[tuple(p)])) for p in plan.positive.nonzero().tolist()} for plan in (own, theirs)
    )
    for step in (1, 7, 10, 21):
        objective.set_time(0.0, step)
        objective(seen)
        if step % 10 != 1:
            assert "agreement" not in objective.monitor
        else:
            assert float(objective.monitor["agreement"]) == pytest.approx(len(pairs & judged) / len(pairs))
    assert 0 < len(pairs & judged) < len(pairs)


@pytest.mark.parametrize(
    ("lesson", "teacher"),
    [
        (LESSON, None),
        (Lesson(ATSS(), DenseCriterion(), (SoftLabels(),)), FrozenDetector(build(1), CLASSES)),
        (Lesson(PAA(), DenseCriterion(), (PKD(),)), FrozenDetector(build(1), None)),
    ],
    ids=["no teacher", "an assigner without predictions", "a teacher with features only"],
)
def test_there_is_no_agreement_without_two_plans(lesson, teacher):
    objective = TrainingStep(build(0), [lesson], teacher)
    objective.set_time(0.0, 1)
    objective(batch(0))
    assert "agreement" not in objective.monitor


def test_distilled_outputs_are_compared_without_a_judge():
    objective = TrainingStep(build(0), [Lesson(PAA(), DenseCriterion(), (SoftLabels(),))], Mirror(build(0)))
    objective.teacher.student = objective.student
    objective.set_time(0.0, 11)
    objective(batch(0))
    assert float(objective.monitor["agreement"]) == 1
