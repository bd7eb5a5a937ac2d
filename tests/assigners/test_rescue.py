"""Objects without a positive: which rules leave them, what a least side changes, and which prior a rescue takes."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from ladle.assigners import (
    ATSS,
    FCOS,
    OTA,
    PAA,
    DynamicSoftLabel,
    Hungarian,
    MaxIoU,
    PseudoIoU,
    SimOTA,
    TaskAligned,
)
from ladle.assigners.judged import count_per_object
from ladle.assigners.rescue import nearest_for_unserved, widened
from ladle.testing import example_scene
from ladle.testing.scenes import grid_priors
from ladle.types import Assignment, GroundTruth, Predictions

RESCUING = (
    ATSS(),
    ATSS(boxes="predictions"),
    FCOS(),
    FCOS(boxes="predictions"),
    PseudoIoU(),
    PseudoIoU(boxes="predictions"),
    PAA(),
    OTA(),
    SimOTA(),
    SimOTA(radius=2.5, candidates="center or box", penalty=1e5),
    TaskAligned(),
    TaskAligned(inside="before", conflict="all", overlap="ciou"),
    DynamicSoftLabel(),
)
"""The rules that leave objects without a positive, and can rescue them."""
WIDENING = (TaskAligned(), FCOS(), FCOS(radius=None), OTA(), DynamicSoftLabel())
"""The rules that give an object between the points none, unless its sides are widened."""


def crowded(seed, count=40, size=128):
    """Two images full of small objects, half of them less than a stride wide; the last object is padding."""
    generator = torch.Generator().manual_seed(seed)
    predictions, priors, _ = example_scene(objects=1, size=(size, size), seed=seed)
    corner = torch.rand(2, count, 2, generator=generator) * (size - 20)
    side = 1 + 16 * torch.rand(2, count, 2, generator=generator)
    labels = torch.randint(predictions.logits.shape[2], (2, count), generator=generator)
    valid = torch.arange(count).expand(2, -1) < count - 1
    return predictions, priors, GroundTruth(torch.cat([corner, corner + side], -1), labels, valid, ~valid)


def without(plan, truth):
    """The number of objects without a positive."""
    counts = count_per_object(plan.index, plan.positive, truth.labels.shape[1])
    return int(((counts == 0) & truth.learnable).sum())


@pytest.fixture(scope="module")
def scenes():
    return [crowded(seed) for seed in range(3)]


@pytest.mark.parametrize("rule", RESCUING, ids=repr)
def test_a_rescue_serves_every_object_and_changes_nothing_else(rule, scenes):
    assert sum(without(rule(*scene), scene[2]) for scene in scenes) > 0
    for scene in scenes:
        plain, plan = rule(*scene), replace(rule, rescue=True)(*scene)
        assert without(plan, scene[2]) == 0
        added = plan.positive & ~plain.positive
        assert int(added.sum()) == without(plain, scene[2]), "a rescued object has one prior"
        kept = plain.positive
        assert torch.equal(plan.index[kept], plain.index[kept])
        assert torch.equal(plan.weight[kept], plain.weight[kept])
        assert torch.equal(plan.background[~added], plain.background[~added])
        assert not plan.background[added].any()


def test_the_hungarian_method_leaves_no_object_out(scenes):
    assert all(without(Hungarian()(*scene), scene[2]) == 0 for scene in scenes)


def test_max_iou_gives_none_to_objects_whose_priors_are_claimed_by_later_ones(scenes):
    assert sum(without(MaxIoU()(*scene), scene[2]) for scene in scenes) > 0


def naive_rescue(plan, priors, truth):
    """Nearest free priors by loops, in float64; in each round a prior goes to the nearest of its claimants."""
    taken = {}
    for row in range(len(truth.labels)):
        learnt = {p: int(plan.index[row, p]) for p in range(plan.positive.shape[1]) if plan.positive[row, p]}
        for _ in range(3):
            claims = {}
            for g in range(truth.labels.shape[1]):
                if not truth.learnable[row, g] or g in learnt.values():
                    continue
                distance = [
                    np.inf
                    if p in learnt or not priors.valid[0, p]
                    else float((priors.boxes[0, p].double() - truth.boxes[row, g].double()).square().sum())
                    for p in range(plan.positive.shape[1])
                ]
                nearest = int(np.argmin(distance))
                claims.setdefault(nearest, []).append((distance[nearest], g))
            for p, claimants in claims.items():
                learnt[p] = taken[row, p] = min(claimants)[1]
    return taken


def test_the_prior_of_a_rescued_object_is_the_nearest_free_one():
    _, priors, truth = crowded(5, count=14, size=64)
    index = torch.zeros(2, priors.boxes.shape[1], dtype=torch.long)
    half = torch.zeros_like(index, dtype=torch.bool)
    half[:, ::2] = True  # every second prior learns object 0
    plan = Assignment.hard(index, half, ~half)
    added, number = nearest_for_unserved(plan, priors, truth)
    found = {(row, p): int(number[row, p]) for row, p in added.nonzero().tolist()}
    assert found == naive_rescue(plan, priors, truth)
    assert len(found) == 2 * 12, "all but the object that has priors and padding"


def test_ties_are_decided_by_the_order_of_priors_and_of_objects():
    priors = grid_priors(16, 16, (8,), side=1.0)  # points at 0 and 8
    middle, twin = [2.0, 2.0, 6.0, 6.0], [-2.0, -2.0, 2.0, 2.0]
    truth = GroundTruth.pad([torch.tensor([middle, twin, twin])], [torch.zeros(3, dtype=torch.long)])
    nothing = torch.zeros(1, 4, dtype=torch.bool)
    added, number = nearest_for_unserved(Assignment.empty(~nothing), priors, truth)
    # Round 1: object 0 is as far from all four priors, but objects 1 and 2 are nearer to the first: object 1 gets it.
    # Round 2: objects 0 and 2 want prior 1; object 0 is nearer. Round 3: object 2 takes prior 2, at equal distance.
    assert added.tolist() == [[True, True, True, False]]
    assert number.tolist() == [[1, 0, 2, 0]]


def test_the_affinity_of_a_rescued_object_is_its_overlap():
    priors = grid_priors(32, 32, (8,), side=1.0)
    boxes = priors.boxes.clone()
    boxes[0, 10] = torch.tensor([17.5, 17.5, 20.5, 22.0])
    predictions = Predictions(torch.zeros(1, 16, 1), boxes, None)
    truth = GroundTruth.pad([torch.tensor([[17.5, 17.5, 20.5, 20.5]])], [torch.tensor([0])])
    plan = TaskAligned(rescue=True)(predictions, priors, truth)
    assert plan.positive[0].nonzero().flatten().tolist() == [10]
    assert plan.weight[0, 10].item() == pytest.approx(9 / 13.5)
    assert TaskAligned()(predictions, priors, truth).positive.sum() == 0


@pytest.mark.parametrize("rule", WIDENING, ids=repr)
def test_a_least_side_of_two_strides_gives_an_object_between_the_points_its_four_neighbors(rule):
    priors = grid_priors(64, 64, (8,), side=4.0)
    boxes = torch.tensor([[34.0, 35.0, 38.0, 37.5]])  # around the corner of four cells, 4 pixels from each center
    neighbors = {36, 37, 44, 45}
    exact = torch.tensor([number in neighbors for number in range(64)]).view(64, 1)
    predictions = Predictions(torch.zeros(1, 64, 1), torch.where(exact, boxes, boxes + 1)[None], None)
    truth = GroundTruth.pad([boxes], [torch.tensor([0])])
    assert not rule(predictions, priors, truth).positive.any()
    plan = replace(rule, min_side=2.0)(predictions, priors, truth)
    assert set(plan.positive[0].nonzero().flatten().tolist()) == neighbors


def test_a_least_side_in_strides_is_one_in_pixels(scenes):
    for scene in scenes:
        for rule in (TaskAligned(), TaskAligned(inside="before", conflict="all")):
            first, second = replace(rule, min_side=2.0)(*scene), replace(rule, least_side=16.0)(*scene)
            assert torch.equal(first.dense(40), second.dense(40))
            assert not torch.equal(first.dense(40), rule(*scene).dense(40))


@pytest.mark.parametrize("rule", [OTA(), DynamicSoftLabel(), FCOS(), TaskAligned()], ids=repr)
def test_large_objects_have_no_least_side(rule):
    scene = example_scene()  # objects of more than two strides
    side = scene[2].boxes[..., 2:] - scene[2].boxes[..., :2]
    least = float(side.min()) / 8
    assert torch.equal(replace(rule, min_side=least)(*scene).dense(6), rule(*scene).dense(6))


def test_sim_ota_uses_boxes_with_center_or_box_only():
    with pytest.raises(ValueError, match="center or box"):
        SimOTA(min_side=2.0)
    priors = grid_priors(64, 64, (8,), side=4.0)
    boxes = torch.tensor([[34.0, 35.0, 38.0, 37.5]])
    predictions = Predictions(torch.zeros(1, 64, 1), boxes.expand(1, 64, 4).clone(), None)
    truth = GroundTruth.pad([boxes], [torch.tensor([0])])
    rule = SimOTA(radius=2.5, candidates="center or box", penalty=torch.inf)
    assert not rule(predictions, priors, truth).positive.any(), "no prior is in the square and in the box"
    plan = replace(rule, min_side=2.0)(predictions, priors, truth)
    assert set(plan.positive[0].nonzero().flatten().tolist()) == {36, 37, 44, 45}


def test_widened_boxes_keep_their_centers():
    boxes = torch.tensor([[10.0, 10.0, 14.0, 40.0]])
    assert widened(boxes, 8.0).tolist() == [[8.0, 10.0, 16.0, 40.0]]
