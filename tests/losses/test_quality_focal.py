"""Quality focal loss against mmdetection and against its formula, written out."""

import math

import pytest
import torch

from ladle.losses import background_quality_focal, quality_focal
from tests.golden.scenes import Scene, golden


def inputs(scene):
    """The rows, labels, qualities and weights of the recorded run, drawn in its order."""
    generator = torch.Generator().manual_seed(3)
    rows = scene.B * scene.A
    label = torch.randint(0, scene.C * 6, (rows,), generator=generator).clamp(max=scene.C)
    quality = torch.rand(rows, generator=generator) * (label < scene.C)
    return torch.from_numpy(scene.logits).reshape(rows, -1), label, quality, torch.rand(rows, generator=generator)


@pytest.mark.parametrize("case", ["tiny", "edge"])
def test_quality_focal_costs_and_pulls_as_the_reference_says(case):
    scene, expected = Scene(case), golden(f"gfl__{case}__mmdet_qfl")
    logits, label, quality, weight = inputs(scene)
    logits = logits.clone().requires_grad_()
    target = torch.nn.functional.one_hot(label, scene.C + 1)[:, :-1] * quality.unsqueeze(-1)
    loss = (quality_focal(logits, target).sum(-1) * weight).sum() / 100
    loss.backward()
    torch.testing.assert_close(loss.detach(), expected["loss_qfl"], rtol=1e-4, atol=0)
    torch.testing.assert_close(logits.grad.abs().sum(1), expected["grad"], rtol=1e-4, atol=1e-9)


def test_quality_focal_is_its_formula():
    for logit, target in ((-2.0, 0.3), (0.5, 0.9), (3.0, 0.0), (1.0, 1.0)):
        p = 1 / (1 + math.exp(-logit))
        cross_entropy = -target * math.log(p) - (1 - target) * math.log(1 - p)
        found = quality_focal(torch.tensor(logit), torch.tensor(target))
        assert float(found) == pytest.approx((target - p) ** 2 * cross_entropy, rel=1e-5)


def test_the_background_is_a_target_of_zero():
    logits = torch.linspace(-30, 30, 61)
    torch.testing.assert_close(background_quality_focal(logits), quality_focal(logits, torch.zeros(61)))


def test_quality_focal_rests_where_the_score_is_the_quality_and_stays_finite():
    logits = torch.tensor([0.3, -200.0, 200.0], requires_grad=True)
    target = torch.stack([logits[0].detach().sigmoid(), torch.tensor(1.0), torch.tensor(0.0)])
    loss = quality_focal(logits, target)
    loss.sum().backward()
    assert loss.isfinite().all()
    assert loss[0] == 0
    assert logits.grad[0] == 0
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("beta", [0.5, 1.0, 1.5, 2.0])
def test_where_the_score_is_the_target_the_gradient_is_zero_for_any_power(beta):
    logits = torch.tensor([-1.0, 0.0, 2.0], requires_grad=True)
    loss = quality_focal(logits, torch.cat([logits.detach()[:2].sigmoid(), torch.tensor([0.25])]), beta)
    loss.sum().backward()
    assert loss[:2].tolist() == [0.0, 0.0]
    p = 1 / (1 + math.exp(-2.0))
    entropy = -0.25 * math.log(p) - 0.75 * math.log(1 - p)
    assert float(loss[2].detach()) == pytest.approx((p - 0.25) ** beta * entropy, rel=1e-5)
    assert logits.grad[:2].tolist() == [0.0, 0.0]
    slope = beta * (p - 0.25) ** (beta - 1) * p * (1 - p) * entropy + (p - 0.25) ** beta * (p - 0.25)
    assert float(logits.grad[2]) == pytest.approx(slope, rel=1e-5)
