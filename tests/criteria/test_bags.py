"""The bag losses against mmdetection's AutoAssignHead, a naive dense oracle, and by their properties."""

from dataclasses import replace
from operator import itemgetter

import pytest
import torch
import torch.nn.functional as F

from ladle.assigners import ATSS
from ladle.assigners.auto_assign import AutoAssign
from ladle.boxes import decode_distances, encode_distances
from ladle.criteria.bags import BagCriterion, joint_background
from ladle.testing import example_scene, grid_priors
from ladle.types import Assignment, GroundTruth, Output, Predictions
from tests.assigners.naive_auto_assign import naive_losses, naive_scene, naive_weights
from tests.assigners.test_auto_assign import double
from tests.golden.scenes import Scene, golden

LEAVES = ("logits", "boxes", "quality", "center_prior")


def leaves(predictions):
    return predictions.map(lambda tensor: tensor.detach().clone().requires_grad_())


def losses_of(predictions, priors, truth, plan=None):
    plan = AutoAssign()(predictions, priors, truth) if plan is None else plan
    terms = BagCriterion()(Output(predictions, priors, ()), truth, plan)
    return {name: term.total / torch.maximum(term.count, term.floor) for name, term in terms.items()}


def assert_same_gradients(ours, theirs):
    for name in LEAVES:
        if getattr(ours, name) is not None:
            mine, other = getattr(ours, name).grad.double(), getattr(theirs, name).grad.double()
            torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-6 * float(other.abs().max()))


@pytest.mark.parametrize("case", ["tiny", "edge"])
def test_losses_and_gradients_are_those_of_the_reference(case):
    scene, expected = Scene(case), golden(f"autoassign__{case}__mmdet_fwd_bwd")
    priors, truth = scene.priors(), scene.truth()
    logits, quality = torch.from_numpy(scene.logits).requires_grad_(), torch.from_numpy(scene.aux).requires_grad_()
    distances = encode_distances(priors.centers, torch.from_numpy(scene.boxes)).clamp(min=0.1).requires_grad_()
    mean, spread = torch.zeros(scene.C, 2, requires_grad=True), torch.ones(scene.C, 2, requires_grad=True)
    center_prior = torch.cat([mean, spread], 1).expand(scene.B, -1, -1)
    boxes = decode_distances(priors.centers, distances)
    losses = losses_of(Predictions(logits, boxes, quality[..., 0], center_prior=center_prior), priors, truth)
    sum(losses.values()).backward()

    for ours, theirs in (("positive", "loss_pos"), ("negative", "loss_neg"), ("center", "loss_center")):
        torch.testing.assert_close(losses[ours].detach(), expected[theirs], rtol=1e-5, atol=0)
    leaf_of = {"cls": logits, "reg": distances, "obj": quality, "mean": mean, "sigma": spread}
    for name, leaf in leaf_of.items():
        theirs, ours = expected[f"grad_{name}"], leaf.grad
        ours = ours if ours.ndim == theirs.ndim else ours.abs().sum(2)
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6 * float(theirs.abs().max()))


def test_losses_on_the_scene_of_sines_are_those_of_the_published_functions():
    priors = grid_priors(128, 128, (8, 16, 32, 64, 128))
    i = torch.arange(341, dtype=torch.double)
    logits = 2 * torch.sin(0.7 * i[:, None] + 1.3 * torch.arange(3)) - 2
    distances = priors.stride[:, None] * (1.5 + 0.5 * torch.sin(0.3 * i[:, None] + torch.arange(4)))
    predictions = Predictions(
        logits.float()[None], decode_distances(priors.centers, distances.float()), torch.sin(0.2 * i).float()[None]
    )
    boxes = torch.tensor([[10.0, 12.0, 60.0, 70.0], [40.0, 40.0, 120.0, 110.0], [100.0, 5.0, 118.0, 20.0]])
    truth = GroundTruth.pad([boxes], [torch.arange(3)])
    plan = AutoAssign()(predictions, priors, truth)
    terms = BagCriterion()(Output(predictions, priors, ()), truth, plan)
    assert terms["negative"].count == pytest.approx(33.6441, rel=1e-5)
    losses = losses_of(predictions, priors, truth)
    expected = {"positive": 1.52703, "negative": 0.11793, "center": 0.06688}
    assert {name: float(value) for name, value in losses.items()} == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("branches", [True, False])
def test_losses_and_gradients_are_those_of_the_naive_formulas(seed, branches):
    predictions, priors, truth = naive_scene(seed, branches=branches)
    predictions, slow = leaves(predictions), double(predictions)
    losses, expected = losses_of(predictions, priors, truth), naive_losses(slow, priors, truth)
    sum(losses.values()).backward()
    sum(expected.values()).backward()
    for name, value in losses.items():
        assert value.item() == pytest.approx(expected[name].item(), rel=1e-4)
    assert_same_gradients(predictions, slow)


def test_a_teacher_that_judges_gives_constant_weights():
    predictions, priors, truth = naive_scene(0)
    teacher, _, _ = naive_scene(1)
    plan = AutoAssign()(teacher, priors, truth)
    mine, slow = leaves(predictions), double(predictions)
    losses = losses_of(mine, priors, truth, plan)
    weights = naive_weights(double(teacher), priors, truth).detach()
    expected = naive_losses(slow, priors, truth, weights)
    losses["positive"].backward()
    expected["positive"].backward()
    assert losses["positive"].item() == pytest.approx(expected["positive"].item(), rel=1e-4)
    torch.testing.assert_close(mine.logits.grad.double(), slow.logits.grad, rtol=1e-4, atol=1e-8)
    assert mine.center_prior.grad is None


def test_gradients_are_differences_of_the_loss():
    predictions, priors, truth = naive_scene(3)
    mine = leaves(predictions)
    plan = AutoAssign()(mine, priors, truth)

    def total(at, fixed=None):
        terms = BagCriterion()(Output(at, priors, ()), truth, fixed or AutoAssign()(at, priors, truth))
        return sum(term.total for term in terms.values())

    total(mine).backward()
    frozen = leaves(predictions)
    total(frozen, plan.detach()).backward()
    generator = torch.Generator().manual_seed(0)
    for name, step in (("logits", 1e-2), ("quality", 1e-2), ("center_prior", 1e-3), ("boxes", 1e-2)):
        # The negative weight follows the boxes without a gradient, so their difference is taken under a plan that
        # stays.
        fixed, leaf = (plan.detach(), getattr(frozen, name)) if name == "boxes" else (None, getattr(mine, name))
        way = torch.randn(leaf.shape, generator=generator)
        ahead, behind = (replace(predictions, **{name: leaf.detach() + sign * step * way}) for sign in (1, -1))
        slope = (total(ahead, fixed) - total(behind, fixed)) / (2 * step)
        assert (leaf.grad * way).sum().item() == pytest.approx(slope.item(), rel=1e-2, abs=5e-3)


def test_an_object_that_holds_no_prior_costs_a_hundred_and_teaches_nothing():
    priors = grid_priors(32, 32, (8,))
    predictions = leaves(Predictions(torch.zeros(1, 16, 2), priors.boxes, torch.zeros(1, 16)))
    truth = GroundTruth.pad([torch.tensor([[9.0, 9.0, 11.0, 11.0]])], [torch.tensor([1])])
    losses = losses_of(predictions, priors, truth)
    assert losses["positive"] == 25
    assert losses["center"] == 0
    losses["positive"].backward()
    assert not predictions.logits.grad.any()
    assert predictions.boxes.grad.isfinite().all()


@pytest.mark.parametrize("look", [True, False])
@pytest.mark.parametrize("columns", [0, 3])
def test_without_objects_the_terms_are_finite_and_their_graph_reaches_every_branch(columns, look, monkeypatch):
    monkeypatch.setattr("ladle.device._as_gpu", not look)
    predictions, priors, truth = naive_scene(0)
    truth = replace(truth, valid=torch.zeros_like(truth.valid)).map(lambda tensor: tensor[:, :columns])
    predictions = leaves(predictions)
    losses = losses_of(predictions, priors, truth)
    assert losses["positive"] == 0
    assert losses["center"] == 0
    assert losses["negative"] > 0
    sum(losses.values()).backward()
    for name in LEAVES:
        assert getattr(predictions, name).grad.isfinite().all()
    assert not predictions.boxes.grad.any()
    assert not predictions.center_prior.grad.any()


def test_priors_in_a_crowd_and_outside_the_image_cost_nothing():
    predictions, priors, truth = example_scene(batch=1, objects=2)
    boxes = torch.cat([truth.boxes[0], torch.tensor([[96.0, 64.0, 256.0, 192.0]])])
    crowd = GroundTruth.pad([boxes], [torch.tensor([0, 1, 0])], [torch.tensor([False, False, True])])
    valid = priors.valid.clone()
    valid[0, ::7] = False
    priors, predictions = replace(priors, valid=valid), leaves(predictions)
    plan = AutoAssign()(predictions, priors, crowd)
    ignored = (plan.background == 0) & ~plan.positive
    assert (ignored & valid).any()
    losses = losses_of(predictions, priors, crowd, plan)
    sum(losses.values()).backward()
    assert not predictions.logits.grad[ignored].any()
    assert not predictions.boxes.grad[ignored].any()
    assert predictions.logits.grad[~ignored].all()


def test_terms_add_up_over_images():
    predictions, priors, truth = naive_scene(2)
    whole = BagCriterion()(Output(predictions, priors, ()), truth, AutoAssign()(predictions, priors, truth))
    parts = []
    for row in range(2):
        one = itemgetter(slice(row, row + 1))
        mine, objects, places = predictions.map(one), truth.map(one), replace(priors, valid=one(priors.valid))
        parts.append(BagCriterion()(Output(mine, places, ()), objects, AutoAssign()(mine, places, objects)))
    for name, term in whole.items():
        torch.testing.assert_close(term.total, parts[0][name].total + parts[1][name].total)
        torch.testing.assert_close(term.count, parts[0][name].count + parts[1][name].count)


def test_under_a_hard_plan_an_object_is_found_by_the_mean_of_its_priors():
    priors = grid_priors(32, 32, (8,))
    box = torch.tensor([4.0, 4.0, 28.0, 28.0])
    predictions = Predictions(torch.randn(1, 16, 2, generator=torch.Generator().manual_seed(0)), box.expand(1, 16, 4))
    truth = GroundTruth.pad([box[None]], [torch.tensor([1])])
    positive = torch.zeros(1, 16, dtype=torch.bool)
    positive[0, [5, 6]] = True
    background = ~positive
    background[0, 0] = False
    plan = Assignment.hard(torch.zeros(1, 16, dtype=torch.long), positive, background)
    terms = BagCriterion()(Output(predictions, priors, ()), truth, plan)
    assert terms["positive"].total == pytest.approx(
        float(-0.25 * predictions.scores[0, [5, 6], 1].mean().log()), rel=1e-5
    )
    x = predictions.scores[0, 1:].clone()
    x[[4, 5], 1] = 0
    assert terms["negative"].total == pytest.approx(float(-0.75 * (x**2 * (1 - x).log()).sum()), rel=1e-5)


def test_any_other_assigner_may_judge():
    predictions, priors, truth = example_scene()
    predictions = leaves(predictions)
    sum(losses_of(predictions, priors, truth, ATSS()(predictions, priors, truth)).values()).backward()
    assert predictions.logits.grad.isfinite().all()
    assert predictions.boxes.grad.any()


@pytest.mark.parametrize("seed", range(2))
def test_padded_lists_give_the_same_losses_and_gradients(seed, monkeypatch):
    predictions, priors, truth = naive_scene(seed)
    mine, other = leaves(predictions), leaves(predictions)
    first = losses_of(mine, priors, truth)
    sum(first.values()).backward()
    monkeypatch.setattr("ladle.device._as_gpu", True)
    second = losses_of(other, priors, truth)
    sum(second.values()).backward()
    for name, value in first.items():
        torch.testing.assert_close(value, second[name])
    assert_same_gradients(mine, other)


def test_half_precision_predictions_pay_in_single_precision():
    predictions, priors, truth = example_scene()
    with torch.autocast("cpu", torch.bfloat16):
        losses = losses_of(leaves(predictions), priors, truth)
    for name, value in losses_of(predictions, priors, truth).items():
        assert losses[name].dtype == torch.float32
        assert torch.equal(losses[name].detach(), value)


@pytest.mark.parametrize("block", [1, 12, 1 << 17])
@pytest.mark.parametrize("branch", [True, False])
def test_joint_background_is_its_formula_whatever_the_blocks(block, branch, monkeypatch):
    monkeypatch.setattr("ladle.criteria.bags._BLOCK", block)
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(9, 4, generator=generator, dtype=torch.double, requires_grad=True)
    objectness = torch.randn(9, generator=generator, dtype=torch.double, requires_grad=True) if branch else None
    counted = torch.rand(9, generator=generator, dtype=torch.double)
    row, label = torch.tensor([0, 0, 3, 3, 8]), torch.tensor([1, 2, 3, 3, 0])
    negative_weight = torch.tensor([0.0, 0.5, 0.9, 0.2, 0.7], dtype=torch.double)

    def loss(logits, objectness):
        return joint_background(logits, objectness, counted, row, label, negative_weight)

    weight = counted.unsqueeze(-1).repeat(1, 4)
    weight[[0, 0, 3, 8], [1, 2, 3, 0]] *= torch.tensor([0.0, 0.5, 0.2, 0.7])
    x = weight * logits.sigmoid() * (objectness.sigmoid().unsqueeze(-1) if branch else 1.0)
    torch.testing.assert_close(loss(logits, objectness), -(x**2 * (1 - x).log()).sum())
    assert torch.autograd.gradcheck(loss, (logits, objectness))


def test_joint_background_is_accurate_for_the_faintest_and_finite_for_the_surest_scores():
    logits = torch.tensor([[-15.0, -9.0, 2.0], [40.0, 16.0, 200.0]], requires_grad=True)
    rows = torch.zeros(0, dtype=torch.long)
    for part in range(6):
        one = logits.flatten()[part].view(1, 1)
        loss = joint_background(one, None, torch.ones(1), rows, rows, torch.zeros(0))
        x = one.sigmoid().detach().double().requires_grad_()
        expected = x.square() * F.binary_cross_entropy(x, torch.zeros_like(x))
        assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    joint_background(logits, None, torch.ones(2), rows, rows, torch.zeros(0)).backward()
    assert logits.grad.isfinite().all()
