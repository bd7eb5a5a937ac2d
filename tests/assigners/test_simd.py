"""MaxIoU and ATSS by SimD: the formula of the paper in a loop, what it is for, and its two numbers for a data set."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from ladle.assigners import ATSS, PAA, MaxIoU, SimD
from ladle.errors import UserError
from ladle.overlaps import best_overlaps
from ladle.recipes.parts import ASSIGNER, assigner_of
from ladle.statistics import center_distances
from ladle.testing import example_scene
from ladle.testing.scenes import grid_priors
from ladle.types import GroundTruth, Predictions
from ladle.values import as_text, set_field, text_of, value_of
from tests.assigners.naive import naive_atss, naive_max_iou, similarity_matrix
from tests.golden.scenes import Scene, object_numbers

M, N = 2.0, 1.5
RPN = {"positive": 0.7, "negative": 0.3, "rescue": 0.3}
"""The thresholds of the released code."""


def matrices(scene, boxes=None):
    return [
        similarity_matrix(np.concatenate(scene.anchors) if boxes is None else boxes[row], objects, M, N)
        for row, objects in enumerate(scene.gt_boxes)
    ]


@pytest.fixture(scope="module", params=["tiny", "edge"])
def scene(request):
    made = Scene(request.param, 1)
    return made, matrices(made), (made.predictions(), made.priors(), made.truth())


@pytest.mark.parametrize("rescue", [None, 0.0, 0.3])
def test_max_iou_agrees_with_a_naive_loop(scene, rescue):
    naive, similar, inputs = scene
    plan = MaxIoU(0.7, 0.3, rescue=rescue, overlap=SimD(M, N))(*inputs)
    assert plan.positive.any()
    assert torch.equal(object_numbers(plan), naive_max_iou(naive, 0.7, 0.3, rescue, similar))


def test_atss_agrees_with_a_naive_loop(scene):
    naive, similar, inputs = scene
    assert torch.equal(object_numbers(ATSS(overlap=SimD(M, N))(*inputs)), naive_atss(naive, overlaps=similar))


def test_a_judge_is_asked_by_the_same_measure():
    scene = Scene("tiny", 1)
    predictions, priors, truth = scene.predictions(), scene.priors(), scene.truth()
    plan = MaxIoU(0.7, 0.3, overlap=SimD(M, N)).judged_by_teacher(False, 0.0, False)(predictions, priors, truth)
    expected = naive_max_iou(scene, 0.7, 0.3, 0.0, matrices(scene, predictions.boxes.numpy()))
    assert torch.equal(object_numbers(plan), expected)
    same = Predictions(predictions.logits, priors.boxes.expand(len(truth.labels), -1, -1))
    for rule in (MaxIoU(overlap=SimD(M, N)), ATSS(overlap=SimD(M, N))):
        judged = rule.judged_by_teacher(True, 0.0, False)(same, priors, truth)
        assert torch.equal(object_numbers(judged), object_numbers(rule(predictions, priors, truth)))


def test_a_pool_of_candidates_may_use_it():
    similar = MaxIoU(0.1, 0.1, overlap=SimD(M, N))
    inputs = example_scene()
    assert PAA(pool=similar)(*inputs).positive.le(similar(*inputs).positive).all()


def small_objects():
    """Objects of 4 pixels in images of 64, and anchors of 8 pixels at the corners of cells of 32: none overlap."""
    priors = grid_priors(64, 64, (32,), side=0.25)
    boxes = torch.tensor([[8.0, 8.0, 12.0, 12.0], [60.0, 30.0, 64.0, 34.0]])
    truth = GroundTruth.pad([boxes], [torch.tensor([0, 0])])
    return Predictions.placeholder(priors, 1, 1), priors, truth


def test_an_object_that_no_prior_overlaps_gets_the_most_similar_one():
    inputs = small_objects()
    assert not MaxIoU()(*inputs).positive.any()
    plan = MaxIoU(overlap=SimD(1.0, 1.0))(*inputs)
    assert plan.dense(2).sum(1).gt(0).all()
    nearest = torch.cdist(inputs[2].boxes[0, :, :2] + 2, inputs[1].centers[0]).argmin(1)
    assert plan.dense(2)[0, nearest, torch.tensor([0, 1])].tolist() == [1, 1]


@pytest.mark.parametrize("rule", [MaxIoU(**RPN, overlap=SimD(M, N)), ATSS(overlap=SimD(M, N), margin=0.0)])
def test_an_image_enlarged_with_all_its_boxes_is_assigned_alike(rule):
    predictions, priors, truth = example_scene()
    stretched = [grid._replace(stride=grid.stride * 4) for grid in priors.grids]
    large = replace(priors, boxes=priors.boxes * 4, stride=priors.stride * 4, grids=tuple(stretched))
    plan, same = rule(predictions, priors, truth), rule(predictions, large, replace(truth, boxes=truth.boxes * 4))
    assert plan.positive.any()
    assert torch.equal(object_numbers(plan), object_numbers(same))


def test_the_same_on_a_grid_and_off_it(scene):
    _, _, (_, priors, truth) = scene
    on, off = (
        best_overlaps(priors.boxes, priors.valid, truth, 0.0, grids, None, SimD(M, N)) for grids in (priors.grids, None)
    )
    for name in ("iou", "index", "peak", "claimant"):
        assert torch.equal(getattr(on, name), getattr(off, name))


def test_equal_boxes_are_fully_similar_and_endless_ones_not_at_all():
    box, endless = torch.tensor([10.0, 20.0, 30.0, 25.0]), torch.tensor([0.0, 0.0, torch.inf, 9.0])
    measure = SimD(6.13, 4.59)
    assert measure.between(box, box) == 1
    assert measure.between(torch.zeros(4), torch.zeros(4)) == 1
    assert measure.between(box, endless) == 0
    assert measure.between(box, endless.nan_to_num()) == 0
    assert measure.between(box, torch.tensor([0.0, 20.0, 40.0, 25.0])).item() == pytest.approx(np.exp(-6.13 * 20 / 60))


def test_tiny_similarities_name_the_right_object_and_prior():
    """Here the largest similarities are about 1e-36, so that differences times 1e30 are below one."""
    boxes = torch.tensor([[[0.0, 0, 1, 1], [83.0, 0, 84, 1]]])
    truth = GroundTruth.pad([torch.tensor([[250.5, 0, 251.5, 1], [250.0, 0, 251, 1]])], [torch.tensor([0, 0])])
    found = best_overlaps(boxes, torch.ones(1, 2, dtype=torch.bool), truth, 0.0, measure=SimD(1.0, 1.0))
    assert 0 < found.peak.max() < 1e-30
    assert found.iou[0].tolist() == [0, found.peak[0, 1]]
    assert found.index.tolist() == [[0, 1]]
    assert found.claimant.tolist() == [[0, 2]]


def naive_distances(priors, truth):
    """Mean distances across and down, by a loop over pairs."""
    found = []
    for image in range(len(truth.labels)):
        for box in truth.boxes[image][truth.learnable[image]].tolist():
            for prior, valid in zip(priors.boxes[image % len(priors.boxes)].tolist(), priors.valid[image].tolist()):
                if valid:
                    (x1, y1, x2, y2), (a1, b1, a2, b2) = box, prior
                    across = abs((x1 + x2) - (a1 + a2)) / 2 / ((x2 - x1) + (a2 - a1))
                    found.append((across, abs((y1 + y2) - (b1 + b2)) / 2 / ((y2 - y1) + (b2 - b1))))
    return np.array(found)


@pytest.mark.parametrize("grids", [True, False])
@pytest.mark.parametrize("memory", [1 << 18, 1])
def test_mean_distances_are_those_of_a_loop(grids, memory, monkeypatch):
    monkeypatch.setattr("ladle.device._CACHE", memory)
    _, priors, truth = example_scene(objects=9, size=(64, 96))
    valid = torch.ones(2, priors.boxes.shape[1], dtype=torch.bool)
    valid[1, 48:96] = False  # the lower half of the finest level: eight rows of twelve
    truth.crowd[0, 2] = True
    priors = replace(priors, valid=valid, grids=priors.grids if grids else None)
    expected = naive_distances(priors, truth)
    sums = center_distances(priors, truth)[truth.learnable].sum(0)
    np.testing.assert_allclose(sums.numpy() / len(expected), expected.mean(0), rtol=1e-12)


def test_text_names_it_and_is_made_of_it():
    rule = assigner_of("MaxIoU(0.7, 0.3, rescue=0.3, overlap=SimD(m=6.13, n=4))")
    assert rule == MaxIoU(0.7, 0.3, rescue=0.3, overlap=SimD(6.13, 4.0))
    assert value_of(ASSIGNER, text_of(ASSIGNER, rule)) == rule
    assert assigner_of(as_text({"class": "ATSS", "overlap": {"class": "SimD", "m": 2, "n": 2}})).overlap == SimD(
        2.0, 2.0
    )


def test_a_flag_for_the_field_takes_it():
    text = set_field("MaxIoU(0.7, 0.3)", ["overlap"], "SimD(m=6.13, n=4)")
    assert assigner_of(text) == MaxIoU(0.7, 0.3, overlap=SimD(6.13, 4.0))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("MaxIoU(overlap=SimD)", "SimD needs m and n"),
        ("MaxIoU(overlap=SimD(m=2.0))", "SimD needs n"),
        ("MaxIoU(overlap=SimD(0, 1))", "takes numbers above 0, found m=0"),
        ("MaxIoU(overlap=SimD('much', 1))", "m takes a number, found 'much'"),
        ("MaxIoU(overlap='giou')", "overlap takes iou or a mapping, found 'giou'"),
        ("SimD(2, 2)", "no assigner is called that"),
    ],
)
def test_a_mistake_is_told(text, message):
    with pytest.raises(UserError, match=message):
        assigner_of(text)
