"""The losses against published numbers and independent formulas."""

import pytest
import torch
from torchvision.ops import sigmoid_focal_loss

from ladle.losses import background_focal, background_focal_sum, class_focal_sum, focal_kl, sigmoid_focal


def test_focal_agrees_with_torchvision():
    logits = torch.randn(50, 7, generator=torch.Generator().manual_seed(0)) * 4
    targets = (logits.roll(1) > 0).float()
    torch.testing.assert_close(sigmoid_focal(logits, targets), sigmoid_focal_loss(logits, targets))


def test_the_sum_over_classes_is_the_one_hot_focal():
    logits = torch.randn(3, 20, 7, generator=torch.Generator().manual_seed(0))
    label = torch.arange(60).view(3, 20) % 7
    expected = sigmoid_focal_loss(logits, torch.nn.functional.one_hot(label, 7).float()).sum(-1)
    torch.testing.assert_close(class_focal_sum(logits, label), expected)


def test_focal_kl_gives_the_published_number():
    logits, target = torch.tensor([-2.0, 0.0, 1.5]), torch.tensor([0.1, 0.9, 0.5])
    total = 10 * focal_kl(logits, target.logit(), gamma=0.5).sum() / 2
    torch.testing.assert_close(total, torch.tensor(1.892917), rtol=1e-5, atol=0)


def test_focal_kl_stays_finite_at_certainty():
    logits = torch.tensor([-200.0, 200.0], requires_grad=True)
    loss = focal_kl(logits, torch.tensor([200.0, -200.0])).sum()
    loss.backward()
    assert loss.isfinite()
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("gamma", [2.0, 1.5])
@pytest.mark.parametrize("rows", [0, 5, 3000])
def test_the_sum_of_background_and_its_gradient_are_those_of_the_formula(gamma, rows):
    logits = torch.randn(rows, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 6
    pull = torch.rand(rows, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    mine, other = (logits.clone().requires_grad_() for _ in range(2))
    found, expected = background_focal_sum(mine, 0.25, gamma), background_focal(other, 0.25, gamma).sum(-1)
    torch.testing.assert_close(found, expected)
    (found * pull).sum().backward()
    (expected * pull).sum().backward()
    torch.testing.assert_close(mine.grad, other.grad)
