"""The selected network, against recorded decisions of the released code, loops, and scikit-learn's mixture."""

import warnings
from dataclasses import replace

import pytest
import torch
from sklearn.mixture import GaussianMixture

from ladle.assigners import PAA, CostSelector, Evidence
from ladle.boxes import decode_deltas
from ladle.testing import example_scene, grid_priors
from ladle.types import GroundTruth, Predictions


def sines():
    """The scene of sines and cosines on which the released code's decisions are known."""
    priors = grid_priors(128, 128, (8, 16, 32, 64, 128))
    boxes = torch.tensor([[10.0, 12, 60, 70], [40, 40, 120, 110], [100, 5, 118, 20]])
    truth = GroundTruth.pad([boxes], [torch.arange(3)])
    i = torch.arange(341, dtype=torch.float64)[:, None]

    def predictions(slope, phase, shift, scale, rate):
        logits = 2 * torch.sin(slope * i + phase * torch.arange(3)) + shift
        deltas = scale * torch.cos(rate * i + torch.arange(4))
        return Predictions(logits.float()[None], decode_deltas(priors.boxes, deltas.float()[None]))

    both = predictions(0.7, 1.3, -2, 0.3, 0.5), predictions(0.9, 1.1, -1.5, 0.2, 0.4)
    return [PAA().weigh(one, priors, truth) for one in both], priors, truth


def test_it_decides_as_the_released_code():
    evidence, priors, truth = sines()
    selection = CostSelector()(*evidence, priors, truth)
    decided = {tuple(cell[1:]): bool(selection.second[tuple(cell)]) for cell in selection.decided.nonzero().tolist()}
    assert decided == {(0, 0): True, (0, 1): False, (1, 0): False, (1, 1): True, (2, 0): False}
    assert float(selection.second.sum() / selection.decided.sum()) == pytest.approx(0.4)
    plan = PAA().select(selection.evidence, priors, truth)
    found = [(plan.positive & (plan.index == g))[0].nonzero().flatten().tolist() for g in range(3)]
    assert found == [[51, 52, 85, 86, 99, 100, 101], [152, 153, 154, 170, 171], [43, 44, 61, 62, 78, 79]]


def test_the_costs_are_those_the_released_code_logs():
    evidence, priors, _ = sines()
    levels = priors.level.expand_as(evidence[0].index)
    means, spreads = [], []
    for one in evidence:
        groups = [
            one.cost[one.candidate & (one.index == g) & (levels == level)] for g in range(3) for level in range(5)
        ]
        groups = [group for group in groups if len(group)]
        means.append(float(torch.stack([group.mean() for group in groups]).mean()))
        spreads.append(float(torch.stack([group.std() for group in groups]).mean()))
    assert means == pytest.approx([1.58218, 1.52914], rel=1e-4)
    assert spreads == pytest.approx([0.37829, 0.35874], rel=1e-4)


def case(seed=0, objects=5, thin=1.0):
    """Two networks' costs of the same candidates, at random; ``thin`` keeps a share of them."""
    generator = torch.Generator().manual_seed(seed)
    predictions, priors, truth = example_scene(objects=objects, seed=seed)
    other = replace(predictions, logits=predictions.logits + torch.randn(predictions.logits.shape, generator=generator))
    pair = [PAA().weigh(one, priors, truth) for one in (predictions, other)]
    kept = torch.rand(pair[0].candidate.shape, generator=generator) < thin
    return [replace(one, candidate=one.candidate & kept) for one in pair], priors, truth


def groups_of(evidence, priors, truth):
    for image in range(len(truth.labels)):
        for g in range(truth.labels.shape[1]):
            for level in range(len(priors.counts)):
                mine = evidence[0].candidate[image] & (evidence[0].index[image] == g) & (priors.level == level)
                if mine.any():
                    yield (image, g, level), mine, [one.cost[image, mine].double() for one in evidence]


@pytest.mark.parametrize("thin", [1.0, 0.03], ids=["many candidates", "few"])
def test_the_network_with_the_larger_spread_over_mean_is_selected(thin):
    evidence, priors, truth = case(thin=thin)
    selection = CostSelector()(*evidence, priors, truth)
    cells, alone = 0, 0
    for cell, mine, (first, second) in groups_of(evidence, priors, truth):
        if len(first) == 1:
            expected, alone = bool(second < first), alone + 1
        else:
            expected = bool(second.std() / second.mean() >= first.std() / first.mean())
        assert bool(selection.decided[cell])
        assert bool(selection.second[cell]) == expected
        taken = evidence[1 if expected else 0]
        assert torch.equal(selection.evidence.cost[cell[0], mine], taken.cost[cell[0], mine])
        cells += 1
    assert cells == int(selection.decided.sum())
    assert alone or thin == 1


def test_fishers_score_is_that_of_scikit_learns_mixture():
    evidence, priors, truth = case()
    selection = CostSelector("fisher")(*evidence, priors, truth)
    same, cells = 0, 0
    for cell, _, costs in groups_of(evidence, priors, truth):
        if len(costs[0]) < 4:
            continue
        scores = []
        for cost in costs:
            x = cost.sort().values.numpy()[:, None]
            mixture = GaussianMixture(
                2,
                weights_init=(0.5, 0.5),
                means_init=x[[0, -1]],
                precisions_init=[[[1.0]], [[1.0]]],
                max_iter=30,
                tol=0,
            )
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                mixture.fit(x)
            low, high = mixture.means_[:, 0]
            scores.append((low - high) ** 2 / mixture.covariances_.sum())
        same, cells = same + int(bool(selection.second[cell]) == (scores[1] >= scores[0])), cells + 1
    assert cells > 10
    assert same == cells


@pytest.mark.parametrize("by", ["spread", "fisher"])
def test_a_network_against_itself_changes_nothing(by):
    evidence, priors, truth = case()
    selection = CostSelector(by)(evidence[0], evidence[0], priors, truth)
    assert torch.equal(selection.evidence.cost, evidence[0].cost)
    assert torch.equal(selection.second[selection.decided], selection.decided[selection.decided]), (
        "a tie goes to the second"
    )


@pytest.mark.parametrize("by", ["spread", "fisher"])
def test_images_without_objects_have_no_decision(by):
    predictions, priors, _ = example_scene()
    for boxes in (torch.zeros(2, 0, 4), torch.zeros(2, 3, 4)):
        labels = torch.zeros(boxes.shape[:2], dtype=torch.long)
        none = torch.zeros_like(labels, dtype=torch.bool)
        empty = GroundTruth(boxes, labels, none, none)
        one = PAA().weigh(predictions, priors, empty)
        selection = CostSelector(by)(one, one, priors, empty)
        assert not selection.decided.any()
        assert not PAA().select(selection.evidence, priors, empty).positive.any()


def test_for_a_single_candidate_the_lower_cost_is_selected():
    priors = grid_priors(64, 64, (8,))
    truth = GroundTruth.pad([torch.tensor([[10.0, 10, 30, 30]])], [torch.zeros(1, dtype=torch.long)])
    candidate = torch.zeros(1, 64, dtype=torch.bool)
    candidate[0, 9] = True
    for costs, expected in (((1.0, 0.5), True), ((0.5, 1.0), False), ((1.0, 1.0), False)):
        pair = [Evidence(torch.zeros(1, 64, dtype=torch.long), torch.full((1, 64), c), candidate) for c in costs]
        assert bool(CostSelector()(*pair, priors, truth).second[0, 0, 0]) == expected


def test_a_cost_that_is_not_finite_for_either_is_passed_over():
    evidence, priors, truth = case()
    place = tuple(evidence[0].candidate.nonzero()[0].tolist())
    candidate = evidence[1].candidate.clone()
    candidate[place] = False
    selection = CostSelector()(evidence[0], replace(evidence[1], candidate=candidate), priors, truth)
    assert not selection.evidence.candidate[place]
    assert int(selection.evidence.candidate.sum()) == int(evidence[0].candidate.sum()) - 1
