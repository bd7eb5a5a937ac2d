"""Teachers that are made of the student: its average follows it, an auxiliary head learns beside it."""

import math
from copy import deepcopy
from dataclasses import replace

import pytest
import torch

from ladle.assigners import PAA
from ladle.criteria import DenseCriterion
from ladle.distillers import SoftLabels
from ladle.errors import UserError
from ladle.families import detector_spec, lessons_of
from ladle.lessons import Lesson, TeacherJudges
from ladle.methods import plan_for
from ladle.objectives import TrainingStep
from ladle.teachers import (
    AuxiliaryTeacher,
    AverageTeacher,
    StudentTeacher,
    Teacher,
    auxiliary_info,
    open_teacher,
    parse_uri,
    teacher_of_student,
)
from tests.objectives.test_training_step import CLASSES, SPEC, batch, build, same

JUDGED = Lesson(PAA(), DenseCriterion(), judge=TeacherJudges())
PLAIN = Lesson(PAA(), DenseCriterion())


def loss_of(terms):
    return sum(t.total / torch.maximum(t.count, t.floor).clamp(min=1e-9) for t in terms.values())


def terms_of(objective, epoch=0.5):
    """The terms of a batch at a time."""
    objective.set_time(epoch, 1)
    return objective(batch(0))


def step(objective, optimizer, number):
    objective.set_time(0.1 * number, number)
    optimizer.zero_grad()
    loss_of(objective(batch(number))).backward()
    optimizer.step()


# --------------------------------------------------------------------------------------------------------- average


def test_the_average_follows_the_student_by_its_rule():
    student = build(0)
    objective = TrainingStep(student, [JUDGED], AverageTeacher(student, decay=0.9, tau=3.0))
    optimizer = torch.optim.SGD([one for one in objective.parameters() if one.requires_grad], lr=0.01)
    expected = [one.detach().double().clone() for one in student.parameters()]
    for number in range(1, 4):
        if number > 1:
            kept = 0.9 * (1 - math.exp(-(number - 1) / 3.0))
            expected = [
                kept * mean + (1 - kept) * one.detach().double() for mean, one in zip(expected, student.parameters())
            ]
        step(objective, optimizer, number)
    for mean, one in zip(expected, objective.of_student.parameters()):
        torch.testing.assert_close(one.double(), mean, rtol=1e-4, atol=1e-6)
        assert not one.requires_grad
    assert not same(student.state_dict(), objective.of_student.network.state_dict())


def test_the_average_judges_and_stays_in_evaluation_mode():
    """With the weights of another network in it, it assigns as a frozen teacher with these weights does."""
    from ladle.teachers import FrozenDetector

    student = build(0)
    teacher = AverageTeacher(student)
    teacher.frozen.detector.load_state_dict(build(1).state_dict())
    objective = TrainingStep(student, [JUDGED], teacher).train()
    assert not any(one.training for one in objective.of_student.network.modules())
    frozen = TrainingStep(build(0), [JUDGED], FrozenDetector(build(1), CLASSES)).train()
    for one, other in zip(terms_of(objective).values(), terms_of(frozen).values()):
        assert torch.equal(one.total, other.total)


def test_the_average_is_stored_for_a_resume_and_goes_on_exactly():
    def begun():
        student = build(0)
        objective = TrainingStep(student, [JUDGED], AverageTeacher(student, decay=0.9, tau=3.0))
        return objective, torch.optim.SGD([one for one in objective.parameters() if one.requires_grad], lr=0.01)

    whole, optimizer = begun()
    for number in range(1, 3):
        step(whole, optimizer, number)
    again, other = begun()
    again.load_state_dict(deepcopy(whole.state_dict()))
    step(whole, optimizer, 3)
    step(again, other, 3)
    assert same(whole.state_dict(), again.state_dict())
    assert {name.partition(".")[0] for name in whole.state_dict()} == {"student", "of_student"}


# ------------------------------------------------------------------------------------------------------- auxiliary


def test_the_auxiliary_head_judges_for_both_and_has_the_same_losses():
    student, teacher = build(0), AuxiliaryTeacher(SPEC)
    objective = TrainingStep(student, [JUDGED], teacher)
    terms = terms_of(objective)
    features = student.extract_features(batch(0).images)
    priors = student.chain[0].propose(features, None, batch(0).truth, batch(0).sizes)
    output = teacher.predict_at(teacher.observe_student(batch(0), features), priors)
    plan = PAA()(output.predictions.detach(), priors, batch(0).truth)
    for name, term in DenseCriterion()(output, batch(0).truth, plan).items():
        torch.testing.assert_close(terms[f"auxiliary/{name}"].total, term.total)
        assert terms[name].count == terms[f"auxiliary/{name}"].count or name != "class", "the same positives"
    assert {"class", "box", "quality", "auxiliary/class", "auxiliary/box", "auxiliary/quality"} == set(terms)


@pytest.mark.parametrize(("epoch", "reaches"), [(9.9, True), (10.1, False)])
def test_the_gradient_of_the_head_reaches_the_student_until_it_is_detached(epoch, reaches):
    student, teacher = build(0), AuxiliaryTeacher(SPEC)
    objective = TrainingStep(student, [JUDGED], teacher)
    terms = terms_of(objective, epoch)
    loss_of({name: term for name, term in terms.items() if name.startswith("auxiliary/")}).backward()
    assert any(one.grad is not None and bool(one.grad.any()) for one in student.backbone.parameters()) == reaches
    assert all(one.grad is None for one in student.chain[0].parameters()), "the student's own head learns by its losses"
    assert all(bool(one.grad.any()) for name, one in teacher.network.named_parameters() if name.endswith("weight"))


def test_without_a_judge_or_detached_the_student_is_trained_as_without_the_head():
    torch.manual_seed(0)
    alone, beside = build(0), build(0)
    plain = TrainingStep(alone, [PLAIN])
    objective = TrainingStep(beside, [PLAIN], AuxiliaryTeacher(SPEC, detach=0.0))
    for one in (plain, objective):
        optimizer = torch.optim.SGD(one.parameters(), lr=0.01)
        for number in range(1, 4):
            step(one, optimizer, number)
    assert same(alone.state_dict(), beside.state_dict())


def test_soft_labels_of_the_head_do_not_train_it():
    teacher = AuxiliaryTeacher(SPEC, detach=0.0)
    objective = TrainingStep(build(0), [Lesson(PAA(), DenseCriterion(), (SoftLabels(),))], teacher)
    terms = terms_of(objective)
    loss_of({name: term for name, term in terms.items() if name.startswith("soft")}).backward()
    assert all(one.grad is None for one in teacher.network.parameters())
    assert objective.distilled == {"soft_class", "soft_box", "soft_quality"}


@pytest.mark.parametrize(
    "name", ["retinanet-tiny", "fcos-tiny", "gfl-tiny", "autoassign-tiny", "paa+lite-tiny", "yolox-n"]
)
def test_students_of_one_stage_have_one(name):
    spec = detector_spec(name, CLASSES, imgsz=64)
    plan = plan_for("lad+soft", spec, auxiliary_info(spec))
    objective = TrainingStep(spec.build(), plan.lessons, AuxiliaryTeacher(spec, width=32, depth=1))
    terms = terms_of(objective)
    assert {one for one in terms if not one.startswith(("auxiliary/", "soft"))} == {
        one.removeprefix("auxiliary/") for one in terms if one.startswith("auxiliary/")
    }
    assert all(bool(term.total.isfinite()) for term in terms.values())


# -------------------------------------------------------------------------------------------------- text and refusals


def test_they_are_named_by_words():
    student = build(0)
    average = teacher_of_student(parse_uri("ema?decay=0.5&tau=7"), student)
    assert (average.decay, average.tau) == (0.5, 7.0)
    head = teacher_of_student(parse_uri("auxiliary?width=64&depth=1&detach=0.5"), student)
    assert (head.network.stage.width, head.network.stage.depth, head.detach) == (64, 1, 0.5)
    assert parse_uri("ema?tau=7").located() == "ema?tau=7"
    for one in (average, head):
        assert isinstance(one, Teacher) and isinstance(one, StudentTeacher)  # noqa: PT018


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ema?decay=1", "expected \\?decay= from 0 to below 1"),
        ("ema?width=3", "ema has no option 'width'; it takes \\?decay=, \\?tau="),
        ("auxiliary?width=8,16", "expected one number"),
    ],
)
def test_options_that_they_do_not_have_are_refused(text, message):
    with pytest.raises(UserError, match=message):
        teacher_of_student(parse_uri(text), build(0))


def test_what_they_cannot_do_is_refused():
    for text in ("ema", "ensemble:ema,a.onnx"):
        with pytest.raises(UserError, match=r"expected (a trained detector|two or more detectors that run)"):
            open_teacher(text, CLASSES)
    staged = detector_spec("fasterrcnn-tiny", CLASSES)
    with pytest.raises(UserError, match="fasterrcnn-tiny works in stages, and an auxiliary head needs a dense head"):
        auxiliary_info(staged)
    for method, words in (("pkd", "gives none"), ("cross", "needs a dense head with towers")):
        with pytest.raises(UserError, match=words):
            plan_for(method, SPEC, auxiliary_info(SPEC))


def test_the_student_judges_before_its_teacher_does():
    judge = TeacherJudges(after=1.0, until=3.0)
    assert [judge.active((epoch, 0)) for epoch in (0.5, 1.0, 1.1, 3.0, 3.1)] == [False, False, True, True, False]
    with pytest.raises(ValueError, match="call objective.set_time"):
        replace(judge, until=None).active(None)
    lesson = lessons_of(SPEC)[0]
    assert replace(lesson, judge=judge).assigner_at((0.5, 0)) == lesson.assigner
