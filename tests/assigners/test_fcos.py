"""FCOS against mmdetection, torchvision and a naive loop."""

from dataclasses import replace

import pytest
import torch

from ladle.assigners import FCOS
from ladle.testing import grid_priors
from ladle.types import GroundTruth, Predictions
from tests.assigners.test_judged import trusted
from tests.golden.scenes import Scene, golden, object_numbers

RULES = {"mmdet_center": FCOS(), "mmdet_nocenter": FCOS(radius=None), "torchvision_center": FCOS(closed=False)}


def assign(scene, rule):
    return object_numbers(rule(scene.raw_predictions(), scene.point_priors(), scene.truth()))


def naive(scene, radius, overlaps=None):
    """Object numbers, point by point; with ``overlaps`` the pairs a judge's boxes choose."""
    starts, rows = [sum(scene.num_lvl[:n]) for n in range(len(scene.num_lvl))], []
    upper = [*[64, 128, 256, 512][: len(starts) - 1], float("inf")]
    for row, boxes in enumerate(scene.gt_boxes):
        answer, worth = torch.zeros(scene.A, dtype=torch.long), torch.full((scene.A,), -torch.inf)
        for number, (x1, y1, x2, y2) in enumerate(boxes):
            suitable, central = [], []
            for p, ((x, y), stride) in enumerate(zip(scene.P, scene.S)):
                level = max(n for n, start in enumerate(starts) if p >= start)
                far = max(x - x1, y - y1, x2 - x, y2 - y)
                inside = min(x - x1, y - y1, x2 - x, y2 - y) > 0
                if inside and (upper[level - 1] if level else -1) <= far <= upper[level]:
                    suitable.append(p)
                    middle = max(abs(x - (x1 + x2) / 2), abs(y - (y1 + y2) / 2)) < (radius or 1e9) * stride
                    central += [p] if middle else []
            merit = {p: -float((x2 - x1) * (y2 - y1)) for p in central}
            if overlaps is not None:
                order = sorted(suitable, key=lambda p: (-overlaps[row, p, number].item(), p))
                merit = {p: overlaps[row, p, number].item() for p in order[: len(central)]}
            for p, value in merit.items():
                if value > worth[p]:
                    worth[p], answer[p] = value, number + 1
        rows.append(answer)
    return torch.stack(rows)


@pytest.mark.parametrize("case", ["tiny", "edge"])
@pytest.mark.parametrize("reference", RULES)
def test_agrees_exactly_with_the_reference(case, reference):
    expected = golden(f"fcos__{case}__{reference}")["gt_inds"]
    assert (expected > 0).any()
    assert torch.equal(assign(Scene(case), RULES[reference]), expected)


@pytest.mark.parametrize("radius", [1.5, 2.5, None])
def test_agrees_with_a_naive_loop(radius):
    scene = Scene("tiny", 4)
    assert torch.equal(assign(scene, FCOS(radius=radius)), naive(scene, radius))


@pytest.mark.parametrize("power", [0.0, 1.0])
def test_a_judge_chooses_as_many_points_by_overlap(power):
    scene = Scene("tiny", 2)
    overlaps = trusted(scene.raw_predictions(), scene.truth(), power)
    judged = assign(scene, FCOS(boxes="predictions", class_power=power))
    assert torch.equal(judged, naive(scene, 1.5, overlaps))
    plain = assign(scene, FCOS())
    assert not torch.equal(judged, plain)
    assert abs(int((judged > 0).sum()) - int((plain > 0).sum())) <= 3


def test_the_smallest_object_wins_and_the_first_of_two_equals():
    scene = Scene("tiny")
    large, small = torch.tensor([0.0, 0.0, 60.0, 60.0]), torch.tensor([20.0, 20.0, 40.0, 40.0])
    truth = GroundTruth.pad([torch.stack([large, small, small])] * 2, [torch.zeros(3, dtype=torch.long)] * 2)
    plan = FCOS(radius=None)(scene.raw_predictions(), scene.point_priors(), truth)
    inside = ((scene.point_priors().centers[0] - 30).abs() < 10).all(-1) & (scene.point_priors().level == 0)
    assert plan.positive[0, inside].all()
    assert (plan.index[0, inside] == 1).all()
    assert not (plan.index == 2).any()


def test_both_ends_belong_to_a_range_unless_told_otherwise():
    scene = Scene("tiny")
    point = int(((scene.point_priors().centers[0] - 100).abs().amax(-1) <= 4).nonzero()[0, 0])
    x, y = scene.P[point].tolist()
    truth = GroundTruth.pad([torch.tensor([[x - 4, y - 4, x + 64, y + 4]])] * 2, [torch.zeros(1, dtype=torch.long)] * 2)
    given = (scene.raw_predictions(), scene.point_priors(), truth)
    assert FCOS(radius=None)(*given).positive[0, point]
    assert not FCOS(radius=None, closed=False)(*given).positive[0, point]


def test_an_object_whose_points_all_overlap_another_more_keeps_its_own():
    """The teacher predicts the larger object everywhere, so both choose the first point, and the larger one wins it."""
    priors = grid_priors(64, 64, strides=(8,))
    boxes = torch.tensor([[0.0, 0.0, 60.0, 60.0], [0.0, 0.0, 32.0, 32.0]])
    truth = GroundTruth.pad([boxes], [torch.zeros(2, dtype=torch.long)])
    teacher = Predictions(torch.zeros(1, 64, 1), boxes[:1].expand(1, 64, 4))

    def points(boxes):
        learnt = FCOS(radius=0.5, boxes=boxes)(teacher, priors, truth).dense(2)[0] > 0
        return [learnt[:, number].nonzero().flatten().tolist() for number in (0, 1)]

    at_center, first = 36, 9
    assert points("priors") == [[at_center], [18]]
    assert points("predictions") == [[first], [18]]


def test_a_range_ends_at_eight_strides_of_its_level_unless_told_otherwise():
    priors = grid_priors(320, 320, strides=(4, 8, 16, 32, 64, 128))
    boxes = torch.tensor([[float(8), 8.0, 8.0 + side, 8.0 + side] for side in (20, 70, 140, 280)])
    truth = GroundTruth.pad([boxes], [torch.zeros(4, dtype=torch.long)])
    nothing = Predictions(torch.zeros(1, priors.boxes.shape[1], 1), torch.zeros(1, priors.boxes.shape[1], 4))

    def levels(rule, priors):
        learnt = rule(nothing, priors, truth).dense(4)[0] > 0
        return [sorted(set(priors.level[learnt[:, number]].tolist())) for number in range(4)]

    expected = [[0], [1], [2], [3]]
    for rule in (FCOS(), FCOS(ranges=(32.0, 64.0, 128.0, 256.0, 512.0))):
        assert levels(rule, priors) == expected
        assert levels(rule, replace(priors, grids=None)) == expected
    with pytest.raises(ValueError, match="6 levels need 5 upper ends"):
        levels(FCOS(ranges=(64.0, 128.0, 256.0, 512.0)), priors)
