"""Task-aligned assignment against mmdetection, a second implementation, a published example and naive loops."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from ladle.assigners.task_aligned import TaskAligned, complete_iou
from ladle.boxes import decode_deltas, iou
from ladle.testing import example_scene
from ladle.types import GroundTruth, Predictions, Priors
from tests.assigners.naive import overlap_matrix
from tests.golden.scenes import Scene, golden, object_numbers

TINY = torch.finfo(torch.float32).tiny
YOLO = TaskAligned(
    topk=10, alpha=0.5, inside="before", overlap="ciou", margin=1e-9, eps=1e-9, conflict="all", least_side=16.0
)
RULES = [TaskAligned(), YOLO, TaskAligned(topk=4, overlap="ciou", conflict="all", least_side=24.0, alpha=0.0)]
NAMES = ["tood", "yolov8", "mixed"]


def assign(scene, rule):
    return rule(scene.raw_predictions(), scene.point_priors(), scene.truth())


# ------------------------------------------------------------------------------------------------------- naive loops


def naive_complete_iou(box, other):
    x1, y1, x2, y2 = map(float, box)
    left, top, right, bottom = map(float, other)
    shared = max(0, min(x2, right) - max(x1, left)) * max(0, min(y2, bottom) - max(y1, top))
    overlap = shared / ((x2 - x1) * (y2 - y1) + (right - left) * (bottom - top) - shared)
    diagonal = (max(x2, right) - min(x1, left)) ** 2 + (max(y2, bottom) - min(y1, top)) ** 2
    apart = ((x1 + x2 - left - right) / 2) ** 2 + ((y1 + y2 - top - bottom) / 2) ** 2
    v = 4 / math.pi**2 * (math.atan((right - left) / (bottom - top)) - math.atan((x2 - x1) / (y2 - y1))) ** 2
    return overlap - apart / diagonal - (v * v / (1 - overlap + v) if v else 0)


def naive_tables(scene, row, rule):
    """Alignment, overlap and whether the center is held, each (priors, objects)."""
    objects, labels = scene.gt_boxes[row], scene.gt_labels[row]
    overlap = overlap_matrix(scene.boxes[row], objects)
    if rule.overlap == "ciou":
        pairs = [[max(0, naive_complete_iou(box, other)) for other in objects] for box in scene.boxes[row]]
        overlap = np.array(pairs, np.float32).reshape(overlap.shape)
    score = 1 / (1 + np.exp(-scene.logits[row].astype(np.float64)[:, labels]))
    worth = (score**rule.alpha * overlap.astype(np.float64) ** rule.beta).astype(np.float32)
    held = np.zeros(overlap.shape, bool)
    for g, (x1, y1, x2, y2) in enumerate(objects):
        x, y = (x1 + x2) / 2, (y1 + y2) / 2
        half_x, half_y = max(x2 - x1, rule.least_side) / 2, max(y2 - y1, rule.least_side) / 2
        depth = np.minimum(half_x - abs(scene.P[:, 0] - x), half_y - abs(scene.P[:, 1] - y))
        held[:, g] = depth > rule.margin
    return worth, overlap, held


def naive_task_aligned(scene, rule):
    """Object numbers as in the golden files, and affinities."""
    numbers, targets = np.zeros((scene.B, scene.A), np.int64), np.zeros((scene.B, scene.A))
    for row, objects in enumerate(scene.gt_boxes):
        worth, overlap, held = naive_tables(scene, row, rule)
        selected = {}
        for g in range(len(objects)):
            eligible = [p for p in range(scene.A) if worth[p, g] > 0 and (held[p, g] or rule.inside == "after")]
            for p in sorted(eligible, key=lambda p, g=g: -worth[p, g])[: rule.topk]:
                if held[p, g]:
                    selected.setdefault(p, []).append(g)
        for p, selecting in selected.items():
            rivals = np.flatnonzero(held[p]) if len(selecting) > 1 and rule.conflict == "all" else selecting
            numbers[row, p] = max(rivals, key=lambda g, p=p: overlap[p, g]) + 1
        for g in range(len(objects)):
            mine = np.flatnonzero(numbers[row] == g + 1)
            if len(mine):
                best = worth[mine, g].max() + rule.eps
                targets[row, mine] = worth[mine, g] / best * overlap[mine, g].max()
    return torch.from_numpy(numbers), torch.from_numpy(targets).float()


def assert_naive(scene, rule):
    plan = assign(scene, rule)
    numbers, targets = naive_task_aligned(scene, rule)
    assert torch.equal(object_numbers(plan), numbers)
    torch.testing.assert_close(plan.affinity[..., 0], targets, rtol=1e-4, atol=1e-6)
    return numbers


# ------------------------------------------------------------------------------------------------------ the references


@pytest.mark.parametrize("case", ["tiny", "edge"])
def test_agrees_exactly_with_mmdetection(case):
    scene, expected = Scene(case), golden(f"tal__{case}__mmdet")
    plan = assign(scene, TaskAligned())
    assert torch.equal(object_numbers(plan), expected["gt_inds"])
    target, _ = scene.truth().at(plan.index)
    overlap = iou(torch.from_numpy(scene.boxes), target)
    for row in range(scene.B):
        for number in plan.index[row][plan.positive[row]].unique():
            mine = plan.positive[row] & (plan.index[row] == number)
            metric = expected["assign_metrics"][row, mine]
            scaled = metric / (metric.max() + 1e-7) * overlap[row, mine].max()
            torch.testing.assert_close(plan.affinity[row, mine, 0], scaled, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("case", ["tiny", "edge"])
@pytest.mark.parametrize("overlap", ["iou", "ciou"])
def test_agrees_with_what_yolov8_answers(case, overlap):
    expected = golden(f"tal__{case}__ultralytics_{overlap}")
    plan = assign(Scene(case), replace(YOLO, topk=13, alpha=1.0, overlap=overlap))
    assert torch.equal(object_numbers(plan), expected["gt_inds"])
    torch.testing.assert_close(plan.affinity[..., 0], expected["target_scores_sum"], rtol=0, atol=1e-6)


def test_agrees_with_the_published_example():
    centers, sides = [], []
    for stride in (8, 16, 32, 64, 128):
        steps = torch.arange(0, 128, stride).float()
        y, x = torch.meshgrid(steps, steps, indexing="ij")
        centers.append(torch.stack([x, y], -1).reshape(-1, 2))
        sides.append(torch.full((x.numel(), 1), 4.0 * stride))
    middle, half = torch.cat(centers), torch.cat(sides)
    boxes = torch.cat([middle - half, middle + half], -1)[None]
    counts = tuple(len(each) for each in centers)
    level = torch.arange(5).repeat_interleave(torch.tensor(counts))
    priors = Priors(boxes, half[:, 0] / 4, level, torch.ones(1, 341, dtype=torch.bool), counts)
    i = torch.arange(341.0, dtype=torch.float64)[:, None]
    logits = 2 * (0.7 * i + 1.3 * torch.arange(3)).sin() - 2
    deltas = 0.3 * (0.5 * i + torch.arange(4)).cos()
    objects = torch.tensor([[10.0, 12, 60, 70], [40, 40, 120, 110], [100, 5, 118, 20]])
    predictions = Predictions(logits.float()[None], decode_deltas(boxes, deltas.float()[None]))
    plan = TaskAligned()(predictions, priors, GroundTruth.pad([objects], [torch.arange(3)]))
    found = [(plan.positive[0] & (plan.index[0] == g)).nonzero().flatten().tolist() for g in range(3)]
    assert found[0] == [67, 68, 82, 83, 84, 85, 86, 99, 100, 101, 102, 117, 118]
    assert found[1] == [*range(135, 139), *range(152, 156), *range(169, 173), 187]
    assert found[2] == [45]
    assert plan.affinity.sum().item() == pytest.approx(6.053057, rel=1e-4)


# ------------------------------------------------------------------------------------------------------- naive loops


@pytest.mark.parametrize("rule", RULES, ids=NAMES)
@pytest.mark.parametrize("seed", range(1, 4))
def test_agrees_with_naive_loops(seed, rule):
    assert (assert_naive(Scene("tiny", seed), rule) > 0).any()


@pytest.mark.parametrize("rule", RULES, ids=NAMES)
def test_agrees_with_naive_loops_on_edge_cases(rule):
    assert (assert_naive(Scene("edge", 1), rule) > 0).any()


@pytest.mark.parametrize("shift", [8.0, -8.0])
def test_scores_near_0_and_1_are_no_exception(shift):
    scene = Scene("tiny", 2)
    scene.logits = scene.logits - np.float32(shift)
    assert (assert_naive(scene, TaskAligned()) > 0).any()


def test_boxes_may_lie_anywhere():
    scene = Scene("tiny", 3)
    order = np.random.default_rng(0).permutation(scene.A)
    scene.boxes = np.ascontiguousarray(scene.boxes[:, order])
    assert (assert_naive(scene, TaskAligned()) > 0).any()
    assert (assert_naive(scene, replace(TaskAligned(), beta=0.7)) > 0).any()


# -------------------------------------------------------------------------------------------------- how it is computed


@pytest.mark.parametrize("rule", RULES, ids=NAMES)
@pytest.mark.parametrize("grids", [True, False])
def test_padded_lists_give_the_same_plan(rule, grids, monkeypatch):
    predictions, priors, truth = example_scene(objects=12)
    priors = priors if grids else replace(priors, grids=None)
    free = rule(predictions, priors, truth)
    monkeypatch.setattr("ladle.device._as_gpu", True)
    blind = rule(predictions, priors, truth)
    assert torch.equal(free.dense(12), blind.dense(12))
    assert torch.equal(free.background, blind.background)
    assert free.positive.any()


@pytest.mark.slow
@pytest.mark.parametrize("rule", RULES, ids=NAMES)
@pytest.mark.parametrize("chunk", [64, 4096])
def test_small_slices_change_nothing(rule, chunk, monkeypatch):
    scene = Scene("edge", 1)
    whole = assign(scene, rule)
    for place in ("device._CACHE", "pairs.LONGEST"):
        monkeypatch.setattr(f"ladle.{place}", chunk)
    sliced = assign(scene, rule)
    assert torch.equal(whole.affinity, sliced.affinity)
    assert torch.equal(whole.objects, sliced.objects)
    assert whole.positive.any()


# ---------------------------------------------------------------------------------------------------- hand-sized scenes


def row_of_points(boxes, scores, objects, crowd=None, valid=None):
    """Points at x = 5, 15, 25 ... on a line, and predictions at them, one class; the objects' boxes are given."""
    count = len(boxes)
    middle = torch.stack([10.0 * torch.arange(count) + 5, torch.full((count,), 5.0)], -1)
    real = torch.tensor([valid or [True] * count])
    level = torch.zeros(count, dtype=torch.long)
    priors = Priors(torch.cat([middle - 5, middle + 5], -1)[None], torch.full((count,), 10.0), level, real, (count,))
    predictions = Predictions(torch.tensor(scores).logit().view(1, count, 1), torch.tensor([boxes], dtype=torch.float))
    boxes, crowd = torch.tensor(objects, dtype=torch.float), crowd or [False] * len(objects)
    truth = GroundTruth.pad([boxes], [torch.zeros(len(boxes), dtype=torch.long)], [torch.tensor(crowd)])
    return predictions, priors, truth


def numbers(plan):
    return object_numbers(plan)[0].tolist()


EXACT = [0, 0, 20, 10]


def test_a_prior_outside_uses_up_the_topk_after_but_not_before():
    scene = row_of_points([EXACT, EXACT, EXACT], [0.5, 0.6, 0.9], [EXACT])
    assert numbers(TaskAligned(topk=2)(*scene)) == [0, 1, 0]
    assert numbers(TaskAligned(topk=2, inside="before")(*scene)) == [1, 1, 0]


def test_the_best_positive_has_the_best_overlap_for_its_target():
    scene = row_of_points([[0, 0, 18, 10], EXACT, EXACT], [0.9, 0.1, 0.5], [EXACT])
    plan = TaskAligned()(*scene)
    first, second = 0.9 * 0.9**6, 0.1
    expected = torch.tensor([1.0, second / (first + 1e-7), 0.0])
    torch.testing.assert_close(plan.affinity[0, :, 0], expected, rtol=1e-5, atol=0)


def test_a_contested_prior_goes_to_the_most_overlapped_object_of_those_claiming_or_of_all():
    # Two objects claim the middle prior; the third overlaps its box most, but claims the last one, aligned better.
    boxes = [[0, 0, 1, 1], [0, 0, 24, 10], [0, 0, 26, 10]]
    objects = [[0, 0, 20, 10], [0, 0, 22, 10], [0, 0, 26, 10]]
    scene = row_of_points(boxes, [0.5, 0.9, 0.8], objects)
    assert numbers(TaskAligned(topk=1, inside="before")(*scene)) == [0, 2, 3]
    assert numbers(TaskAligned(topk=1, inside="before", conflict="all")(*scene)) == [0, 3, 3]


def test_of_equals_the_earlier_prior_and_the_first_object_win():
    scene = row_of_points([EXACT, EXACT, EXACT], [0.5, 0.5, 0.5], [EXACT, EXACT])
    for rule in (TaskAligned(topk=1), TaskAligned(topk=1, inside="before", conflict="all")):
        assert numbers(rule(*scene)) == [1, 0, 0]


def test_an_object_that_no_box_touches_gets_no_prior():
    scene = row_of_points([[50, 50, 60, 60]] * 2, [0.5, 0.5], [EXACT])
    for rule in RULES[:2]:
        plan = rule(*scene)
        assert not plan.positive.any()
        assert plan.background.all()


def test_an_object_between_the_points_gets_no_prior_unless_enlarged():
    small = [8, 3, 12, 7]
    scene = row_of_points([small] * 3, [0.5, 0.6, 0.7], [small])
    assert numbers(TaskAligned()(*scene)) == [0, 0, 0]
    assert numbers(TaskAligned(least_side=16.0)(*scene)) == [1, 1, 0]


def test_an_affinity_too_small_for_float32_is_still_positive():
    predictions, priors, truth = row_of_points([EXACT, [0, 0, 2, 10]], [0.9, 0.5], [EXACT])
    logits = predictions.logits.clone()
    logits[0, 1] = -87.0
    plan = TaskAligned()(replace(predictions, logits=logits), priors, truth)
    assert numbers(plan) == [1, 1]
    assert plan.affinity[0, 1, 0] == TINY


@pytest.mark.parametrize("rule", RULES[:2], ids=NAMES[:2])
@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf])
def test_a_bad_box_or_score_affects_only_its_own_prior(rule, poison):
    scene = Scene("tiny", 1)
    predictions, priors, truth = scene.raw_predictions(), scene.point_priors(), scene.truth()
    first, second = rule(predictions, priors, truth).positive[0].nonzero().flatten()[:2].tolist()
    bad = predictions.map(torch.clone)
    bad.boxes[0, first], bad.logits[0, second] = poison, poison if poison != math.inf else math.nan
    plan = rule(bad, priors, truth)
    without = priors.valid.expand(2, -1).clone()
    without[0, [first, second]] = False
    expected = rule(predictions, replace(priors, valid=without), truth)
    assert torch.equal(plan.dense(7), expected.dense(7))
    assert plan.positive[0].any()


@pytest.mark.parametrize("rule", RULES, ids=NAMES)
def test_invalid_priors_are_neither_positive_nor_counted_in_the_topk(rule):
    boxes, scores = [EXACT, EXACT, EXACT], [0.5, 0.6, 0.9]
    plan = rule(*row_of_points(boxes, scores, [EXACT], valid=[True, True, False]))
    assert numbers(plan) == [1, 1, -1]
    assert plan.background[0].tolist() == [0, 0, 0]


def test_a_crowd_is_neither_learnt_nor_background():
    plan = TaskAligned()(*row_of_points([EXACT] * 3, [0.5, 0.5, 0.5], [[0, 0, 10, 10], EXACT], crowd=[False, True]))
    assert numbers(plan) == [1, -1, 0]


def test_labels_of_padding_may_be_anything():
    predictions, priors, truth = example_scene()
    plain = TaskAligned()(predictions, priors, truth)
    valid, labels = truth.valid.clone(), truth.labels.clone()
    valid[:, -1] = False
    expected = TaskAligned()(predictions, priors, replace(truth, valid=valid))
    labels[:, -1] = 255
    plan = TaskAligned()(predictions, priors, replace(truth, valid=valid, labels=labels))
    assert torch.equal(plan.affinity, expected.affinity)
    assert plain.positive.sum() > plan.positive.sum()


# -------------------------------------------------------------------------------------------------------- complete IoU


def test_complete_iou_is_that_of_the_paper():
    generator = torch.Generator().manual_seed(0)
    low = torch.rand(2, 200, 2, generator=generator) * 20
    boxes = torch.cat([low, low + 1 + torch.rand(2, 200, 2, generator=generator) * 30], -1)
    expected = torch.tensor([naive_complete_iou(a, b) for a, b in zip(*boxes.tolist())])
    torch.testing.assert_close(complete_iou(*boxes), expected, rtol=0, atol=1e-5)


def test_complete_iou_of_a_box_with_itself_is_1_and_less_when_moved():
    box = torch.tensor([10.0, 20, 40, 60])
    assert complete_iou(box, box).item() == pytest.approx(1)
    moved = box + torch.tensor([6.0, 0, 6, 0])
    assert complete_iou(box, moved).item() == pytest.approx(24 / 36 - 36 / (36**2 + 40**2), abs=1e-6)
