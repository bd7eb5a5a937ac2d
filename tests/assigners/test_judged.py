"""A judge's boxes stand in for the priors in the rules of overlap."""

from dataclasses import replace

import pytest
import torch

from ladle.assigners import ATSS, FCOS, MaxIoU, PseudoIoU
from ladle.boxes import pairwise_iou
from tests.assigners.naive import naive_max_iou
from tests.golden.scenes import Scene, object_numbers

RULES = (MaxIoU(), MaxIoU(0.1, 0.1), MaxIoU(rescue=None), MaxIoU(rescued="prior"), ATSS())


def scene_of(case, seed=0):
    scene = Scene(case, seed)
    return scene.predictions(), scene.priors(), scene.truth()


def trusted(predictions, truth, power):
    """Overlaps of predicted boxes, multiplied by the power of the score for the object's class."""
    scores = predictions.logits.sigmoid()
    overlap = pairwise_iou(predictions.boxes, truth.boxes)
    for row, labels in enumerate(truth.labels):
        for number, label in enumerate(labels):
            overlap[row, :, number] *= scores[row, :, label] ** power
    return overlap


def counts(plan, objects):
    return [[int((plan.positive[b] & (plan.index[b] == g)).sum()) for g in range(objects)] for b in range(2)]


@pytest.mark.parametrize("keep_count", [False, True])
@pytest.mark.parametrize("case", ["tiny", "edge"])
@pytest.mark.parametrize("rule", RULES, ids=repr)
def test_a_judge_who_predicts_the_priors_changes_nothing(rule, case, keep_count):
    predictions, priors, truth = scene_of(case)
    predictions = replace(predictions, boxes=priors.boxes.expand_as(predictions.boxes))
    plain = rule(predictions, priors, truth)
    judged = replace(rule, boxes="predictions", keep_count=keep_count)(predictions, priors, truth)
    assert torch.equal(plain.dense(30), judged.dense(30))
    assert torch.equal(plain.background, judged.background)


@pytest.mark.parametrize("rule", RULES, ids=repr)
def test_predicted_boxes_fill_the_overlaps(rule):
    predictions, priors, truth = scene_of("tiny", 3)
    as_priors = rule(predictions, replace(priors, boxes=predictions.boxes, grids=None), truth)
    judged = replace(rule, boxes="predictions")(predictions, priors, truth)
    if isinstance(rule, MaxIoU):
        served = (as_priors.dense(7).sum(1) > 0)[:, None].expand(-1, priors.boxes.shape[1], -1)
        assert torch.equal(as_priors.dense(7) * served, judged.dense(7) * served)
    assert judged.positive.any()
    assert not torch.equal(judged.dense(7), rule(predictions, priors, truth).dense(7))


@pytest.mark.parametrize("power", [0.0, 0.5])
def test_atss_keeps_its_candidates_and_centers(power):
    predictions, priors, truth = scene_of("tiny", 3)
    overlap = trusted(predictions, truth, power)
    judged = ATSS(boxes="predictions", class_power=power)(predictions, priors, truth)
    tried = 0
    for row in range(2):
        for number in range(int(truth.valid[row].sum())):
            x1, y1, x2, y2 = truth.boxes[row, number]
            middle = torch.stack([(x1 + x2) / 2, (y1 + y2) / 2])
            distance = (priors.centers[0] - middle).norm(dim=1)
            starts = torch.tensor([0, *priors.counts]).cumsum(0)
            near = torch.cat([a + distance[a:b].argsort(stable=True)[:9] for a, b in zip(starts, starts[1:])])
            values = overlap[row, near, number]
            x, y = priors.centers[0, near].T
            inside = torch.stack([x - x1, y - y1, x2 - x, y2 - y]).amin(0) > 0.01
            wanted = near[inside & (values >= values.mean() + values.std())]
            mine = (judged.positive[row] & (judged.index[row] == number)).nonzero()[:, 0]
            if not len(wanted):  # the paper's rule, tried below
                continue
            tried += 1
            assert set(mine.tolist()) <= set(wanted.tolist())
            lost = set(wanted.tolist()) - set(mine.tolist())
            assert all(judged.positive[row, p] and judged.index[row, p] != number for p in lost)
    assert tried >= 5


@pytest.mark.parametrize("rule", [MaxIoU(), ATSS()], ids=repr)
def test_counts_can_be_kept(rule):
    predictions, priors, truth = scene_of("tiny", 1)
    plain = counts(rule(predictions, priors, truth), 7)
    free = counts(replace(rule, boxes="predictions")(predictions, priors, truth), 7)
    kept = counts(replace(rule, boxes="predictions", keep_count=True)(predictions, priors, truth), 7)
    off = [abs(a - b) for x, y in zip(plain, kept) for a, b in zip(x, y)]
    far = [abs(a - b) for x, y in zip(plain, free) for a, b in zip(x, y)]
    assert sum(off) < sum(far) / 2
    assert all(bool(a) <= bool(b) for x, y in zip(plain, kept) for a, b in zip(x, y)), "an object lost all its priors"


def test_kept_counts_are_filled_with_the_best_overlaps():
    predictions, priors, truth = scene_of("tiny", 1)
    plan = MaxIoU(0.2, 0.1, rescue=None, boxes="predictions", keep_count=True)(predictions, priors, truth)
    best, index = pairwise_iou(predictions.boxes, truth.boxes).max(-1)
    served = [(row, g) for row in range(2) for g in range(7) if (plan.positive[row] & (plan.index[row] == g)).any()]
    assert len(served) > 5
    for row, number in served:
        mine = plan.positive[row] & (plan.index[row] == number)
        rest = (index[row] == number) & ~plan.positive[row]
        assert best[row, mine].min() >= best[row, rest].max()
        spared = rest & (plan.background[row] == 0)
        if spared.any():
            assert best[row, spared].min() >= best[row, rest & ~spared].max()


@pytest.mark.parametrize("rule", [MaxIoU(boxes="predictions"), ATSS(boxes="predictions")], ids=repr)
def test_an_object_the_judge_misses_keeps_the_priors_of_the_plain_rule(rule):
    predictions, priors, truth = scene_of("tiny")
    nowhere = replace(predictions, boxes=torch.zeros_like(predictions.boxes))
    plain = replace(rule, boxes="priors")(predictions, priors, truth)
    judged = rule(nowhere, priors, truth)
    assert torch.equal(judged.dense(7), plain.dense(7))


@pytest.mark.parametrize("power", [0.3, 1.0])
def test_overlaps_are_multiplied_by_the_trust_in_the_class(power):
    scene = Scene("tiny", 3)
    predictions, truth = scene.predictions(), scene.truth()
    rule = MaxIoU(0.3, 0.1, rescue=None, boxes="predictions", class_power=power)
    found = object_numbers(rule(predictions, scene.priors(), truth))
    overlaps = [matrix[:, real].numpy() for matrix, real in zip(trusted(predictions, truth, power), truth.valid)]
    expected = naive_max_iou(scene, 0.3, 0.1, None, overlaps)
    kept = 0
    for row in range(2):
        # Objects that the judge leaves without a prior keep their plain, tried below.
        served = (found[row] <= 0) | torch.isin(found[row], expected[row].unique())
        assert torch.equal(found[row, served], expected[row, served])
        kept += int((expected[row] > 0).sum())
    assert kept > 5
    assert not torch.equal(found, object_numbers(replace(rule, class_power=0.0)(predictions, scene.priors(), truth)))


@pytest.mark.parametrize("keep_count", [False, True])
@pytest.mark.parametrize("rule", [MaxIoU(), MaxIoU(0.1, 0.1, rescue=None), ATSS(), FCOS(), PseudoIoU()], ids=repr)
def test_a_judge_sure_of_every_class_decides_by_overlap_alone(rule, keep_count):
    predictions, priors, truth = scene_of("tiny", 3)
    sure = replace(predictions, logits=torch.full_like(predictions.logits, 50.0))
    changes = {"boxes": "predictions"} | ({} if isinstance(rule, FCOS) else {"keep_count": keep_count})
    expected = replace(rule, **changes)(sure, priors, truth)
    assert expected.positive.any()
    trusting = replace(rule, **changes, class_power=2.0)(sure, priors, truth)
    assert torch.equal(expected.dense(7), trusting.dense(7))
    assert torch.equal(expected.background, trusting.background)


@pytest.mark.parametrize("keep_count", [False, True])
@pytest.mark.parametrize("power", [0.0, 1.0])
def test_priors_rejected_by_the_judge_can_be_ignored(power, keep_count):
    predictions, priors, truth = scene_of("tiny", 3)
    rule = MaxIoU(0.3, 0.3, rescue=None, boxes="predictions", class_power=power, keep_count=keep_count)
    plain, hard = replace(rule, boxes="priors")(predictions, priors, truth), rule(predictions, priors, truth)
    kind = replace(rule, ignore_rejected=True)(predictions, priors, truth)
    turned_down = plain.positive & ~hard.positive
    assert int(turned_down.sum()) > 5
    assert torch.equal(kind.dense(7), hard.dense(7))
    assert hard.background[turned_down].all()
    assert not kind.background[turned_down].any()
    assert torch.equal(kind.background[~turned_down], hard.background[~turned_down])
