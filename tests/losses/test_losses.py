"""The losses against published numbers and independent formulas."""

import torch
from torchvision.ops import sigmoid_focal_loss

from ladle.losses import class_focal_sum, focal_kl, sigmoid_focal


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
