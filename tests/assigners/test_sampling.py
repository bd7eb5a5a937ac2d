"""Samples of a plan: as many as torchvision's, drawn evenly, the same for the same lots."""

import pytest
import torch
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler

from ladle.assigners import RandomSampler, keep_sampled
from ladle.testing import grid_priors
from ladle.types import Assignment


def plan(objects, background, priors=300, batch=2):
    """A plan with so many priors of each kind, in random order; the rest is ignored."""
    generator = torch.Generator().manual_seed(1)
    kind = torch.zeros(batch, priors)
    for row in range(batch):
        order = torch.randperm(priors, generator=generator)
        kind[row, order[:objects]] = 1
        kind[row, order[objects : objects + background]] = 2
    index = torch.arange(priors).expand(batch, -1) % 4
    return Assignment.hard(index, kind == 1, kind == 2)


def lots(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    ("objects", "background"), [(100, 200), (5, 200), (100, 10), (0, 200), (200, 0), (3, 4), (0, 0)]
)
@pytest.mark.parametrize(("count", "share"), [(64, 0.5), (64, 0.25), (256, 0.5)])
def test_as_many_are_drawn_as_torchvision_draws(objects, background, count, share):
    given = plan(objects, background)
    drawn = RandomSampler(count, share)(given, lots())
    labels = torch.where(given.positive, 1, torch.where(given.background > 0, 0, -1))
    positive, negative = BalancedPositiveNegativeSampler(count, share)(list(labels))
    assert drawn.positive.sum(1).tolist() == [int(row.sum()) for row in positive]
    assert drawn.background.sum(1).tolist() == [int(row.sum()) for row in negative]


def test_what_is_drawn_keeps_its_role_and_the_rest_is_ignored():
    given = plan(50, 100)
    drawn = RandomSampler(40, 0.5)(given, lots())
    assert (drawn.positive <= given.positive).all()
    assert (drawn.background <= given.background).all()
    assert torch.equal(drawn.index[drawn.positive], given.index[drawn.positive])
    assert not drawn.objects[~drawn.positive].any()


def test_the_same_lots_draw_the_same_and_others_draw_others():
    given = plan(50, 100)
    one, again, other = (RandomSampler(40)(given, lots(seed)) for seed in (0, 0, 1))
    assert torch.equal(one.affinity, again.affinity)
    assert torch.equal(one.background, again.background)
    assert not torch.equal(one.affinity, other.affinity)


def test_every_prior_has_the_same_chance():
    given = plan(10, 40, priors=60, batch=1)
    generator, times = lots(), 2000
    drawn = [RandomSampler(10, 0.5)(given, generator) for _ in range(times)]
    share = sum(one.positive[0].float() for one in drawn)[given.positive[0]] / times
    assert torch.allclose(share, torch.full((10,), 0.5), atol=0.06)
    share = sum(one.background[0] for one in drawn)[given.background[0] > 0] / times
    assert torch.allclose(share, torch.full((40,), 5 / 40), atol=0.04)


def test_strengths_of_a_soft_plan_are_kept():
    given = plan(50, 100)
    soft = Assignment(given.objects, given.affinity * 0.3, given.background)
    drawn = RandomSampler(40)(soft, lots())
    assert drawn.affinity[drawn.positive].unique().tolist() == pytest.approx([0.3])


def test_a_thinned_plan_speaks_of_the_drawn_priors_alone():
    priors = grid_priors(128, 160, (8,))
    given = plan(20, 100, priors=priors.boxes.shape[1])
    drawn = RandomSampler(32, 0.25)(given, lots())
    few, thin = keep_sampled(priors, drawn, 32)
    assert few.boxes.shape == (2, 32, 4)
    assert few.counts == (32,)
    assert few.valid.all()
    for row in range(2):
        spoken = drawn.positive[row] | (drawn.background[row] > 0)
        assert torch.equal(few.boxes[row], priors.boxes[0, spoken])
        assert torch.equal(thin.index[row], drawn.index[row, spoken])
        assert torch.equal(thin.positive[row], drawn.positive[row, spoken])


def test_where_there_are_fewer_the_rest_is_not_valid():
    priors = grid_priors(64, 64, (8,))
    few, thin = keep_sampled(priors, RandomSampler(32)(plan(3, 4, priors=64), lots()), 32)
    assert few.valid.sum(1).tolist() == [7, 7]
    assert not thin.positive[~few.valid].any()
    assert not thin.background[~few.valid].any()
    few, _ = keep_sampled(priors, plan(3, 4, priors=64), 500)
    assert few.boxes.shape == (2, 64, 4)
