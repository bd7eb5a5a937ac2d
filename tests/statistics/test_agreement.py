"""Agreement is intersection over union of the pairs, as plain loops count it."""

from itertools import product

import pytest
import torch

from ladle.assigners import ATSS, FCOS, PAA, AutoAssign, DynamicSoftLabel, MaxIoU
from ladle.statistics import Difference, compare
from tests.statistics.scenes import scene

COUPLES = (
    (PAA(), ATSS()),
    (MaxIoU(), FCOS()),
    (AutoAssign(), PAA()),
    (AutoAssign(), AutoAssign()),
    (DynamicSoftLabel(), MaxIoU(rescue=None)),
)


def naive(first, second, truth):
    """The numbers of each image, and the positives of each object, by loops over dense plans."""
    objects = truth.labels.shape[1]
    one, two = first.dense(objects).tolist(), second.dense(objects).tolist()
    rows, counts = [], []
    for image in range(len(one)):
        total = {"shared": 0, "either": 0, "least": 0.0, "greatest": 0.0}
        mine = {}
        for prior, number in product(range(len(one[image])), range(objects)):
            a, b = one[image][prior][number], two[image][prior][number]
            total["shared"] += a > 0 and b > 0
            total["either"] += a > 0 or b > 0
            total["least"] += min(a, b)
            total["greatest"] += max(a, b)
            held = mine.setdefault(number, [0, 0, 0])
            for place, yes in enumerate((a > 0, b > 0, a > 0 and b > 0)):
                held[place] += yes
        rows.append(total)
        counts += [[image, number, *held] for number, held in mine.items() if truth.learnable[image, number]]
    return rows, counts


@pytest.mark.parametrize(("one", "other"), COUPLES, ids=repr)
def test_the_comparison_is_what_loops_count(one, other):
    predictions, priors, truth = scene(0)
    plans = [rule(predictions, priors, truth).detach() for rule in (one, other)]
    if one == other:  # another judge
        plans[1] = other(scene(7)[0], priors, truth).detach()
    found, (rows, counts) = compare(*plans, truth), naive(*plans, truth)
    assert found.shared.tolist() == [row["shared"] for row in rows]
    assert found.either.tolist() == [row["either"] for row in rows]
    for name in ("least", "greatest"):
        assert getattr(found, name).tolist() == pytest.approx([row[name] for row in rows], rel=1e-5)
    table = torch.stack([found.image, found.object, found.first, found.second, found.both], dim=1)
    assert table.tolist() == counts
    total = Difference.of([found.of_image(row, f"image {row}") for row in range(2)])
    assert total.agreement == sum(row["shared"] for row in rows) / sum(row["either"] for row in rows)
    assert (total.first, total.second, total.shared) == tuple(sum(row[n] for row in counts) for n in (2, 3, 4))
    assert total.only_first == sum(row[2] > 0 and row[3] == 0 for row in counts)
    assert total.only_second == sum(row[2] == 0 and row[3] > 0 for row in counts)
    assert total.neither == sum(row[2] == row[3] == 0 for row in counts)
    assert total.objects == len(counts)


def test_of_hard_plans_both_agreements_are_the_same():
    predictions, priors, truth = scene(3)
    found = compare(PAA()(predictions, priors, truth), ATSS()(predictions, priors, truth), truth)
    total = Difference.of([found.of_image(row, row) for row in range(2)])
    assert 0 < total.agreement < 1
    assert total.weighted == pytest.approx(total.agreement)


def test_a_plan_agrees_with_itself_and_nothing_with_nothing():
    predictions, priors, truth = scene(0)
    plan = PAA()(predictions, priors, truth)
    alike = compare(plan, plan, truth)
    assert Difference.of([alike.of_image(row, row) for row in range(2)]).agreement == 1
    predictions, priors, truth = scene(0, objects=0)
    empty = PAA()(predictions, priors, truth)
    total = Difference.of([compare(empty, empty, truth).of_image(0, "empty")])
    assert (total.agreement, total.weighted, total.objects) == (1, 1, 0)


def test_the_images_that_differ_most_come_first():
    predictions, priors, truth = scene(4)
    plans = PAA()(predictions, priors, truth), ATSS()(predictions, priors, truth)
    found, alike = compare(*plans, truth), compare(plans[0], plans[0], truth)
    total = Difference.of([alike.of_image(0, "alike"), found.of_image(0, "one"), found.of_image(1, "other")])
    assert [one.agreement for one in total.by_image] == sorted(one.agreement for one in total.by_image)
    assert total.by_image[-1].name == "alike"
    assert total.as_json()["by_image"][-1]["agreement"] == 1
