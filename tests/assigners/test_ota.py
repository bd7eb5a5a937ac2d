"""OTA against an independent float64 reference, POT's solver, the authors' code on a small scene, and a naive loop."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from ladle.assigners.ota import OTA
from ladle.assigners.sinkhorn import TransportProblem, sinkhorn
from ladle.testing import ASSIGNER_LAWS, example_scene
from ladle.types import Grid, GroundTruth, Predictions, Priors
from tests.assigners.naive_ota import naive_ota, transport
from tests.golden.scenes import Scene, golden, object_numbers

RUN_BY_ITSELF = {"it_compiles_into_one_graph", "a_crowded_image_fits_in_a_gibibyte"}


def inputs(scene):
    return scene.raw_predictions(), scene.point_priors(), scene.truth()


def assign(scene, rule):
    return object_numbers(rule(*inputs(scene)))


def dense_problem(cost, supply, rest):
    """Every pair of one image, ``cost`` (G, P) counted from the background's."""
    objects, priors = cost.shape
    return TransportProblem(
        object=torch.arange(objects).repeat_interleave(priors),
        column=torch.arange(priors).repeat(objects),
        cost=cost.flatten(),
        real=torch.ones(cost.numel(), dtype=torch.bool),
        supply=supply.view(1, -1),
        rest=torch.tensor([float(rest)], dtype=torch.float64),
        priors=torch.tensor([float(priors)], dtype=torch.float64),
        columns=priors,
    )


def row_of_points(count, stride=8.0):
    """One level of points in a row, and predictions whose boxes all fill the first 40 pixels."""
    x = (torch.arange(count) + 0.5) * stride
    boxes = torch.stack([x - 4, torch.zeros(count), x + 4, torch.full((count,), 8.0)], dim=-1)
    grids = (Grid(1, count, stride, 0.5),)
    priors = Priors(
        boxes[None],
        torch.full((count,), stride),
        torch.zeros(count, dtype=torch.long),
        torch.ones(1, count, dtype=torch.bool),
        (count,),
        grids,
    )
    predictions = Predictions(torch.zeros(1, count, 2), torch.tensor([0.0, 0.0, 40.0, 8.0]).expand(1, count, 4).clone())
    return predictions, priors


@pytest.mark.parametrize("law", [law for law in ASSIGNER_LAWS if law.__name__ not in RUN_BY_ITSELF])
def test_obeys_the_laws(law):
    law(OTA())


@pytest.mark.parametrize("case", ["tiny", "edge"])
@pytest.mark.parametrize("reference", ["ref_float64", "pot_numpy_f64"])
def test_agrees_exactly_with_the_reference_where_objects_hold_a_prior(case, reference):
    scene, expected = Scene(case), golden(f"ota__{case}__{reference}")
    problem, _ = OTA().transport_problem(*inputs(scene))
    supply = problem.supply[scene.truth().learnable]
    # The references place the one label of an object without any prior by the million that its pairs cost.
    assert torch.equal(supply.clamp(min=1), expected["dynamic_k"])
    assert (expected["dynamic_k"][supply == 0] == 1).all()
    number = torch.arange(problem.supply.shape[1]) + 1
    lost = torch.where(problem.supply == 0, number, -1)
    of_lost = (expected["gt_inds"].unsqueeze(-1) == lost.unsqueeze(1)).any(-1)
    answer = assign(scene, OTA())
    assert torch.equal(answer, torch.where(of_lost, 0, expected["gt_inds"]))
    assert (answer > 0).sum() > 80


@pytest.mark.parametrize(("case", "images"), [("tiny", (0, 1)), ("edge", (1, 2, 3))])
@pytest.mark.parametrize("reference", ["ref_float64", "pot_numpy_f64"])
def test_the_plan_is_the_reference_s(case, images, reference):
    expected = golden(f"ota__{case}__{reference}")
    amounts = expected["dynamic_k"].split([len(n) for n in Scene(case).gt_labels])
    for image in images:
        cost, plan = expected[f"cost{image}"], expected[f"plan{image}"]
        supply = amounts[image]
        problem = dense_problem(cost[:-1] - cost[-1], supply, cost.shape[1] - supply.sum())
        shipped = sinkhorn(problem, torch.zeros(cost.shape[1], dtype=torch.long))
        torch.testing.assert_close(shipped.pairs.view_as(plan[:-1]), plan[:-1], rtol=0, atol=1e-6)
        torch.testing.assert_close(shipped.background, plan[-1], rtol=0, atol=1e-6)


@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (2, 3, 4))])
@pytest.mark.parametrize("case", ["tiny", "edge"])
def test_agrees_with_a_naive_loop(case, seed):
    scene = Scene(case, seed)
    expected, supplies = naive_ota(scene)
    problem, _ = OTA().transport_problem(*inputs(scene))
    assert torch.equal(assign(scene, OTA()), expected)
    assert problem.supply[scene.truth().learnable].tolist() == [k for image in supplies for k in image]


@pytest.mark.parametrize(
    "fields",
    [
        {"radius": 1.5},
        {"box_weight": 3.0},
        {"topk": 3},
        {"epsilon": 0.5},
        {"iterations": 3},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_every_field_means_what_the_naive_loop_means(fields):
    scene = Scene("tiny", 7)
    answer = assign(scene, OTA(**fields))
    assert torch.equal(answer, naive_ota(scene, **fields)[0])
    assert not torch.equal(answer, assign(scene, OTA()))


def test_agrees_with_the_authors_code_on_a_small_scene():
    strides, index = (8, 16, 32, 64, 128), np.arange(341)
    points = np.concatenate(
        [np.stack(np.meshgrid(*[(np.arange(128 // s) + 0.5) * s] * 2), -1).reshape(-1, 2) for s in strides]
    )
    stride = np.concatenate([np.full((128 // s) ** 2, float(s)) for s in strides])
    sides = stride[:, None] * (1.5 + 0.5 * np.sin(0.3 * index[:, None] + np.arange(4)))
    boxes = np.concatenate([points - sides[:, :2], points + sides[:, 2:]], 1)
    logits = 2 * np.sin(0.7 * index[:, None] + 1.3 * np.arange(3)) - 2
    predictions = Predictions(torch.from_numpy(logits).float()[None], torch.from_numpy(boxes).float()[None])
    square = torch.from_numpy(np.concatenate([points - stride[:, None] / 2, points + stride[:, None] / 2], 1)).float()
    counts = tuple((128 // s) ** 2 for s in strides)
    priors = Priors(
        square[None],
        torch.from_numpy(stride).float(),
        torch.arange(5).repeat_interleave(torch.tensor(counts)),
        torch.ones(1, 341, dtype=torch.bool),
        counts,
    )
    objects = torch.tensor([[10.0, 12, 60, 70], [40, 40, 120, 110], [100, 5, 118, 20]])
    truth = GroundTruth.pad([objects], [torch.arange(3)])
    problem, _ = OTA().transport_problem(predictions, priors, truth)
    assert torch.bincount(problem.object).tolist() == [39, 44, 4]
    assert problem.supply.tolist() == [[6, 6, 1]]
    learnt = OTA()(predictions, priors, truth).dense(3)[0]
    assert learnt[:, 0].nonzero().flatten().tolist() == [265, 273, 274, 282, 325]
    assert learnt[:, 1].nonzero().flatten().tolist() == [291, 292, 293, 294, 326, 330]
    assert learnt[:, 2].nonzero().flatten().tolist() == [29]


def test_an_object_takes_the_priors_of_lowest_cost_and_no_more_than_its_labels():
    predictions, priors = row_of_points(12)
    predictions.boxes[0, 5:] = torch.tensor([80.0, 0.0, 88.0, 8.0])
    predictions.boxes[0, 3:5] = torch.tensor([0.0, 0.0, 20.0, 8.0])
    truth = GroundTruth.pad([torch.tensor([[0.0, 0.0, 40.0, 8.0]])], [torch.tensor([0])])
    problem, place = OTA().transport_problem(predictions, priors, truth)
    assert place.tolist() == [0, 1, 2, 3, 4]
    assert problem.supply.tolist() == [[4.0]]  # IoUs 1, 1, 1, .5, .5
    expected = -0.125 * math.log(2)  # focal .25 instead of .75, times .25 * log 2
    assert problem.cost[:3].tolist() == pytest.approx([expected] * 3, abs=1e-6)
    assert problem.cost[3].item() == pytest.approx(expected + 1.5 * math.log(2), abs=1e-5)
    learnt = OTA()(predictions, priors, truth).positive[0]
    assert learnt.tolist() == [True, True, True] + [False] * 9


def test_an_object_without_a_prior_inside_supplies_and_receives_nothing():
    predictions, priors = row_of_points(12)
    boxes = torch.tensor([[0.0, 0.0, 40.0, 8.0], [49.0, 0.0, 51.0, 8.0]])
    both = GroundTruth.pad([boxes], [torch.tensor([0, 1])])
    alone = GroundTruth.pad([boxes[:1]], [torch.tensor([0])])
    problem, _ = OTA().transport_problem(predictions, priors, both)
    assert problem.supply.tolist() == [[5.0, 0.0]]
    plan = OTA()(predictions, priors, both)
    assert not plan.dense(2)[0, :, 1].any()
    assert torch.equal(plan.dense(2)[..., :1], OTA()(predictions, priors, alone).dense(1))


def test_of_two_equal_objects_the_first_learns():
    scene = Scene("tiny", 2)
    truth = scene.truth()
    twice = truth.map(lambda tensor: tensor.repeat_interleave(2, dim=1))
    plan = OTA()(scene.raw_predictions(), scene.point_priors(), twice).dense(twice.labels.shape[1])
    assert plan[..., ::2].any()
    assert not plan[..., 1::2].any()


def test_pairs_of_infinite_or_nan_cost_are_left_out():
    predictions, priors = row_of_points(12)
    truth = GroundTruth.pad([torch.tensor([[0.0, 0.0, 40.0, 8.0]])], [torch.tensor([0])])
    predictions.logits[0, 0, 0], predictions.logits[0, 1, 0], predictions.boxes[0, 2, 1] = (
        torch.nan,
        torch.inf,
        torch.nan,
    )
    predictions.logits[0, 3, 1] = torch.nan  # another class's: cancels
    problem, _ = OTA().transport_problem(predictions, priors, truth)
    assert problem.supply.tolist() == [[2.0]]
    assert OTA()(predictions, priors, truth).positive[0].nonzero().flatten().tolist() == [3, 4]
    predictions.logits[:] = torch.nan
    nothing = OTA()(predictions, priors, truth)
    assert not nothing.positive.any()
    assert (nothing.background == 1).all()


@pytest.mark.parametrize("size", [1e2, 1e4, 1e30])
def test_predictions_out_of_all_proportion_leave_the_plan_finite(size):
    predictions, priors, truth = example_scene(objects=8, seed=3)
    loud = replace(predictions, logits=predictions.logits * size, boxes=predictions.boxes * size)
    problem, place = OTA().transport_problem(loud, priors, truth)
    plan = sinkhorn(problem, place // priors.boxes.shape[1])
    for amount in (plan.pairs, plan.background, plan.others):
        assert amount.isfinite().all()
        assert (amount >= 0).all()
    assert OTA()(loud, priors, truth).positive.any()


def test_far_costs_ship_as_in_logarithms():
    generator = torch.Generator().manual_seed(0)
    cost = torch.rand(5, 40, generator=generator, dtype=torch.float64) * 50 - 5
    supply = torch.tensor([3.0, 1.0, 8.0, 2.0, 1.0], dtype=torch.float64)
    plan = sinkhorn(dense_problem(cost, supply, 25), torch.zeros(40, dtype=torch.long))
    expected = transport(np.concatenate([cost.numpy(), np.zeros((1, 40))]), [*supply.tolist(), 25.0], 0.1, 50)
    torch.testing.assert_close(plan.pairs.view(5, 40), torch.from_numpy(expected[:-1]), rtol=0, atol=1e-9)
    torch.testing.assert_close(plan.background, torch.from_numpy(expected[-1]), rtol=0, atol=1e-9)
    torch.testing.assert_close(plan.pairs.view(5, 40).sum(1), supply)


def test_objects_with_more_labels_than_priors_leave_the_background_one_label():
    predictions, priors = row_of_points(5)
    boxes = torch.tensor([[0.0, 0.0, 40.0, 8.0]]).expand(3, 4)
    truth = GroundTruth.pad([boxes], [torch.tensor([0, 1, 1])])
    problem, _ = OTA().transport_problem(predictions, priors, truth)
    assert (problem.supply.tolist(), problem.rest.tolist()) == ([[5.0, 5.0, 5.0]], [1.0])
    plan = OTA()(predictions, priors, truth)
    assert plan.positive.all()
    assert plan.affinity.isfinite().all()


def test_crowds_supply_no_labels_and_priors_in_padding_receive_none():
    scene = Scene("tiny")
    predictions, priors, truth = inputs(scene)
    plain = OTA().transport_problem(predictions, priors, truth)[0]
    crowd = truth.crowd.clone()
    crowd[0, 0] = True
    valid = priors.valid.clone()
    valid[:, ::3] = False
    problem, place = OTA().transport_problem(predictions, replace(priors, valid=valid), replace(truth, crowd=crowd))
    assert plain.supply[0, 0] > 0
    assert problem.supply[0, 0] == 0
    assert problem.priors.tolist() == [float(valid.sum())] * 2
    assert valid[0, place % scene.A].all()
    plan = OTA()(predictions, replace(priors, valid=valid), replace(truth, crowd=crowd))
    assert plan.positive.any()
    assert not (plan.positive | (plan.background > 0))[~valid.expand(2, -1)].any()


def test_priors_that_stand_freely_are_assigned_alike(monkeypatch):
    scene = Scene("edge", 3)
    predictions, priors, truth = inputs(scene)
    whole = assign(scene, OTA())
    free = replace(priors, grids=None)
    assert torch.equal(object_numbers(OTA()(predictions, free, truth)), whole)
    monkeypatch.setattr("ladle.device._CACHE", 1)
    monkeypatch.setattr("ladle.pairs.LONGEST", 64)
    assert torch.equal(object_numbers(OTA()(predictions, free, truth)), whole)
    assert torch.equal(assign(scene, OTA()), whole)


def test_lists_of_fixed_length_decide_alike(monkeypatch):
    scenes = [Scene("tiny", 1), Scene("edge", 1)]
    looked = [assign(scene, OTA()) for scene in scenes]
    monkeypatch.setattr("ladle.device._as_gpu", True)
    for scene, expected in zip(scenes, looked):
        predictions, priors, truth = inputs(scene)
        nameless = replace(truth, labels=torch.where(truth.valid, truth.labels, -1))
        assert torch.equal(object_numbers(OTA()(predictions, priors, nameless)), expected)
        assert torch.equal(object_numbers(OTA()(predictions, replace(priors, grids=None), truth)), expected)


def test_a_batch_without_objects_or_without_columns_for_them_is_background():
    scene = Scene("tiny")
    predictions, priors, truth = inputs(scene)
    for none in (replace(truth, valid=torch.zeros_like(truth.valid)), truth.map(lambda tensor: tensor[:, :0])):
        for where in (priors, replace(priors, grids=None)):
            plan = OTA()(predictions, where, none)
            assert not plan.positive.any()
            assert (plan.background == 1).all()
