"""The dynamic soft label assigner against mmdetection and a naive loop."""

from dataclasses import replace

import pytest
import torch

from ladle.assigners.dynamic_soft_label import DynamicSoftLabel
from ladle.testing import example_scene
from tests.assigners.naive_dynamic_k import naive_dynamic_soft_label
from tests.golden.scenes import Scene, golden, object_numbers

RULES = [DynamicSoftLabel(), DynamicSoftLabel(topk=4, soft_center_radius=1.0, iou_weight=1.0)]


def assign(scene, rule):
    return object_numbers(rule(scene.raw_predictions(), scene.point_priors(), scene.truth()))


@pytest.mark.parametrize("case", ["tiny", "edge"])
def test_agrees_exactly_with_the_reference(case):
    assert torch.equal(assign(Scene(case), DynamicSoftLabel()), golden(f"dsl__{case}__mmdet")["gt_inds"])


@pytest.mark.parametrize("rule", RULES, ids=["published", "other"])
@pytest.mark.parametrize("case", ["tiny", "edge"])
@pytest.mark.parametrize("seed", range(1, 4))
def test_agrees_with_a_naive_loop(seed, case, rule):
    scene = Scene(case, seed)
    assert torch.equal(assign(scene, rule), naive_dynamic_soft_label(scene, rule))


def test_objects_that_no_prediction_overlaps_well_are_assigned_as_by_a_naive_loop():
    scene = Scene("edge", 5)
    scene.boxes[..., 2:] = scene.boxes[..., :2] + 1.5
    scene.logits += 4
    assert torch.equal(assign(scene, DynamicSoftLabel()), naive_dynamic_soft_label(scene, DynamicSoftLabel()))


def test_padded_lists_give_the_same_plan(monkeypatch):
    known = [assign(Scene(case), rule) for case in ("tiny", "edge") for rule in RULES]
    monkeypatch.setattr("ladle.device._as_gpu", True)
    blind = [assign(Scene(case), rule) for case in ("tiny", "edge") for rule in RULES]
    assert all(torch.equal(one, other) for one, other in zip(known, blind, strict=True))


def test_lists_in_many_parts_give_the_same_plan(monkeypatch):
    known = assign(Scene("edge"), DynamicSoftLabel())
    for size in ("ladle.pairs.LONGEST", "ladle.assigners.dynamic_k.LONGEST", "ladle.device._CACHE"):
        monkeypatch.setattr(size, 500)
    assert torch.equal(assign(Scene("edge"), DynamicSoftLabel()), known)


def test_an_object_between_the_points_gets_no_prior():
    scene = Scene("edge")
    assert scene.gt_boxes[1].shape == (1, 4)
    assert not (assign(scene, DynamicSoftLabel())[1] > 0).any()


def test_a_prior_outside_every_object_learns_nothing():
    predictions, priors, truth = example_scene()
    plan = DynamicSoftLabel()(predictions, priors, truth)
    low, high = truth.boxes[:, None, :, :2], truth.boxes[:, None, :, 2:]
    middle = priors.centers.unsqueeze(2)
    inside = ((middle > low) & (middle < high)).all(-1).any(-1)
    assert plan.positive.any()
    assert not (plan.positive & ~inside).any()


def test_priors_that_stand_freely_or_in_the_padding():
    predictions, priors, truth = example_scene()
    whole = DynamicSoftLabel()(predictions, priors, truth)
    free = DynamicSoftLabel()(predictions, replace(priors, grids=None), truth)
    assert torch.equal(free.dense(6), whole.dense(6))
    valid = torch.ones_like(priors.valid)
    valid[:, ::2] = False
    plan = DynamicSoftLabel()(predictions, replace(priors, valid=valid, grids=None), truth)
    assert plan.positive[:, 1::2].any()
    assert not plan.positive[:, ::2].any()


def test_crowds_are_as_good_as_absent_for_other_objects():
    predictions, priors, truth = example_scene(batch=1, objects=5)
    crowd = replace(truth, crowd=torch.tensor([[False, False, True, False, False]]))
    others = [0, 1, 3, 4]
    plan = DynamicSoftLabel()(predictions, priors, crowd).dense(5)
    without = DynamicSoftLabel()(predictions, priors, truth.map(lambda tensor: tensor[:, others])).dense(4)
    assert torch.equal(plan[..., others], without)
    assert not plan[..., 2].any()


@pytest.mark.parametrize("poison", [torch.nan, torch.inf, -torch.inf])
def test_unsound_predictions_are_passed_over(poison):
    scene = Scene("tiny")
    predictions = scene.raw_predictions().map(torch.clone)
    predictions.logits[0, ::3] = torch.nan
    predictions.boxes[0, 1::3] = poison
    plan = DynamicSoftLabel()(predictions, scene.point_priors(), scene.truth())
    assert plan.positive[0, 2::3].any()
    assert not plan.positive[0, ::3].any()
    assert torch.equal(object_numbers(plan)[1], assign(scene, DynamicSoftLabel())[1])


def test_logits_beyond_the_range_of_a_sigmoid_have_a_finite_cost():
    scene = Scene("tiny")
    scene.logits *= 40
    assert torch.equal(assign(scene, DynamicSoftLabel()), naive_dynamic_soft_label(scene, DynamicSoftLabel()))
