"""Counts and sums are those of plain loops over images, priors and objects."""

import math
from dataclasses import replace
from itertools import product

import pytest
import torch

from ladle.assigners import PAA, AutoAssign
from ladle.statistics import ObjectCounts, PriorCounts, count_objects, count_priors, pairs_of, summarize
from ladle.types import Assignment, GroundTruth
from tests.statistics.scenes import RULES, scene

SEEDS = (0, 1)
CLASSES = ("a", "b", "c", "d", "e")
STRIDES = (8, 16, 32)


def holds(box, center):
    (x1, y1, x2, y2), (x, y) = box, center
    return x1 < x < x2 and y1 < y < y2


def rounded(side):
    return round(64 * side) / 64


def naive_objects(plan, priors, truth, enlarged):
    """One dictionary an object, by loops."""
    dense = plan.dense(truth.labels.shape[1]).tolist()
    centers, level = priors.centers[0].tolist(), priors.level.tolist()
    sides = [[], [], []]
    for number, (x1, y1, x2, y2) in zip(level, priors.boxes[0].tolist()):
        sides[number].append(math.log(math.sqrt((x2 - x1) * (y2 - y1))))
    typical = [sum(one) / len(one) for one in sides]
    found = []
    for image, number in product(range(len(truth.labels)), range(truth.labels.shape[1])):
        if not truth.valid[image, number] or truth.crowd[image, number]:
            continue
        box = truth.boxes[image, number].tolist()
        width, height = box[2] - box[0], box[3] - box[1]
        positives, inside, affinity = [0, 0, 0], 0, 0.0
        for prior, center in enumerate(centers):
            positives[level[prior]] += dense[image][prior][number] > 0
            affinity += dense[image][prior][number]
            inside += bool(priors.valid[image, prior]) and holds(box, center)
        distances = [abs(math.log(math.sqrt(width * height)) - one) for one in typical]
        found.append(
            {
                "image": image,
                "object": number,
                "label": int(truth.labels[image, number]),
                "level": distances.index(min(distances)),
                "inside": inside,
                "positives": positives,
                "area": rounded(width * float(enlarged[image, 1])) * rounded(height * float(enlarged[image, 0])),
                "affinity": affinity,
            }
        )
    return found


def naive_priors(plan, priors, truth):
    """The six counts of each level, by loops."""
    dense = plan.dense(truth.labels.shape[1]).tolist()
    names = ("valid", "positive", "ignored", "inside_several", "contested", "several")
    found = {name: [0, 0, 0] for name in names}
    for image, (prior, center) in product(range(len(dense)), enumerate(priors.centers[0].tolist())):
        if not priors.valid[image, prior]:
            continue
        boxes = [box for box, real in zip(truth.boxes[image].tolist(), truth.learnable[image].tolist()) if real]
        around = sum(holds(box, center) for box in boxes)
        learns = sum(strength > 0 for strength in dense[image][prior])
        marks = {
            "valid": True,
            "positive": learns > 0,
            "ignored": learns == 0 and float(plan.background[image, prior]) == 0,
            "inside_several": around > 1,
            "contested": around > 1 and learns > 0,
            "several": learns > 1,
        }
        for name, mark in marks.items():
            found[name][int(priors.level[prior])] += mark
    return found


@pytest.mark.parametrize("rule", RULES, ids=repr)
def test_what_objects_get_is_what_loops_count(rule):
    predictions, priors, truth = scene(0)
    enlarged = torch.tensor([[2.0, 2.0], [1.5, 1.4]])
    plan = rule(predictions, priors, truth).detach()
    counts = count_objects(plan, priors, truth, enlarged)
    expected = naive_objects(plan, priors, truth, enlarged)
    assert len(expected) == len(counts.image) == 11
    for name in ("image", "object", "label", "level", "inside", "positives"):
        assert getattr(counts, name).tolist() == [one[name] for one in expected], name
    for name in ("area", "affinity"):
        torch.testing.assert_close(getattr(counts, name), torch.tensor([one[name] for one in expected]))


@pytest.mark.parametrize("rule", RULES, ids=repr)
def test_what_priors_are_for_is_what_loops_count(rule):
    predictions, priors, truth = scene(1)
    plan = rule(predictions, priors, truth).detach()
    counts = count_priors(plan, priors, truth)
    assert {name: value.tolist() for name, value in vars(counts).items()} == naive_priors(plan, priors, truth)


def test_resizing_moves_no_object_over_the_limit_of_a_size():
    predictions, priors, truth = scene(0)
    plan = PAA()(predictions, priors, truth)
    sides = torch.tensor([32.0, 96.0, 31.9, 96.1])
    originals, sizes = torch.tensor([[477.0, 640.0], [333.0, 521.0]]), torch.tensor([[119.0, 160.0], [102.0, 160.0]])
    smaller = (sizes / originals).flip(-1).repeat(1, 2).unsqueeze(1)
    corners = torch.rand(2, 50, 2, generator=torch.Generator().manual_seed(0)) * 300
    for side in sides:
        boxes = (torch.cat([corners, corners + side], dim=-1) * smaller).unbind()
        many = GroundTruth.pad(list(boxes), [torch.zeros(50, dtype=torch.long)] * 2)
        empty = replace(plan, affinity=plan.affinity * 0, objects=plan.objects * 0)
        areas = count_objects(empty, priors, many, originals / sizes).area
        assert areas.unique().tolist() == [rounded(float(side)) ** 2]


def test_only_soft_plans_have_priors_that_learn_several_objects():
    predictions, priors, truth = scene(0)
    soft, hard = (count_priors(rule(predictions, priors, truth), priors, truth) for rule in (AutoAssign(), PAA()))
    assert int(soft.several.sum()) > 0
    assert int(hard.several.sum()) == 0


def test_a_pair_that_a_plan_names_twice_counts_once():
    _, priors, truth = scene(0)
    objects = torch.zeros(2, len(priors.stride), 2, dtype=torch.long)
    affinity = torch.zeros(objects.shape)
    affinity[0, 5] = torch.tensor([0.25, 0.5])
    pairs = pairs_of(Assignment(objects, affinity, torch.ones(objects.shape[:2])), truth)
    assert (pairs.image.tolist(), pairs.prior.tolist(), pairs.object.tolist()) == ([0], [5], [0])
    assert pairs.affinity.tolist() == [0.75]


def test_images_without_objects_have_no_counts_but_priors():
    predictions, priors, truth = scene(0, objects=0)
    plan = PAA()(predictions, priors, truth)
    assert count_objects(plan, priors, truth).positives.shape == (0, 3)
    counts = count_priors(plan, priors, truth)
    assert int(counts.valid.sum()) == int(priors.valid.sum())
    assert int(counts.positive.sum()) == int(counts.ignored.sum()) == 0


def test_sums_over_batches_are_those_of_the_objects():
    parts, tallies, naive = [], [], []
    for seed in SEEDS:
        predictions, priors, truth = scene(seed)
        plan = PAA(topk=2)(predictions, priors, truth)
        parts.append(count_objects(plan, priors, truth))
        tallies.append(count_priors(plan, priors, truth))
        naive += naive_objects(plan, priors, truth, torch.ones(2, 2))
    numbers = summarize(ObjectCounts.joined(parts), PriorCounts.summed(tallies), CLASSES, STRIDES, images=4, imgsz=256)
    positives = [sum(one["positives"]) for one in naive]
    assert (numbers.images, numbers.objects) == (4, len(naive))
    assert numbers.without == positives.count(0)
    assert numbers.mean_positives == pytest.approx(sum(positives) / len(positives))
    assert numbers.quantiles[0] == min(positives)
    assert numbers.quantiles[-1] == max(positives)
    assert list(numbers.histogram) == [positives.count(n) for n in range(20)] + [sum(n >= 20 for n in positives)]
    areas = {"small": (0, 1024), "medium": (1024, 9216), "large": (9216, math.inf)}
    for group in numbers.by_size:
        low, high = areas[group.name]
        mine = [n for n, one in zip(positives, naive) if low <= one["area"] < high]
        assert (group.objects, group.without) == (len(mine), mine.count(0))
    assert sum(group.objects for group in numbers.by_class) == len(naive)
    assert numbers.total("positive") == sum(int(tally.positive.sum()) for tally in tallies)
    for level, (row, group) in enumerate(zip(numbers.levels, numbers.by_level)):
        assert row.served == sum(one["positives"][level] > 0 for one in naive)
        assert row.belonging == group.objects == sum(one["level"] == level for one in naive)


def test_long_objects_are_told_by_the_ratio_of_their_sides():
    boxes = torch.tensor([[0.0, 0.0, 40.0, 40.0], [0.0, 0.0, 40.0, 20.0], [0.0, 0.0, 10.0, 30.0]])
    truth = GroundTruth.pad([boxes, boxes[:0]], [torch.zeros(3, dtype=torch.long), torch.zeros(0, dtype=torch.long)])
    predictions, priors, _ = scene(0)
    plan = PAA()(predictions, priors, truth)
    counts = count_objects(plan, priors, truth), count_priors(plan, priors, truth)
    numbers = summarize(*counts, CLASSES, STRIDES, images=2, imgsz=256)
    assert {group.name: group.objects for group in numbers.by_aspect} == {
        "up to 1.5": 1,
        "1.5 to 3": 1,
        "3 and more": 1,
    }
