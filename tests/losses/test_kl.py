"""The softened divergence against mmdetection's, and distributions said in other bins."""

import pytest
import torch

from ladle.losses import rebinned, softened_kl
from tests.golden.scenes import golden


@pytest.mark.parametrize("case", ["tiny", "edge"])
@pytest.mark.parametrize("temperature", [1, 2, 10])
def test_it_costs_and_pulls_as_the_reference_says(case, temperature):
    expected = golden(f"kd__{case}__mmdet_kl_T{temperature}")
    logits = expected["in_student"].clone().requires_grad_()
    chances = (expected["in_teacher"] / temperature).softmax(-1)
    loss = 0.25 * (expected["in_weight"] * softened_kl(logits, chances, temperature)).sum() / 4
    loss.backward()
    torch.testing.assert_close(loss.detach(), expected["loss"], rtol=1e-4, atol=0)
    torch.testing.assert_close(logits.grad, expected["grad"], rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize(("temperature", "value"), [(1, 0.05733541), (2, 0.06625165), (10, 0.07011066)])
def test_it_gives_the_numbers_of_the_released_code(temperature, value):
    bins = torch.arange(17.0)
    chances = (bins / 4 / temperature).softmax(-1)
    assert float(softened_kl(bins.cos(), chances, temperature)) == pytest.approx(value, rel=1e-5)


def test_agreement_costs_nothing_also_where_a_chance_is_nought():
    logits = torch.tensor([[0.3, -1.0, 2.0]])
    assert float(softened_kl(logits, (logits / 2).softmax(-1), 2.0)) == pytest.approx(0, abs=1e-7)
    assert softened_kl(logits, torch.tensor([[0.5, 0.5, 0.0]]), 1.0).isfinite().all()


def test_more_bins_than_are_known_stay_empty_and_fewer_take_the_rest():
    chances = torch.tensor([[0.1, 0.2, 0.3, 0.4]])
    torch.testing.assert_close(rebinned(chances, 4), chances)
    torch.testing.assert_close(rebinned(chances, 6), torch.tensor([[0.1, 0.2, 0.3, 0.4, 0.0, 0.0]]))
    torch.testing.assert_close(rebinned(chances, 3), torch.tensor([[0.1, 0.2, 0.7]]))
