"""SimOTA against YOLOX, mmdetection, a naive loop and hand-sized examples."""

from dataclasses import replace

import pytest
import torch

from ladle.assigners import dynamic_k
from ladle.assigners.sim_ota import SimOTA
from ladle.detectors.priors import Anchors
from ladle.pairs import Pairs
from ladle.testing import example_scene
from ladle.types import GroundTruth, Predictions
from ladle.windows import squares
from tests.assigners.naive_dynamic_k import naive_sim_ota
from tests.golden.scenes import Scene, golden, object_numbers

REPORT = SimOTA(radius=2.5, candidates="center or box", penalty=1e5)
MMDET = replace(REPORT, floor=1e-7)
RULES = [SimOTA(), REPORT, SimOTA(topk=4, box_weight=1.0, class_weight=2.0)]


def assign(scene, rule):
    return object_numbers(rule(scene.raw_predictions(), scene.point_priors(), scene.truth()))


@pytest.mark.parametrize("case", ["tiny", "edge"])
@pytest.mark.parametrize(("rule", "name"), [(REPORT, "yolox"), (MMDET, "mmdet")], ids=["yolox", "mmdet"])
def test_agrees_exactly_with_the_reference(case, rule, name):
    assert torch.equal(assign(Scene(case), rule), golden(f"simota__{case}__{name}")["gt_inds"])


@pytest.mark.parametrize("rule", RULES, ids=["today", "report", "weights"])
@pytest.mark.parametrize("case", ["tiny", "edge"])
@pytest.mark.parametrize("seed", range(1, 4))
def test_agrees_with_a_naive_loop(seed, case, rule):
    scene = Scene(case, seed)
    assert torch.equal(assign(scene, rule), naive_sim_ota(scene, rule))


def test_without_quality_the_class_probability_is_the_score():
    scene = Scene("tiny")
    predictions = replace(scene.raw_predictions(), quality=None)
    plan = SimOTA()(predictions, scene.point_priors(), scene.truth())
    assert torch.equal(object_numbers(plan), naive_sim_ota(scene, SimOTA(), quality=False))
    assert not torch.equal(object_numbers(plan), assign(scene, SimOTA()))


def hand_sized():
    """Three objects in 128 x 128 pixels, and predictions made of sines."""
    sizes = tuple((128 // s, 128 // s) for s in (8, 16, 32, 64, 128))
    priors = Anchors((1.0,), (1.0,), 0.5).grid(sizes, (8, 16, 32, 64, 128), None, torch.device("cpu"))
    number = torch.arange(len(priors.stride)).double()
    wave = 0.3 * number[:, None] + torch.arange(4)
    reach = priors.stride[:, None] * (1.5 + 0.5 * wave.sin())
    x, y = priors.centers[0].double().unbind(-1)
    boxes = torch.stack([x - reach[:, 0], y - reach[:, 1], x + reach[:, 2], y + reach[:, 3]], -1).float()
    logits = 2 * (0.7 * number[:, None] + 1.3 * torch.arange(3)).sin() - 2
    quality = (0.2 * number).sin() - 1
    objects = torch.tensor([[10.0, 12, 60, 70], [40, 40, 120, 110], [100, 5, 118, 20]])
    truth = GroundTruth.pad([objects], [torch.arange(3)])
    return Predictions(logits.float()[None], boxes[None], quality.float()[None]), priors, truth


def test_candidates_counts_and_choice_of_the_hand_sized_scene():
    predictions, priors, truth = hand_sized()
    candidate = dynamic_k.inside_any(priors, squares(priors, truth, 1.5), truth.learnable)
    assert candidate.sum() == 65
    assert dynamic_k.dynamic_counts(predictions.boxes, candidate, truth, 10).tolist() == [[4, 4, 3]]
    plan = SimOTA()(predictions, priors, truth).dense(3)[0]
    chosen = [column.nonzero().squeeze(1).tolist() for column in plan.unbind(1)]
    assert chosen == [[273, 274, 282, 325], [292, 293, 326, 330], [13, 29, 45]]


def shared_out(cost, many, near=None, bound=torch.inf):
    """What ``assign_lowest_cost`` gives to the objects, from a table of objects by priors."""
    cost = torch.tensor(cost)
    objects, count = cost.shape
    prior = torch.arange(count).expand(1, objects, -1)
    near = torch.ones_like(cost, dtype=torch.bool) if near is None else torch.tensor(near)
    lists = [Pairs.table(prior, torch.ones(1, objects, count, dtype=torch.bool)).keep(near.flatten())]
    candidate = torch.ones(1, count, dtype=torch.bool)
    taken, index = dynamic_k.assign_lowest_cost(
        lists, lambda mask: lambda pairs: cost[pairs.object, pairs.prior], bound, candidate, torch.tensor([many])
    )
    return [g + 1 if yes else 0 for yes, g in zip(taken[0].tolist(), index[0].tolist(), strict=True)]


CONFLICT = [[1.0, 5.0, 6.0, 7.0], [1.2, 5.0, 6.0, 7.0], [0.8, 5.0, 6.0, 0.1]]


def test_a_prior_that_two_objects_select_may_go_to_a_third():
    assert shared_out(CONFLICT, [1, 1, 1]) == [3, 0, 0, 3]


def test_a_prior_selected_once_keeps_its_object_though_another_has_lower_cost():
    assert shared_out([[1.0, 2.0], [0.5, 0.1]], [1, 1]) == [1, 2]


def test_an_object_with_too_few_near_pairs_selects_among_all():
    cost = [[1.0, 20.0, 30.0], [25.0, 2.0, 21.0]]
    near = [[True, False, False], [False, True, False]]
    assert shared_out(cost, [2, 1], near, bound=10.0) == [1, 2, 0]
    assert shared_out(cost, [3, 2], near, bound=10.0) == [1, 2, 2]


def test_a_prior_above_the_bound_for_all_objects_goes_to_the_lowest_cost():
    nothing = [[False] * 4] * 3
    assert shared_out([[cost + 10 for cost in row] for row in CONFLICT], [1, 1, 1], nothing, 10.0) == [3, 0, 0, 3]


def test_padded_lists_give_the_same_plan(monkeypatch):
    scenes = [Scene("tiny"), Scene("edge")]
    plans = [[assign(scene, rule) for rule in (SimOTA(), MMDET)] for scene in scenes]
    monkeypatch.setattr("ladle.device._as_gpu", True)
    for scene, known in zip(scenes, plans, strict=True):
        assert all(torch.equal(assign(scene, rule), plan) for rule, plan in zip((SimOTA(), MMDET), known, strict=True))


def test_lists_in_many_parts_give_the_same_plan(monkeypatch):
    known = [assign(Scene("edge"), rule) for rule in RULES]
    for size in ("ladle.pairs.LONGEST", "ladle.assigners.dynamic_k.LONGEST", "ladle.device._CACHE"):
        monkeypatch.setattr(size, 500)
    assert all(torch.equal(assign(Scene("edge"), rule), plan) for rule, plan in zip(RULES, known, strict=True))


def test_priors_that_stand_freely_are_assigned_alike():
    scene = Scene("edge")
    free = replace(scene.point_priors(), grids=None)
    for rule in RULES:
        plan = rule(scene.raw_predictions(), free, scene.truth())
        assert torch.equal(object_numbers(plan), assign(scene, rule))


def test_an_object_without_a_prior_near_it_takes_a_candidate_of_others():
    predictions, priors, truth = example_scene(batch=1, objects=3)
    away = replace(truth, boxes=truth.boxes.index_fill(1, torch.tensor([1]), 9000.0))
    taken = SimOTA()(predictions, priors, away).dense(3).sum(1)[0]
    assert taken[1] == 1
    assert not replace(SimOTA(), penalty=torch.inf)(predictions, priors, away).dense(3)[..., 1].any()


@pytest.mark.parametrize("rule", RULES, ids=["today", "report", "weights"])
def test_without_any_candidate_there_is_no_positive(rule):
    predictions, priors, truth = example_scene(objects=3)
    boxes = truth.boxes.clone()
    boxes[0] = 9000.0
    plan = rule(predictions, priors, replace(truth, boxes=boxes))
    assert not plan.positive[0].any()
    assert (plan.background[0] == 1).all()
    assert plan.positive[1].any()


def test_an_infinite_penalty_keeps_objects_about_their_centers():
    scene, rule = Scene("edge"), replace(REPORT, penalty=torch.inf)
    priors, truth = scene.point_priors(), scene.truth()
    plan = rule(scene.raw_predictions(), priors, truth)
    box, _ = truth.at(plan.index)
    apart = (priors.centers - (box[..., :2] + box[..., 2:]) / 2).abs().amax(-1)
    assert plan.positive.any()
    assert (apart < 2.5 * priors.stride)[plan.positive].all()
    assert not torch.equal(object_numbers(plan), assign(scene, REPORT))


def test_priors_in_the_padding_of_an_image_learn_nothing():
    predictions, priors, truth = example_scene(batch=2)
    valid = torch.ones_like(priors.valid).repeat(2, 1)
    valid[0, ::2] = False
    plan, whole = (SimOTA()(predictions, each, truth) for each in (replace(priors, valid=valid, grids=None), priors))
    assert not plan.positive[~valid].any()
    assert not plan.background[~valid].any()
    assert plan.positive[0].any()
    assert torch.equal(plan.dense(6)[1], whole.dense(6)[1])


def test_crowds_are_as_good_as_absent_for_other_objects():
    predictions, priors, truth = example_scene(batch=1, objects=5)
    crowd = replace(truth, crowd=torch.tensor([[False, False, True, False, False]]))
    others = [0, 1, 3, 4]
    without = truth.map(lambda tensor: tensor[:, others])
    plan = SimOTA()(predictions, priors, crowd).dense(5)
    assert torch.equal(plan[..., others], SimOTA()(predictions, priors, without).dense(4))
    assert not plan[..., 2].any()


@pytest.mark.parametrize("poison", [torch.nan, torch.inf, -torch.inf])
def test_unsound_predictions_are_passed_over(poison):
    scene = Scene("tiny")
    predictions = scene.raw_predictions().map(torch.clone)
    predictions.boxes[0, ::3] = poison
    predictions.quality[0, 1::3] = torch.nan
    plan = SimOTA()(predictions, scene.point_priors(), scene.truth())
    assert plan.positive[0, 2::3].any()
    assert not plan.positive[0, 1::3].any()
    assert torch.equal(object_numbers(plan)[1], assign(scene, SimOTA())[1])
