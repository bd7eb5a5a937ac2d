"""Distillers at work: each at its time and weight, none hidden, and nothing of them in the student."""

import pytest
import torch

from ladle.assigners import PAA
from ladle.criteria import DenseCriterion
from ladle.distillers import FGD, PKD, CrossKD, FitNet, SoftLabels
from ladle.lessons import Lesson, Scheduled, TeacherJudges
from ladle.objectives import TrainingStep
from ladle.teachers import FrozenDetector
from tests.objectives.test_training_step import CLASSES, SPEC, batch, build, same, train


class Counting(FrozenDetector):
    """A teacher that counts how often it is run."""

    runs = 0

    def observe(self, batch):
        self.runs += 1
        return super().observe(batch)


def taught(*distillers, student=None, judge=None):
    lesson = Lesson(PAA(), DenseCriterion(), distillers, judge=judge)
    return TrainingStep(student or build(0), [lesson], Counting(build(1), CLASSES))


def value(terms, name):
    return float(terms[name].total.detach())


def test_a_weight_multiplies_all_terms():
    once, thrice = taught(SoftLabels()), taught(Scheduled(SoftLabels(), weight=3.0))
    one, three = once(batch(0)), thrice(batch(0))
    for name in ("soft_class", "soft_box", "soft_quality"):
        assert value(three, name) == pytest.approx(3 * value(one, name))
        assert three[name].count == one[name].count
    assert value(three, "class") == value(one, "class")


def test_a_warm_up_rises_and_an_end_ends_and_then_the_teacher_is_not_run():
    objective = taught(Scheduled(SoftLabels(), weight=2.0, warmup=4.0, until=6.0))
    whole = value(taught(SoftLabels())(batch(0)), "soft_class")
    for epoch, share in ((0.5, 0.25), (2.0, 1.0), (4.0, 2.0), (6.0, 2.0)):
        objective.set_time(epoch, 1)
        assert value(objective(batch(0)), "soft_class") == pytest.approx(share * whole, rel=1e-5)
        assert "soft_class" in objective.distilled
    runs = objective.teacher.runs
    objective.set_time(6.01, 1)
    assert set(objective(batch(0))) == {"class", "box", "quality"}
    assert objective.distilled == frozenset()
    assert objective.teacher.runs == runs == 4


def test_a_teacher_that_judges_is_run_also_after_its_distillers_have_ended():
    objective = taught(Scheduled(SoftLabels(), until=1.0), judge=TeacherJudges())
    objective.set_time(5.0, 1)
    objective(batch(0))
    assert objective.teacher.runs == 1


def test_a_weight_can_rise_over_steps():
    objective = taught(Scheduled(SoftLabels(), warmup_steps=400))
    whole = value(taught(SoftLabels())(batch(0)), "soft_class")
    for step, share in ((1, 1 / 400), (100, 0.25), (400, 1.0), (900, 1.0)):
        objective.set_time(0.5, step)
        assert value(objective(batch(0)), "soft_class") == pytest.approx(share * whole, rel=1e-5)
    with pytest.raises(ValueError, match=r"objective\.set_time\(epoch, step\)"):
        taught(Scheduled(SoftLabels(), warmup_steps=400))(batch(0))


def test_a_time_without_a_clock_is_refused():
    with pytest.raises(ValueError, match=r"objective\.set_time\(epoch, step\)"):
        taught(Scheduled(SoftLabels(), warmup=1.0))(batch(0))


def test_two_distillers_of_the_same_terms_are_refused_and_of_different_terms_are_not():
    with pytest.raises(ValueError, match="two losses are called soft_box"):
        taught(SoftLabels(), SoftLabels(class_weight=0, quality_weight=0))(batch(0))
    both = taught(SoftLabels(quality_weight=0, box_weight=0), SoftLabels(class_weight=0, quality_weight=0))
    assert {"soft_class", "soft_box"} <= set(both(batch(0)))


@pytest.mark.parametrize("distil", [FitNet(), PKD(), FGD(), CrossKD()], ids=repr)
def test_weight_nought_is_exactly_plain_training(distil):
    plain = train(TrainingStep(build(0), [Lesson(PAA(), DenseCriterion())]))
    assert same(plain, train(taught(Scheduled(distil, weight=0.0))))
    assert not same(plain, train(taught(Scheduled(distil, weight=0.1))))


def test_adapters_are_trained_and_saved_beside_the_student_not_in_it():
    student = build(0)
    objective = taught(FitNet(), student=student)
    beside = [name for name in objective.state_dict() if not name.startswith("student.")]
    assert len(beside) == 6, "a convolution for each of three levels"
    assert all("adapters" in name for name in beside)
    assert set(student.state_dict()) == {name.removeprefix("student.") for name in objective.state_dict()} - set(beside)
    before = {name: objective.state_dict()[name].clone() for name in beside}
    train(objective)
    assert not any(torch.equal(before[name], objective.state_dict()[name]) for name in beside)
    assert not any("teacher" in name for name, _ in objective.named_parameters())


def test_what_distillers_train_gets_a_gradient_also_when_they_rest():
    """Data-parallel training waits for a gradient of every parameter."""
    objective = taught(Scheduled(FitNet(), until=1.0))
    objective.set_time(2.0, 1)
    sum(term.total for term in objective(batch(0)).values()).backward()
    for parameter in objective.distillation.parameters():
        assert torch.equal(parameter.grad, torch.zeros_like(parameter))


def test_towers_are_returned_only_where_a_distiller_needs_them():
    seen = []
    for distillers in ((SoftLabels(),), (SoftLabels(), CrossKD())):
        objective = taught(*distillers)
        objective.distillation[0].register_forward_hook(
            lambda module, given, _: seen.append([one.towers is not None for one in given[:2]])
        )
        objective(batch(0))
    assert seen == [[False, False], [True, True]]


def test_distillers_that_look_at_different_depths_are_refused():
    with pytest.raises(ValueError, match="at different depths"):
        taught(CrossKD(after=0), CrossKD(after=1))


def test_a_network_without_a_pyramid_is_refused_in_a_sentence():
    lesson = Lesson(PAA(), DenseCriterion(), (PKD(),))
    student = build(0)
    bare = torch.nn.Module()
    bare.chain, bare.extract_features = student.chain, student.extract_features
    with pytest.raises(ValueError, match="PKD is built for two networks, but the student has no `pyramid`"):
        TrainingStep(bare, [lesson], FrozenDetector(SPEC.build(), CLASSES))
