"""Soft labels against numbers of an independent implementation on a scene of sines and cosines."""

import math

import pytest
import torch

from ladle.boxes import decode_deltas
from ladle.distillers import SoftLabels
from ladle.testing import grid_priors
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
