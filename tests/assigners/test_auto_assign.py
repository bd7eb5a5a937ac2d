"""AutoAssign's weights against a naive dense oracle, and by what they promise."""

from dataclasses import replace

import pytest
import torch

from ladle.assigners.auto_assign import AutoAssign
from ladle.testing import ASSIGNER_LAWS, example_scene, grid_priors
from ladle.types import GroundTruth, Predictions
from tests.assigners.naive_auto_assign import naive_background, naive_scene, naive_weights

LAWS = [law for law in ASSIGNER_LAWS if "hard" not in law.__name__ and "compiles" not in law.__name__]


def double(predictions):
    return predictions.map(lambda tensor: tensor.detach().double().requires_grad_())


def background_of(plan, truth, classes):
    """The plan's negative weights as a matrix (B, P, C), slot by slot."""
    matrix = plan.background.unsqueeze(-1).repeat(1, 1, classes)
    for row, prior, slot in (plan.negative_weight < 1).nonzero().tolist():
        label = truth.labels[row, plan.objects[row, prior, slot]]
        matrix[row, prior, label] = plan.negative_weight[row, prior, slot] * plan.background[row, prior]
    return matrix


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_obeys(law):
    law(AutoAssign())


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("branches", [True, False])
def test_positive_and_negative_weights_equal_the_naive_formulas(seed, branches):
    predictions, priors, truth = naive_scene(seed, branches=branches)
    plan = AutoAssign()(predictions, priors, truth)
    torch.testing.assert_close(
        plan.dense(7).double(), naive_weights(double(predictions), priors, truth), rtol=1e-4, atol=1e-7
    )
    expected = naive_background(double(predictions), priors, truth)
    torch.testing.assert_close(background_of(plan, truth, 3).double(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("tau", [1 / 3, 0.1])
def test_gradients_of_the_weights_are_those_of_the_naive_formulas(tau):
    predictions, priors, truth = naive_scene(1)
    predictions = predictions.map(lambda tensor: tensor.clone().requires_grad_())
    pull = torch.randn(2, priors.boxes.shape[1], 7, generator=torch.Generator().manual_seed(0))
    (AutoAssign(tau=tau)(predictions, priors, truth).dense(7) * pull).sum().backward()
    slow = double(predictions)
    (naive_weights(slow, priors, truth, tau) * pull).sum().backward()
    for name in ("logits", "boxes", "quality", "center_prior"):
        ours, theirs = getattr(predictions, name).grad.double(), getattr(slow, name).grad
        assert theirs.abs().max() > 0
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6 * float(theirs.abs().max()))


def test_the_weights_of_an_object_sum_to_one_and_every_prior_is_background():
    predictions, priors, truth = example_scene()
    plan = AutoAssign()(predictions, priors, truth)
    torch.testing.assert_close(plan.dense(6).sum(1), torch.ones(2, 6))
    assert (plan.background == 1).all()
    assert plan.objects.shape[-1] == int((plan.dense(6) > 0).sum(-1).max())


def test_slots_are_filled_in_the_order_of_objects_and_empty_ones_are_neutral():
    priors = grid_priors(32, 32, (8,))
    boxes = torch.tensor([[4.0, 4.0, 28.0, 28.0], [1.0, 1.0, 20.0, 20.0], [50.0, 50.0, 51.0, 51.0]])
    predictions = Predictions(torch.zeros(1, 16, 2), priors.boxes)
    plan = AutoAssign()(predictions, priors, GroundTruth.pad([boxes], [torch.tensor([0, 1, 0])]))
    both, second, neither = 5, 10, 3
    assert plan.objects[0, [both, 14, neither]].tolist() == [[0, 1], [0, 0], [0, 0]]
    assert plan.affinity[0, second].gt(0).tolist() == [True, True]
    assert plan.affinity[0, [14, neither]].gt(0).tolist() == [[True, False], [False, False]]
    assert plan.negative_weight[0, 14, 1] == 1
    assert (plan.negative_weight[0, neither] == 1).all()


def test_the_best_fitting_prior_of_an_object_is_no_background_and_the_worst_fully():
    priors = grid_priors(32, 32, (8,))
    box = torch.tensor([[4.0, 4.0, 20.0, 12.0]])
    boxes = priors.boxes.clone()
    boxes[0, 5] = torch.tensor([4.0, 4.0, 20.0, 12.0])
    boxes[0, 6] = torch.tensor([4.0, 4.0, 12.0, 12.0])
    plan = AutoAssign()(Predictions(torch.zeros(1, 16, 1), boxes), priors, GroundTruth.pad([box], [torch.tensor([0])]))
    assert plan.negative_weight[0, [5, 6], 0].tolist() == [0.0, 1.0]


def test_of_several_objects_of_one_class_the_last_sets_the_negative_weight():
    predictions, priors, truth = naive_scene(2, classes=1)
    plan = AutoAssign()(predictions, priors, truth)
    several = (plan.affinity > 0).sum(-1) > 1
    assert several.any()
    filled = torch.where(plan.affinity > 0, plan.negative_weight, plan.negative_weight[..., :1])
    assert torch.equal(filled[several].amax(-1), filled[several].amin(-1))


def test_no_gradient_flows_where_the_judge_has_none():
    predictions, priors, truth = example_scene()
    with_gradient = predictions.map(lambda tensor: tensor.clone().requires_grad_())
    assert AutoAssign()(with_gradient, priors, truth).affinity.requires_grad
    assert not AutoAssign()(predictions, priors, truth).affinity.requires_grad
    with torch.no_grad():
        assert not AutoAssign()(with_gradient, priors, truth).affinity.requires_grad


def test_an_object_without_a_prior_has_no_part_in_the_plan():
    priors = grid_priors(32, 32, (8,))
    boxes = torch.tensor([[9.0, 9.0, 11.0, 11.0]])
    predictions = Predictions(torch.zeros(1, 16, 2), priors.boxes)
    plan = AutoAssign()(predictions, priors, GroundTruth.pad([boxes], [torch.tensor([1])]))
    assert not plan.positive.any()
    assert (plan.background == 1).all()


def test_a_prediction_that_is_not_finite_has_confidence_0():
    predictions, priors, truth = example_scene(batch=1)
    bad = predictions.map(torch.clone)
    bad.boxes[0, 100:] = torch.nan
    plan = AutoAssign()(bad, priors, truth)
    assert plan.affinity.isfinite().all()
    assert plan.negative_weight.isfinite().all()


@pytest.mark.parametrize("seed", range(2))
def test_padded_lists_give_the_same_plan_and_gradients(seed, monkeypatch):
    predictions, priors, truth = naive_scene(seed)
    gradients, plans = [], []
    for look in (True, False):
        if not look:
            monkeypatch.setattr("ladle.device._as_gpu", True)
        mine = predictions.map(lambda tensor: tensor.clone().requires_grad_())
        plans.append(AutoAssign()(mine, priors, truth))
        plans[-1].dense(7).square().sum().backward()
        gradients.append([mine.logits.grad, mine.boxes.grad, mine.quality.grad, mine.center_prior.grad])
    assert plans[1].objects.shape[-1] == 7
    assert torch.equal(plans[0].dense(7), plans[1].dense(7))
    assert torch.equal(background_of(plans[0], truth, 3), background_of(plans[1], truth, 3))
    torch.testing.assert_close(gradients[0], gradients[1])


def test_priors_on_grids_are_found_like_those_that_stand_freely():
    predictions, priors, truth = example_scene()
    free = AutoAssign()(predictions, replace(priors, grids=None), truth)
    assert torch.equal(AutoAssign()(predictions, priors, truth).dense(6), free.dense(6))
