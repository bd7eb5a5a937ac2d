"""Distributions over distances against mmdetection and against their formulas, written out."""

import math

import pytest
import torch

from ladle.losses import distribution_focal, expected_bin
from tests.golden.scenes import golden


@pytest.mark.parametrize("case", ["tiny", "edge"])
def test_distribution_focal_costs_and_pulls_as_the_reference_says(case):
    expected = golden(f"gfl__{case}__mmdet_dfl")
    logits = expected["in_pred"].requires_grad_()
    loss = 0.25 * (distribution_focal(logits, expected["in_target"]) * expected["in_weight"]).sum() / 4
    loss.backward()
    torch.testing.assert_close(loss.detach(), expected["loss_dfl"], rtol=1e-4, atol=0)
    torch.testing.assert_close(logits.grad, expected["grad"], rtol=1e-4, atol=1e-8)


def test_distribution_focal_is_its_formula():
    logits = [0.3, -1.0, 2.0, 0.1]
    total = sum(math.exp(x) for x in logits)
    for target in (0.0, 0.25, 1.5, 2.9, 3.0):
        left = min(int(target), 2)
        cost = (left + 1 - target) * -math.log(math.exp(logits[left]) / total)
        cost += (target - left) * -math.log(math.exp(logits[left + 1]) / total)
        found = distribution_focal(torch.tensor(logits), torch.tensor(target))
        assert float(found) == pytest.approx(cost, rel=1e-5)


def test_the_distribution_that_costs_least_has_the_target_as_its_mean():
    chances = torch.tensor([0.0, 0.0, 0.7, 0.3, 0.0]) + 1e-12
    assert float(expected_bin(chances.log())) == pytest.approx(2.3, rel=1e-5)
    logits = chances.log().requires_grad_()
    distribution_focal(logits, torch.tensor(2.3)).backward()
    assert logits.grad.abs().max() < 1e-5


def test_the_mean_is_taken_in_full_precision_under_autocast():
    logits = torch.randn(40, 4, 17, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        found = expected_bin(logits)
    assert torch.equal(found, expected_bin(logits))
    assert expected_bin(logits.bfloat16()).dtype == torch.float32
