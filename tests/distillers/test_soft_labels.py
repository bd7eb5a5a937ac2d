"""Soft labels against numbers of an independent implementation on a scene of sines and cosines."""

import math
from dataclasses import replace

import pytest
import torch

from ladle.assigners import MaxIoU
from ladle.boxes import decode_deltas
from ladle.distillers import BCKD, SoftLabels
from ladle.testing import example_network, grid_priors
from ladle.types import Assignment, GroundTruth, Output, Predictions


def output(priors, slope, phase, shift, scale, rate, quality):
    i = torch.arange(priors.boxes.shape[1], dtype=torch.float64)
    logits = 2 * torch.sin(slope * i[:, None] + phase * torch.arange(3)) + shift
    deltas = scale * torch.cos(rate * i[:, None] + torch.arange(4))
    boxes = decode_deltas(priors.boxes, deltas.float()[None])
    predictions = Predictions(logits.float()[None], boxes, quality(i).float()[None])
    return Output(predictions, priors, (), torch.tensor([[128, 128]]))


def scene():
    priors = grid_priors(128, 128, strides=(8, 16, 32, 64, 128))
    boxes = torch.tensor([[10.0, 12, 60, 70], [40, 40, 120, 110], [100, 5, 118, 20]])
    truth = GroundTruth.pad([boxes], [torch.tensor([0, 1, 2])])
    student = output(priors, 0.7, 1.3, -2, 0.3, 0.5, lambda i: torch.sin(0.2 * i))
    teacher = output(priors, 0.9, 1.1, -1.5, 0.2, 0.4, lambda i: torch.sin(0.25 * i + 0.5))
    zeros = torch.zeros(1, 341)
    return student, teacher, truth, Assignment(zeros.long().unsqueeze(-1), zeros.unsqueeze(-1), zeros + 1)


@pytest.mark.parametrize(
    ("distiller", "count", "expected"),
    [
        (SoftLabels(class_weight=10, least=0.1), 104.74845, (20.22804, 2.13597, 0.10881)),
        (SoftLabels(class_weight=2, least=0.5), 27.66823, (15.31616, 1.82967, 0.12572)),
    ],
)
def test_agrees_with_an_independent_implementation(distiller, count, expected):
    terms = distiller(*scene())
    assert float(terms["soft_class"].count) == pytest.approx(count, rel=1e-5)
    for name, value in zip(("soft_class", "soft_quality", "soft_box"), expected):
        assert float(terms[name].total / terms[name].count) == pytest.approx(value, rel=1e-4)


def test_a_teacher_that_finds_nothing_divides_by_the_images():
    student, teacher, _, plan = scene()
    nothing = GroundTruth.pad([torch.zeros(0, 4)], [torch.zeros(0, dtype=torch.long)])
    terms = SoftLabels()(student, teacher, nothing, plan)
    assert float(terms["soft_class"].count) == 0
    assert float(terms["soft_class"].floor) == 1
    assert math.isfinite(float(terms["soft_class"].total))


def test_without_a_quality_branch_there_is_no_quality_term():
    student, teacher, truth, plan = scene()
    bare = Predictions(teacher.predictions.logits, teacher.predictions.boxes)
    blind = Output(bare, teacher.priors, (), teacher.sizes)
    assert set(SoftLabels()(student, blind, truth, plan)) == {"soft_class", "soft_box"}


@pytest.mark.parametrize(("distil", "term"), [(SoftLabels(), "soft_box"), (BCKD(), "bckd_box")], ids=["soft", "bckd"])
def test_of_a_box_for_each_class_that_of_the_teachers_class_is_told(distil, term):
    """The student takes class 0 for likeliest, the teacher class 1: only the box of class 1 learns."""
    truth = GroundTruth.pad([torch.tensor([[8.0, 8.0, 40.0, 40.0]])], [torch.tensor([1])])
    priors = grid_priors(64, 64, strides=(32,))
    count = priors.boxes.shape[1]
    each = (
        torch.tensor([[0.0, 0.0, 30.0, 30.0], [4.0, 4.0, 36.0, 38.0]]).expand(1, count, 2, 4).clone().requires_grad_()
    )
    own, theirs = torch.tensor([3.0, 1.0]).expand(1, count, 2), torch.tensor([1.0, 3.0]).expand(1, count, 2)
    student = Output(Predictions(own, each[:, :, 0], class_boxes=each, exclusive=True), priors, ())
    target = truth.boxes.expand(1, count, 4)
    teacher = Output(Predictions(theirs, target, exclusive=True), priors, ())
    plan = MaxIoU()(student.predictions.detach(), priors, truth)
    found = distil.build(example_network(), example_network())(student, teacher, truth, plan)[term].total
    found.backward()
    assert not each.grad[:, :, 0].any()
    assert each.grad[:, :, 1].any()
    same = replace(student, predictions=replace(student.predictions, boxes=each[:, :, 1], class_boxes=None))
    torch.testing.assert_close(
        found, distil.build(example_network(), example_network())(same, teacher, truth, plan)[term].total
    )
