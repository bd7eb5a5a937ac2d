"""The dense criterion against mmdetection's LAD head, end to end, and by its properties."""

from dataclasses import replace
from math import log

import pytest
import torch

from ladle.assigners import ATSS, PAA, MaxIoU
from ladle.boxes import decode_deltas
from ladle.criteria import DenseCriterion
from ladle.types import Assignment, GroundTruth, Output, Predictions
from tests.golden.scenes import Scene, golden


def perturbed(scene):
    """The student of the recorded run: the teacher's maps plus noise drawn level by level."""
    generator = torch.Generator().manual_seed(5)

    def noisy(rows, scale):
        parts, start = [], 0
        for (height, width), count in zip(scene.sizes, scene.num_lvl):
            level = rows[:, start : start + count].transpose(1, 2).reshape(scene.B, -1, height, width)
            moved = level + scale * torch.randn(level.shape, generator=generator)
            parts.append(moved.flatten(2).transpose(1, 2))
            start += count
        return torch.cat(parts, 1).requires_grad_()

    logits, quality = torch.from_numpy(scene.logits), torch.from_numpy(scene.aux)
    return noisy(logits, 1.0), noisy(scene.deltas(), 0.5), noisy(quality, 1.0)


@pytest.mark.parametrize("case", ["tiny", "edge"])
def test_distilled_assignment_has_the_losses_of_the_reference(case):
    scene, expected = Scene(case), golden(f"lad__{case}__mmdet_full")
    logits, deltas, quality = perturbed(scene)
    priors, truth = scene.priors(), scene.truth()
    student = Output(Predictions(logits, decode_deltas(priors.boxes, deltas), quality[..., 0]), priors, ())

    # The reference fits its mixture in float32, where near-ties fall either way: compare under its plan.
    ours, evidence = PAA()(scene.predictions(), priors, truth), PAA().weigh(scene.predictions(), priors, truth)
    positive = expected["labels"] < scene.C
    assert (ours.positive == positive)[ours.positive | positive].float().mean() >= 0.99
    plan = Assignment.hard(evidence.index, positive, torch.ones_like(positive))
    terms = DenseCriterion(share="count")(student, truth, plan)
    losses = {name: term.total / torch.maximum(term.count, term.floor) for name, term in terms.items()}
    sum(losses.values()).backward()

    assert int(plan.positive.sum()) == int(expected["num_pos"])
    for ours, theirs in (("class", "loss_cls"), ("box", "loss_bbox"), ("quality", "loss_iou")):
        torch.testing.assert_close(losses[ours].detach(), expected[theirs], rtol=1e-4, atol=0)
    if case == "tiny":
        for leaf, name in ((logits, "grad_cls"), (deltas, "grad_reg"), (quality, "grad_iou")):
            torch.testing.assert_close(leaf.grad, expected[name], rtol=1e-4, atol=1e-7)
    else:
        torch.testing.assert_close(logits.grad.abs().sum(2), expected["grad_cls_l1"], rtol=1e-4, atol=1e-7)
        torch.testing.assert_close(deltas.grad.abs().sum(2), expected["grad_reg_l1"], rtol=1e-4, atol=1e-7)


def case():
    scene = Scene("tiny")
    priors, truth = scene.priors(), scene.truth()
    return Output(scene.predictions(), priors, ()), truth


def loss(terms):
    return {name: float(t.total / torch.maximum(t.count, t.floor)) for name, t in terms.items()}


def test_ignored_priors_cost_nothing():
    output, truth = case()
    plan = MaxIoU(0.5, 0.4)(output.predictions, output.priors, truth)
    ignored = ~plan.positive & (plan.background == 0)
    assert ignored.any()
    noise = torch.where(ignored.unsqueeze(-1), 9.0, output.predictions.logits)
    loud = replace(output, predictions=replace(output.predictions, logits=noise))
    criterion = DenseCriterion()
    assert loss(criterion(output, truth, plan)) == loss(criterion(loud, truth, plan))


def test_an_empty_batch_has_a_finite_class_loss_and_no_box_loss():
    output, _ = case()
    none = GroundTruth.pad([torch.zeros(0, 4)] * 2, [torch.zeros(0, dtype=torch.long)] * 2)
    terms = DenseCriterion()(output, none, PAA()(output.predictions, output.priors, none))
    assert terms["class"].total > 0
    assert terms["class"].floor == 2
    assert terms["box"].total == 0
    assert terms["quality"].total == 0


def test_a_perfect_box_costs_nothing_whichever_loss():
    output, truth = case()
    plan = ATSS()(output.predictions, output.priors, truth)
    target, _ = truth.at(plan.index)
    perfect = replace(output, predictions=replace(output.predictions, boxes=target))
    for box in ("giou", "l1"):
        assert loss(DenseCriterion(box=box)(perfect, truth, plan))["box"] == pytest.approx(0, abs=1e-5)
        assert loss(DenseCriterion(box=box)(output, truth, plan))["box"] > 0.1


def test_centerness_is_one_in_the_middle_and_falls_towards_the_sides():
    from ladle.criteria.regression import centerness

    box = torch.tensor([[[0.0, 0.0, 20.0, 10.0]]]).expand(1, 3, 4)
    points = torch.tensor([[[10.0, 5.0], [5.0, 5.0], [20.0, 5.0]]])
    torch.testing.assert_close(centerness(points, box), torch.tensor([[1.0, (5 / 15) ** 0.5, 0.0]]))


def test_a_criterion_for_a_branch_that_is_not_there_is_refused():
    output, truth = case()
    bare = replace(output, predictions=replace(output.predictions, quality=None))
    plan = ATSS()(bare.predictions, bare.priors, truth)
    with pytest.raises(ValueError, match="no quality branch"):
        DenseCriterion()(bare, truth, plan)
    assert set(DenseCriterion(quality=None, share="count")(bare, truth, plan)) == {"class", "box"}


def test_l1_is_that_of_yolox():
    """The published targets: center in the cell and logarithms of the sides, in strides; divided by the positives."""
    scene = Scene("tiny")
    priors, truth = scene.priors(), scene.truth()
    boxes = decode_deltas(
        priors.boxes, torch.from_numpy(scene.deltas()) if not torch.is_tensor(scene.deltas()) else scene.deltas()
    )
    output = Output(Predictions(torch.from_numpy(scene.logits), boxes), priors, ())
    plan = MaxIoU()(output.predictions, priors, truth)
    criterion = DenseCriterion(share="count", quality=None, l1_weight=0.5)
    found = criterion(output, truth, plan)["l1"]
    total = 0.0
    for image, prior in plan.positive.nonzero().tolist():
        stride = float(priors.stride[prior])
        x1, y1, x2, y2 = truth.boxes[image, plan.index[image, prior]].double().tolist()
        a1, b1, a2, b2 = boxes[image, prior].double().tolist()
        expected = [(x1 + x2) / 2 / stride, (y1 + y2) / 2 / stride, log((x2 - x1) / stride), log((y2 - y1) / stride)]
        given = [(a1 + a2) / 2 / stride, (b1 + b2) / 2 / stride, log((a2 - a1) / stride), log((b2 - b1) / stride)]
        total += sum(abs(one - other) for one, other in zip(expected, given, strict=True))
    assert float(found.total) == pytest.approx(0.5 * total, rel=1e-4)
    assert float(found.count) == int(plan.positive.sum()) > 0
    assert "l1" not in DenseCriterion(share="count", quality=None)(output, truth, plan)
