"""The pairs that are looked up on a grid are those that a search would find."""

from dataclasses import replace

import pytest
import torch

from ladle import pairs as module
from ladle.boxes import centers, contains
from ladle.detectors.priors import Anchors
from ladle.pairs import Pairs, compact, leading, pairs_inside, resolve_conflicts

SIZES = ((20, 24), (10, 12), (5, 6))


def scene(offset=0.0, ratios=(1.0,), seed=0, objects=7):
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.tensor([[160, 192], [130, 100]])
    priors = Anchors((4.0,), ratios, offset).grid(SIZES, (8, 16, 32), sizes, torch.device("cpu"))
    middle = torch.rand(2, objects, 2, generator=generator) * 220 - 20
    half = torch.rand(2, objects, 2, generator=generator) * 60
    half[:, -1] = 300.0
    boxes = torch.cat([middle - half, middle + half], -1)
    boxes[:, 0] = torch.tensor([16.0, 24.0, 64.0, 64.0])
    included = torch.ones(2, objects, dtype=torch.bool)
    included[1, 2] = False
    return priors, boxes, included


def searched(priors, boxes, included, margin=0.0):
    # The priors of a location share one center but for rounding: its first one's.
    each = priors.grids[0].each
    middle = centers(priors.boxes)[:, ::each].repeat_interleave(each, dim=1)
    inside = contains(boxes[:, :, None], middle[:, None], margin) & priors.valid[:, None]
    return [tuple(row) for row in (inside & included[..., None]).nonzero().tolist()]


def found(lists):
    every = []
    for pairs in lists:
        here = torch.stack([pairs.image, pairs.object, pairs.prior], 1)[pairs.real]
        every += [tuple(row) for row in here.tolist()]
    return every


@pytest.mark.parametrize("offset", [0.0, 0.5])
@pytest.mark.parametrize("ratios", [(1.0,), (0.5, 1.0, 2.0)])
@pytest.mark.parametrize("margin", [0.0, 0.01])
def test_a_grid_gives_the_pairs_of_a_full_search_in_order(offset, ratios, margin):
    priors, boxes, included = scene(offset, ratios)
    expected = searched(priors, boxes, included, margin)
    assert len(expected) > 500
    assert found(pairs_inside(priors, boxes, included, margin)) == expected


@pytest.mark.parametrize("most", [None, 24])
def test_padded_lists_hold_the_same_pairs(monkeypatch, most):
    priors, boxes, included = scene(0.5)
    expected = searched(priors, boxes, included)
    monkeypatch.setattr("ladle.device._as_gpu", True)
    assert sorted(found(pairs_inside(priors, boxes, included, most=most))) == sorted(expected)


def test_priors_that_are_on_no_grid_are_searched():
    priors, boxes, included = scene()
    assert found(pairs_inside(replace(priors, grids=None), boxes, included)) == searched(priors, boxes, included)


def test_regions_may_differ_from_level_to_level():
    priors, boxes, included = scene(0.5)
    radius = torch.tensor([12.0, 24.0, 48.0]).view(1, 1, 3, 1)
    middle = centers(boxes).unsqueeze(2)
    regions = torch.cat([middle - radius, middle + radius], -1)
    expected = [
        pair
        for level in range(3)
        for pair in searched(priors, regions[:, :, level], included)
        if priors.level[pair[2]] == level
    ]
    assert found(pairs_inside(priors, regions, included, most=4)) == sorted(expected)


def test_long_lists_come_in_parts(monkeypatch):
    priors, boxes, included = scene()
    monkeypatch.setattr(module, "LONGEST", 400)
    lists = list(pairs_inside(priors, boxes, included))
    assert len(lists) > 2
    assert sorted(found(lists)) == searched(priors, boxes, included)
    ranges = [set(pairs.object.tolist()) for pairs in lists if len(pairs.object)]
    assert all(not (a & b) for i, a in enumerate(ranges) for b in ranges[:i]), "an object is in two parts"


def test_any_prior_may_be_invalid():
    priors, boxes, included = scene()
    priors = replace(priors, valid=torch.rand(priors.valid.shape, generator=torch.Generator().manual_seed(0)) > 0.3)
    assert found(pairs_inside(priors, boxes, included)) == searched(priors, boxes, included)


def test_no_objects_give_no_pairs():
    priors, boxes, included = scene()
    assert found(pairs_inside(priors, boxes[:, :0], included[:, :0])) == []


@pytest.mark.parametrize("k", [1, 3, 50])
@pytest.mark.parametrize("on_cpu", [True, False])
def test_leading_takes_the_pairs_of_lowest_cost_of_each_object(monkeypatch, k, on_cpu):
    priors, boxes, included = scene()
    if not on_cpu:
        monkeypatch.setattr("ladle.device._as_gpu", True)
    for pairs in pairs_inside(priors, boxes, included):
        cost = torch.randn(len(pairs.prior), generator=torch.Generator().manual_seed(k))
        cost[::11] = torch.inf
        best, positions = leading(pairs, cost, k)
        expected = set()
        for image in range(2):
            for number in range(boxes.shape[1]):
                mine = pairs.real & (pairs.image == image) & (pairs.object == number) & cost.isfinite()
                order = mine.nonzero().squeeze(1)[cost[mine].argsort()][:k]
                expected |= {(image, number, prior) for prior in pairs.prior[order].tolist()}
        assert set(found([best])) == expected
        assert torch.equal(pairs.prior[positions], best.prior)


def test_equal_costs_prefer_the_earlier_prior():
    pairs = Pairs(*(torch.tensor(x) for x in ([0, 0, 0], [0, 0, 0], [4, 7, 9])), real=torch.ones(3, dtype=torch.bool))
    assert leading(pairs, torch.zeros(3), 2)[0].prior.tolist() == [4, 7]
    assert leading(pairs, torch.tensor([0.0, -0.0, -1.0]), 2)[0].prior.tolist() == [9, 4]


def test_a_prior_in_two_pairs_gets_the_object_of_higher_score_and_on_a_tie_the_first():
    image, number, prior = [0, 0, 0, 0, 1], [0, 1, 1, 2, 0], [3, 3, 5, 5, 3]
    real = torch.tensor([True, True, True, True, False])
    pairs = Pairs(torch.tensor(image), torch.tensor(number), torch.tensor(prior), real)
    taken, index = resolve_conflicts(pairs, torch.tensor([0.2, 0.7, 0.5, 0.5, 9.0]), 2, 8)
    assert taken.nonzero().tolist() == [[0, 3], [0, 5]]
    assert index[0, 3] == 1
    assert index[0, 5] == 1


def test_compact_moves_marked_columns_to_the_front():
    mask = torch.tensor([[0, 1, 0, 1, 1], [0, 0, 0, 1, 0]]).bool()
    index, exists = compact(mask)
    assert exists.tolist() == [[True, True, True], [True, False, False]]
    assert index[0].tolist() == [1, 3, 4]
    assert index[1, 0] == 3
    assert compact(mask[:, :0])[0].shape == (2, 0)
