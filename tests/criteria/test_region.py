"""The losses of two stages, against loops; tests of detectors compare them with torchvision's end to end."""

import pytest
import torch
import torch.nn.functional as F

from ladle.boxes import encode_deltas, giou
from ladle.criteria import RegionCriterion
from ladle.testing import example_scene
from ladle.types import Assignment, Output, Predictions


def case(exclusive=True, each=True, classes=5):
    predictions, priors, truth = example_scene(size=(64, 96), objects=3, classes=classes)
    generator = torch.Generator().manual_seed(1)
    count = predictions.boxes.shape[1]
    positive = torch.rand(2, count, generator=generator) < 0.2
    background = torch.rand(2, count, generator=generator) < 0.5
    plan = Assignment.hard(torch.randint(3, (2, count), generator=generator), positive, background)
    every = predictions.boxes.unsqueeze(2) + torch.rand(2, count, classes, 4, generator=generator) * torch.tensor(
        [-4.0, -4, 4, 4]
    )
    predictions = Predictions(
        predictions.logits, predictions.boxes, class_boxes=every if each else None, exclusive=exclusive
    )
    return Output(predictions, priors, ()), truth, plan


@pytest.mark.parametrize("each", [True, False], ids=["a box for each class", "one for all"])
@pytest.mark.parametrize("box", ["smooth_l1", "giou"])
def test_region_losses_are_their_formulas_written_out(box, each):
    output, truth, plan = case(each=each)
    stds = (0.05, 0.1)
    terms = RegionCriterion(box, box_weight=2.0, beta=0.3, stds=stds, weight=0.5)(output, truth, plan)
    predictions, sampled, classes, boxes = output.predictions, 0, 0.0, 0.0
    for b, p in (plan.positive | (plan.background > 0)).nonzero().tolist():
        sampled += 1
        logits = torch.cat([predictions.logits[b, p], torch.zeros(1)])
        label = truth.labels[b, plan.index[b, p]] if plan.positive[b, p] else torch.tensor(5)
        classes += float(F.cross_entropy(logits, label))
        if plan.positive[b, p]:
            target = truth.boxes[b, plan.index[b, p]]
            found = predictions.class_boxes[b, p, label] if each else predictions.boxes[b, p]
            if box == "giou":
                boxes += 1 - float(giou(found, target))
            else:
                deltas = [encode_deltas(output.priors.boxes[0, p], one, stds) for one in (found, target)]
                boxes += float(F.smooth_l1_loss(*deltas, beta=0.3, reduction="sum"))
    assert float(terms["class"].count) == float(terms["box"].count) == sampled
    assert float(terms["class"].total) == pytest.approx(0.5 * classes, rel=1e-4)
    assert float(terms["box"].total) == pytest.approx(0.5 * 2 * boxes, rel=1e-4)


def test_objectness_has_a_sigmoid_of_its_own():
    output, truth, plan = case(exclusive=False, classes=1)
    truth = truth.map(lambda tensor: tensor)
    total = float(RegionCriterion()(output, truth, plan)["class"].total)
    counted = plan.positive | (plan.background > 0)
    logits = output.predictions.logits[..., 0][counted]
    expected = F.binary_cross_entropy_with_logits(logits, plan.positive[counted].float(), reduction="sum")
    assert total == pytest.approx(float(expected), rel=1e-4)


def test_ignored_priors_have_no_gradient_and_nothing_is_divided_by_zero():
    output, truth, plan = case()
    leaf = output.predictions.logits.clone().requires_grad_()
    predictions = Predictions(leaf, output.predictions.boxes, exclusive=True)
    terms = RegionCriterion()(Output(predictions, output.priors, ()), truth, plan)
    sum(term.total for term in terms.values()).backward()
    ignored = ~plan.positive & (plan.background == 0)
    assert not leaf.grad[ignored].any()
    none = Assignment.hard(plan.index, torch.zeros_like(plan.positive), torch.zeros_like(plan.positive))
    terms = RegionCriterion()(output, truth, none)
    assert all(float(term.total) == float(term.count) == 0 for term in terms.values())
