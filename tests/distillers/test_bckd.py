"""BCKD against its formula as loops in float64, on a scene of sines and cosines."""

import math
from dataclasses import replace

import pytest
import torch

from ladle.distillers import BCKD
from ladle.methods import plan_for
from ladle.types import Assignment
from tests.distillers.test_soft_labels import scene


def with_positives(count):
    student, teacher, truth, _ = scene()
    positive = torch.arange(341)[None] < count
    return student, teacher, truth, Assignment.hard(torch.zeros(1, 341).long(), positive, ~positive)


def sigmoid(value):
    return 1 / (1 + math.exp(-value))


def overlap(a, b, general):
    width, height = (max(0.0, min(a[i + 2], b[i + 2]) - max(a[i], b[i])) for i in (0, 1))
    shared = width * height
    union = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)) - shared
    hull = (max(a[2], b[2]) - min(a[0], b[0])) * (max(a[3], b[3]) - min(a[1], b[1]))
    return shared / union - (hull - union) / hull * general


def by_loops(student, teacher, positives, exponent, general):
    """The two sums in float64, divided by the number of positives or by the one image."""
    classes = boxes = 0.0
    ours, theirs = student.predictions, teacher.predictions
    rows = zip(ours.logits[0].tolist(), theirs.logits[0].tolist(), ours.boxes[0].tolist(), theirs.boxes[0].tolist())
    for z, target, box, target_box in rows:
        apart = []
        for one, other in zip(z, target):
            s, t = sigmoid(one), sigmoid(other)
            apart.append(abs(s - t) ** exponent)
            classes += apart[-1] * (-t * math.log(s) - (1 - t) * math.log(1 - s))
        boxes += max(apart) * (1 - overlap(box, target_box, general))
    return classes / max(positives, 1), 4 * boxes / max(positives, 1)


@pytest.mark.parametrize(
    ("distiller", "positives", "golden"),
    [
        (BCKD(), 7, (37.17818, 8.22779)),
        (BCKD(box_loss="iou", exponent=2.0), 0, (113.22263, 25.42833)),
    ],
)
def test_agrees_with_loops_in_float64(distiller, positives, golden):
    student, teacher, truth, plan = with_positives(positives)
    terms = distiller(student, teacher, truth, plan)
    expected = by_loops(student, teacher, positives, distiller.exponent, distiller.box_loss == "giou")
    for name, value, known in zip(("bckd_class", "bckd_box"), expected, golden):
        term = terms[name]
        assert float(term.total / torch.maximum(term.count, term.floor)) == pytest.approx(value, rel=1e-5)
        assert value == pytest.approx(known, rel=1e-5)


def test_unlike_a_softmax_it_sees_scores_that_are_all_too_low():
    student, _, truth, plan = with_positives(7)
    higher = replace(student, predictions=replace(student.predictions, logits=student.predictions.logits + 2))
    terms = BCKD()(student, higher, truth, plan)
    assert float(terms["bckd_class"].total) > 1
    assert float(terms["bckd_box"].total) == pytest.approx(0, abs=1e-3), "the boxes are equal"
    softmax = torch.log_softmax(student.predictions.logits, -1) - torch.log_softmax(higher.predictions.logits, -1)
    assert float(softmax.abs().max()) < 1e-5


def test_its_word_has_the_published_weights():
    from ladle.families import detector_spec

    student, teacher = (detector_spec(name, ["cat", "dog"]) for name in ("gfl-tiny", "gfl-small"))
    plan = plan_for("lad+bckd", student, teacher)
    assert plan.lessons[0].distillers == (BCKD(1.0, 4.0, 1.0, "giou"),)
    assert plan.teaches == {
        "bckd_class": "2 class scores, each by itself, at every prior where the two differ",
        "bckd_box": "boxes at every prior where the scores differ",
    }
