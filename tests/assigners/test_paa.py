"""PAA against mmdetection, scikit-learn and the published examples."""

import numpy as np
import pytest
import torch

from ladle.assigners import PAA
from ladle.assigners.mixture import fit_two_gaussians
from tests.assigners.naive import naive_paa, naive_paa_cut
from tests.golden.scenes import Scene, golden, object_numbers

CASES = ("tiny", "edge")


@pytest.mark.parametrize("case", CASES)
def test_candidates_and_their_costs_agree_with_the_reference(case):
    scene, expected = Scene(case), golden(f"paa__{case}__mmdet_full")
    evidence = PAA().weigh(scene.predictions(), scene.priors(), scene.truth())
    for row in range(scene.B):
        listed = expected["cand_inds"][row] >= 0
        priors = expected["cand_inds"][row][listed]
        assert torch.equal(evidence.candidate[row].nonzero()[:, 0], priors)
        assert torch.equal(evidence.index[row, priors], expected["cand_gt"][row][listed])
        torch.testing.assert_close(evidence.cost[row, priors], expected["cand_loss"][row][listed], rtol=1e-4, atol=0)


@pytest.mark.parametrize("case", CASES)
def test_positives_agree_with_the_reference(case):
    scene, expected = Scene(case), golden(f"paa__{case}__mmdet_full")["gt_inds"]
    ours = object_numbers(PAA()(scene.predictions(), scene.priors(), scene.truth()))
    either = (ours > 0) | (expected > 0)
    # The reference fits its mixture in float32, where near-ties fall either way.
    assert (ours == expected)[either].float().mean() >= 0.99
    assert ((ours < 0) == (expected < 0)).all()


@pytest.mark.parametrize("cut", ["component", "prefix"])
@pytest.mark.parametrize("seed", range(3))
def test_agrees_with_a_naive_loop(seed, cut):
    scene = Scene("tiny", seed)
    ours = object_numbers(PAA(cut=cut)(scene.predictions(), scene.priors(), scene.truth()))
    expected = naive_paa(scene, cut=cut)
    # Two candidates alone tie in the mixture's likelihood up to rounding, so that either may end the cut.
    assert (ours == expected)[(ours > 0) | (expected > 0)].float().mean() >= 0.99


@pytest.mark.parametrize("cut", ["component", "prefix"])
@pytest.mark.slow
def test_every_object_is_cut_as_by_scikit_learn(cut):
    generator = np.random.default_rng(0)
    rows = [np.sort(generator.gamma(3, 1, n)).astype(np.float32) for n in generator.integers(1, 46, 200)]
    costs = torch.full((len(rows), 45), torch.inf)
    for row, values in enumerate(rows):
        costs[row, : len(values)] = torch.from_numpy(values)
    kept = PAA(cut=cut)._cut(costs, costs.isfinite())
    for row, values in zip(kept, rows):
        assert row.nonzero()[:, 0].tolist() == naive_paa_cut(values, cut)


def test_the_mixture_gives_the_published_likelihoods():
    samples = torch.tensor([[0.5, 0.51, 0.52, 3, 3.1, 3.2], [0.5, 0.6, 0.7, 0.8, 0.9, 1.0]])
    fitted = fit_two_gaussians(samples, torch.ones_like(samples, dtype=torch.bool))
    expected = [[2.4495, 3.1884, 2.4495, 0.1433, 0.8932, 0.1433], [-0.2230, 0.4627, 0.8056, 0.8056, 0.4627, -0.2230]]
    torch.testing.assert_close(fitted.likelihood, torch.tensor(expected).double(), rtol=0, atol=1e-4)
    assert fitted.low.tolist() == [[True] * 3 + [False] * 3] * 2


def test_a_tight_cluster_at_a_large_cost_is_fitted_without_failure():
    costs = 200 + 1e-3 * torch.arange(20.0)[None]
    fitted = fit_two_gaussians(costs, torch.ones_like(costs, dtype=torch.bool))
    assert fitted.likelihood.isfinite().all()


def test_a_lone_candidate_is_dropped_by_one_cut_and_kept_by_the_other():
    costs = torch.tensor([[1.0, torch.inf, torch.inf]])
    assert not PAA(cut="component")._cut(costs, costs.isfinite()).any()
    assert PAA(cut="prefix")._cut(costs, costs.isfinite()).tolist() == [[True, False, False]]
