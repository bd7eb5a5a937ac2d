"""COP and IO make the published scores, and focal loss on them is the focal loss on probabilities."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ladle.detectors.objectness import ConditionalObjectness, ImplicitObjectness
from ladle.errors import UserError
from ladle.families import detector_spec
from ladle.losses import sigmoid_focal


def case(module, size=(5, 6)):
    torch.manual_seed(0)
    built = module(4)
    for parameter in built.parameters():
        nn.init.normal_(parameter, std=0.5)
    return built, torch.randn(2, 3, *size) * 2, torch.randn(2, 4, *size)


def test_cop_is_its_formula_written_out():
    cop, logits, tower = case(ConditionalObjectness)
    relevance = F.conv2d(tower, cop.relevance.weight, cop.relevance.bias, padding=1).sigmoid()
    around = F.unfold(logits, 3, padding=1).view(2, 3, 9, 5, 6).sigmoid()
    expected = (around * relevance.unsqueeze(1)).mean(2)
    torch.testing.assert_close(cop(logits, tower).sigmoid(), expected)


def test_io_is_its_formula_written_out():
    io, logits, tower = case(ImplicitObjectness)
    objectness, threshold = io.objectness(tower).sigmoid(), io.threshold(tower).sigmoid()
    expected = (logits.sigmoid() - threshold).relu() * objectness
    assert (expected == 0).any()
    torch.testing.assert_close(io(logits, tower).sigmoid(), expected)


@pytest.mark.parametrize("module", [ConditionalObjectness, ImplicitObjectness])
def test_focal_loss_on_the_logits_is_the_focal_loss_on_probabilities(module):
    """Values and gradients, against the cross entropy of probabilities in float64."""
    built, logits, tower = case(module)
    logits.requires_grad_()
    target = (torch.rand(2, 3, 5, 6) > 0.7).float()
    scores = built(logits, tower)
    # Where IO's score is 0 there is no gradient, and the release's cross entropy is cut off.
    counted = scores > -80
    (sigmoid_focal(scores, target) * counted).sum().backward()
    found, logits.grad = logits.grad, None

    double = built.double()
    probability = double(logits.double(), tower.double()).double().sigmoid()
    right = torch.where(target > 0, probability, 1 - probability)
    weight = torch.where(target > 0, 0.25, 0.75) * (1 - right).square()
    cost = weight * F.binary_cross_entropy(probability, target.double(), reduction="none")
    torch.testing.assert_close(
        (sigmoid_focal(scores, target) * counted).sum(), (cost * counted).sum().float(), rtol=1e-4, atol=0
    )
    (cost * counted).sum().backward()
    torch.testing.assert_close(found, logits.grad, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("module", [ConditionalObjectness, ImplicitObjectness])
def test_scores_are_finite_float32_whatever_comes_in(module):
    built, logits, tower = case(module)
    for scale in (1e4, -1e4):
        wild = (logits.abs() * scale).requires_grad_()
        scores = built(wild, tower)
        assert scores.isfinite().all()
        sigmoid_focal(scores, torch.ones_like(scores)).sum().backward()
        assert wild.grad.isfinite().all()
    with torch.autocast("cpu", torch.bfloat16):
        assert built(logits.bfloat16(), tower.bfloat16()).dtype == torch.float32


def test_io_starts_with_a_threshold_near_nought_and_cop_like_any_convolution():
    io = detector_spec("paa+io-tiny", ("a",)).build().stages[0].objectness
    assert float(io.threshold.bias.detach().sigmoid()) == pytest.approx(1e-4, rel=1e-3)
    cop = detector_spec("paa+cop-tiny", ("a",)).build().stages[0].objectness
    assert not cop.relevance.bias.any()
    assert float(cop.relevance.weight.detach().std()) == pytest.approx(0.01, rel=0.1)


@pytest.mark.parametrize(
    ("name", "message"),
    [("paa+cup-tiny", "no head is called 'cup'; expected one of dist, cop, io"), ("retinanet+cop-tiny", "9 anchors")],
)
def test_a_head_that_cannot_be_is_refused(name, message):
    with pytest.raises(UserError, match=message):
        detector_spec(name, ("a",))


def test_towers_may_be_left_and_entered_anywhere():
    detector = detector_spec("gfl-mini", ("a", "b")).build().eval()
    images = torch.rand(1, 3, 64, 64)
    plain = detector(images)[0]
    assert plain.towers is None
    for inside in (0, 1, 2):
        shown = detector(images, tower_depth=inside)[0]
        torch.testing.assert_close(shown.predictions.boxes, plain.predictions.boxes)
        again = detector.head.predict_from(shown.towers, inside, plain.priors)
        torch.testing.assert_close(again.logits, plain.predictions.logits)
    assert all(torch.equal(a, b) for (a, _), b in zip(detector(images, tower_depth=0)[0].towers, plain.features))
    with pytest.raises(ValueError, match="have 2 convolutions, so none ends after 3"):
        detector(images, tower_depth=3)
