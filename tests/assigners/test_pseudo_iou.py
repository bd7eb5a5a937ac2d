"""Pseudo-IoU against the published examples and naive loops."""

from dataclasses import replace

import pytest
import torch

from ladle.assigners import FCOS, PseudoIoU
from ladle.assigners.pseudo_iou import pseudo_iou
from ladle.boxes import iou
from tests.assigners.test_judged import trusted
from tests.golden.scenes import Scene


def plan_of(scene, rule):
    return rule(scene.raw_predictions(), scene.point_priors(), scene.truth())


@pytest.mark.parametrize(
    ("sides", "expected"),
    [
        ((10, 10, 10, 10), 1.0),
        ((5, 10, 15, 10), 0.6),
        ((2, 3, 18, 9), 0.290323),
        ((5, 5, 15, 15), 0.391304),
        ((1, 1, 19, 19), 0.178203),
    ],
)
def test_published_examples(sides, expected):
    left, top, right, bottom = sides
    box = torch.tensor([[-left, -top, right, bottom]]).float()
    assert pseudo_iou(torch.zeros(1, 2), box).item() == pytest.approx(expected, abs=1e-6)


def test_it_is_the_iou_with_a_box_centered_at_the_point():
    generator = torch.Generator().manual_seed(0)
    box = torch.tensor([10.0, 20.0, 70.0, 50.0]).expand(200, 4)
    points = torch.rand(200, 2, generator=generator) * torch.tensor([60.0, 30.0]) + torch.tensor([10.0, 20.0])
    half = torch.tensor([30.0, 15.0])
    torch.testing.assert_close(pseudo_iou(points, box), iou(torch.cat([points - half, points + half], -1), box))


def test_points_outside_have_none():
    box = torch.tensor([[10.0, 20.0, 70.0, 50.0]])
    assert pseudo_iou(torch.tensor([[5.0, 30.0]]), box).item() == 0


@pytest.mark.parametrize("case", ["tiny", "edge"])
@pytest.mark.parametrize("threshold", [0.2, 0.4, 0.6])
def test_matched_points_stay_only_above_the_threshold(case, threshold):
    scene = Scene(case)
    matched, plan = plan_of(scene, FCOS(radius=None)), plan_of(scene, PseudoIoU(threshold))
    kept = 0
    for row, prior in matched.positive.nonzero().tolist():
        x1, y1, x2, y2 = scene.gt_boxes[row][matched.index[row, prior]]
        x, y = scene.P[prior]
        across, down = abs(x - (x1 + x2) / 2) / (x2 - x1), abs(y - (y1 + y2) / 2) / (y2 - y1)
        share = (1 - across) * (1 - down)
        expected = share / (2 - share) > threshold
        assert bool(plan.positive[row, prior]) == expected
        assert bool(plan.background[row, prior]) == (not expected)
        kept += int(expected)
    assert kept
    assert plan.positive.sum() == kept


@pytest.mark.parametrize("power", [0.0, 0.5])
def test_a_judge_decides_by_the_overlap_of_its_boxes(power):
    scene = Scene("tiny", 1)
    predictions, truth = scene.raw_predictions(), scene.truth()
    matched = plan_of(scene, FCOS(radius=None))
    plan = plan_of(scene, PseudoIoU(boxes="predictions", class_power=power))
    overlap = trusted(predictions, truth, power).gather(2, matched.index.unsqueeze(-1)).squeeze(-1)
    good = matched.positive & (overlap > 0.4)
    assert (plan.positive & good).sum() == good.sum()
    own = plan_of(scene, PseudoIoU())
    for row, prior in (plan.positive & ~good).nonzero().tolist():
        number = matched.index[row, prior]
        assert own.positive[row, prior]
        assert not (good[row] & (matched.index[row] == number)).any()


def test_a_judge_may_keep_the_counts():
    scene = Scene("tiny", 1)
    own, judged = plan_of(scene, PseudoIoU()), plan_of(scene, PseudoIoU(boxes="predictions", keep_count=True))
    for number in range(7):
        assert ((own.index == number) & own.positive).sum() == ((judged.index == number) & judged.positive).sum()
    assert not torch.equal(own.positive, judged.positive)


def test_scores_that_are_no_numbers_count_as_zero():
    scene = Scene("tiny", 1)
    predictions, priors, truth = scene.raw_predictions(), scene.point_priors(), scene.truth()
    zero = replace(predictions, logits=torch.full_like(predictions.logits, -torch.inf))
    unknown = replace(predictions, logits=torch.full_like(predictions.logits, torch.nan))
    rule = PseudoIoU(boxes="predictions", class_power=1.0)
    expected, found = rule(zero, priors, truth), rule(unknown, priors, truth)
    assert expected.background.any()
    assert torch.equal(found.background, expected.background)
    assert torch.equal(found.dense(7), expected.dense(7))
