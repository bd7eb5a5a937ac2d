"""One-to-one matching against two implementations, SciPy on the full matrix and naive loops."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment

from ladle.assigners.hungarian import Hungarian
from ladle.testing import example_scene
from ladle.types import GroundTruth, Predictions, Priors
from tests.golden.scenes import Scene, golden, object_numbers

SOFTMAX = Hungarian(class_cost="softmax", class_weight=1.0)


def whole_image(count, width, height, valid=None):
    boxes = torch.tensor([0.0, 0.0, width, height]).expand(1, count, 4)
    real = torch.ones(1, count, dtype=torch.bool) if valid is None else torch.tensor([valid])
    return Priors(boxes, torch.ones(count), torch.zeros(count, dtype=torch.long), real, (count,))


def queries(scene, count=300):
    """Some of the scene's predictions, cut at the border: on these the references' answers were recorded."""
    generator = torch.Generator().manual_seed(6)
    index = torch.stack([torch.randperm(scene.A, generator=generator)[:count] for _ in range(scene.B)]).unsqueeze(-1)
    boxes = torch.from_numpy(scene.boxes).gather(1, index.expand(-1, -1, 4))
    boxes = boxes.clamp(min=0).minimum(torch.tensor([scene.W, scene.H, scene.W, scene.H]).float())
    logits = torch.from_numpy(scene.logits).gather(1, index.expand(-1, -1, scene.C))
    return Predictions(logits, boxes), whole_image(count, scene.W, scene.H), scene.truth()


def naive_costs(predictions, truth, row, size, rule):
    """What every prior costs every object, in float64 and one pair at a time."""
    logits, boxes = predictions.logits[row].double().numpy(), predictions.boxes[row].double().numpy()
    real = truth.learnable[row].nonzero().flatten().tolist()
    out = np.zeros((len(boxes), len(real)))
    for column, g in enumerate(real):
        label, other = int(truth.labels[row, g]), truth.boxes[row, g].double().tolist()
        for p, box in enumerate(boxes):
            cost = rule.class_weight * naive_class_cost(logits[p], label, rule.class_cost)
            cost += rule.box_weight * naive_distance(box, other, size)
            out[p, column] = cost - rule.giou_weight * naive_giou(box, other)
    return out


def naive_class_cost(logits, label, kind):
    if kind == "softmax":
        return -math.exp(logits[label]) / sum(math.exp(z) for z in logits)
    p = 1 / (1 + math.exp(-logits[label]))
    return -0.25 * (1 - p) ** 2 * math.log(p) + 0.75 * p**2 * math.log(1 - p)


def naive_distance(box, other, size):
    total = 0.0
    for axis in (0, 1):
        total += abs((box[axis] + box[axis + 2]) / 2 - (other[axis] + other[axis + 2]) / 2) / size[axis]
        total += abs((box[axis + 2] - box[axis]) - (other[axis + 2] - other[axis])) / size[axis]
    return total


def naive_giou(a, b):
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(0, width) * max(0, height)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared
    hull = (max(a[2], b[2]) - min(a[0], b[0])) * (max(a[3], b[3]) - min(a[1], b[1]))
    return shared / union - (hull - union) / hull


def assert_lowest_cost(plan, predictions, truth, size, rule):
    """Each object is matched once, and the total is SciPy's on the full matrix."""
    for row in range(len(truth.labels)):
        costs = naive_costs(predictions, truth, row, size, rule)
        column = {g: k for k, g in enumerate(truth.learnable[row].nonzero().flatten().tolist())}
        mine = plan.positive[row].nonzero().flatten().tolist()
        objects = [column[g] for g in plan.index[row][plan.positive[row]].tolist()]
        assert len(objects) == len(set(objects)) == min(costs.shape)
        least = costs[linear_sum_assignment(costs)].sum()
        assert costs[mine, objects].sum() == pytest.approx(least, abs=1e-5 * max(1, len(mine)))


@pytest.mark.parametrize("case", ["tiny", "edge"])
@pytest.mark.parametrize("reference", ["mmdet", "transformers_rtdetr"])
def test_agrees_exactly_with_the_references(case, reference):
    plan = Hungarian()(*queries(Scene(case)))
    assert torch.equal(object_numbers(plan), golden(f"hungarian__{case}__{reference}")["gt_inds"])


@pytest.mark.parametrize("rule", [Hungarian(), SOFTMAX], ids=["focal", "softmax"])
@pytest.mark.parametrize(("case", "seed"), [("tiny", 0), ("edge", 0), ("tiny", 1), ("tiny", 2)])
def test_the_total_cost_is_that_of_the_full_matrix(rule, case, seed):
    scene = Scene(case, seed)
    predictions, priors, truth = queries(scene)
    assert_lowest_cost(rule(predictions, priors, truth), predictions, truth, (scene.W, scene.H), rule)


def test_few_candidates_are_enough_when_many_objects_compete_for_them():
    scene = Scene("tiny", 1)
    predictions, priors, truth = queries(scene)
    same = replace(truth, boxes=truth.boxes[:, :1] + torch.arange(7.0).view(1, 7, 1) / 50)
    same = replace(same, labels=torch.zeros_like(same.labels))
    assert_lowest_cost(Hungarian()(predictions, priors, same), predictions, same, (scene.W, scene.H), Hungarian())


def test_every_prior_of_a_dense_head_can_be_matched():
    scene = Scene("tiny", 1)
    predictions, priors, truth = scene.raw_predictions(), scene.point_priors(), scene.truth()
    assert_lowest_cost(Hungarian()(predictions, priors, truth), predictions, truth, (320, 256), Hungarian())


def test_small_slices_change_nothing(monkeypatch):
    scene = queries(Scene("edge"))
    whole = Hungarian()(*scene)
    monkeypatch.setattr("ladle.device._CACHE", 64)
    sliced = Hungarian()(*scene)
    assert torch.equal(whole.dense(26), sliced.dense(26))
    assert whole.positive.sum() == 31


# ---------------------------------------------------------------------------------------------------- hand-sized scenes


def boxes_at(*lefts):
    """Boxes of 10 by 10 pixels in one row, of one class and equal scores."""
    return torch.tensor([[x, 0.0, x + 10, 10.0] for x in lefts])


def hand(predicted, objects, valid=None, crowd=None):
    predictions = Predictions(torch.zeros(1, len(predicted), 1), boxes_at(*predicted)[None])
    flags = [torch.tensor(crowd)] if crowd else None
    truth = GroundTruth.pad([boxes_at(*objects)], [torch.zeros(len(objects), dtype=torch.long)], flags)
    return predictions, whole_image(len(predicted), 100.0, 20.0, valid), truth


def numbers(*scene, rule=None):
    return object_numbers((rule or Hungarian())(*scene))[0].tolist()


def test_the_total_decides_and_not_the_nearest():
    # Both objects are nearest to the prior at 20; it goes to the one that has nothing else near.
    assert numbers(*hand([20, 30], [22, 21])) == [2, 1]
    assert numbers(*hand([20, 30, 0], [22, 12])) == [1, 0, 2]


def test_equal_objects_get_different_priors():
    assert sorted(numbers(*hand([20, 21, 70], [20, 20]))) == [0, 1, 2]


def test_with_more_objects_than_priors_the_pairs_of_lowest_cost_are_matched():
    assert numbers(*hand([20, 60], [50, 21, 60])) == [2, 3]


def test_invalid_priors_and_crowds_are_not_matched():
    assert numbers(*hand([20, 30, 60], [20, 60], valid=[False, True, True])) == [-1, 1, 2]
    assert numbers(*hand([20, 30, 60], [20, 60], crowd=[True, False])) == [0, 0, 2]


def test_without_objects_all_is_background():
    predictions, priors, truth = hand([20, 30], [20])
    for none in (truth.map(lambda tensor: tensor[:, :0]), replace(truth, valid=~truth.valid)):
        plan = Hungarian()(predictions, priors, none)
        assert not plan.positive.any()
        assert plan.background.all()


@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf])
def test_a_pair_whose_cost_is_not_finite_is_never_made(poison):
    predictions, priors, truth = hand([20, 30, 60], [20, 60])
    bad = predictions.map(torch.clone)
    bad.boxes[0, 0] = poison
    assert numbers(bad, priors, truth) == [0, 1, 2]
    bad.boxes[0, 1] = poison
    assert numbers(bad, priors, truth) == [0, 0, 2]
    bad.logits[0, 2] = poison
    assert numbers(bad, priors, truth) == [0, 0, 0]


def test_bad_objects_leave_the_others_alone():
    predictions, priors, truth = hand([20, 30, 60], [20, 60])
    truth.boxes[0, 0] = math.nan
    assert numbers(predictions, priors, truth) == [0, 0, 2]


def test_sizes_are_measured_in_images():
    # Wide images make horizontal distances small: then the shape decides, else the position.
    predictions, priors, truth = hand([20, 30], [24])
    predictions.boxes[0, 1] = torch.tensor([24.0, 0, 34, 13])
    only = Hungarian(class_weight=0.0, giou_weight=0.0)
    assert numbers(predictions, priors, truth, rule=only) == [1, 0]
    assert numbers(predictions, priors, truth, rule=replace(only, size=(100.0, 20.0))) == [1, 0]
    assert numbers(predictions, priors, truth, rule=replace(only, size=(20.0, 100.0))) == [0, 1]


def test_the_image_ends_where_the_last_valid_prior_does():
    predictions, priors, truth = example_scene()
    valid = priors.centers[..., 0] < 150
    seen = replace(priors, valid=valid)
    width = priors.boxes[valid][:, 2].max().item()
    height = priors.boxes[valid][:, 3].max().item()
    plan = Hungarian()(predictions, seen, truth)
    assert torch.equal(plan.index, Hungarian(size=(width, height))(predictions, seen, truth).index)
    assert plan.positive.sum() == 12


def test_labels_of_padding_may_be_anything():
    predictions, priors, truth = example_scene()
    valid, labels = truth.valid.clone(), truth.labels.clone()
    valid[:, -1], labels[:, -1] = False, 255
    expected = Hungarian()(predictions, priors, truth.map(lambda tensor: tensor[:, :-1]))
    assert torch.equal(
        Hungarian()(predictions, priors, replace(truth, valid=valid, labels=labels)).index, expected.index
    )
