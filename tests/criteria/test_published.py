"""The published criteria: against losses written out one by one, and by what they promise."""

from dataclasses import replace
from operator import itemgetter

import pytest
import torch

from ladle.criteria import DenseCriterion
from ladle.testing import example_scene
from ladle.types import Assignment, GroundTruth, Output, Term
from tests.criteria import naive
from tests.families import DENSE

CRITERIA = {name: one.criterion for name, one in DENSE.items() if name != "autoassign"}
"""AutoAssign has the losses of bags."""
FAMILIES = tuple(CRITERIA)


def case(soft=False):
    """A small scene and a plan with positives in their objects, background, and priors that are ignored."""
    predictions, priors, truth = example_scene(size=(64, 96), objects=3, seed=4)
    generator = torch.Generator().manual_seed(1)
    edges = torch.randn(*predictions.boxes.shape, 17, generator=generator)
    x, y = priors.centers.unsqueeze(2).unbind(-1)
    box = truth.boxes.unsqueeze(1)
    inside = (x > box[..., 0]) & (x < box[..., 2]) & (y > box[..., 1]) & (y < box[..., 3])
    prob = torch.rand(*inside.shape[:2], generator=generator)
    positive, free = inside.any(-1) & (prob > 0.4), prob > 0.2
    plan = Assignment.hard(inside.float().argmax(-1), positive, free)
    if soft:
        plan = replace(plan, affinity=plan.affinity * prob.unsqueeze(-1))
    return Output(replace(predictions, edges=edges), priors, ()), truth, plan


def loss(terms):
    return {name: float(t.total / torch.maximum(t.count, t.floor)) for name, t in terms.items()}


def spelled(output, truth, plan):
    """The scene as plain numbers, a dict per prior."""
    predictions, priors = output.predictions, output.priors
    target, labels = truth.at(plan.index)
    return [
        [
            {
                "logits": predictions.logits[image, p].tolist(),
                "box": predictions.boxes[image, p].tolist(),
                "edges": predictions.edges[image, p].tolist(),
                "quality": float(predictions.quality[image, p]),
                "point": priors.centers[0, p].tolist(),
                "stride": float(priors.stride[p]),
                "target": target[image, p].tolist(),
                "label": int(labels[image, p]),
                "learnt": float(plan.affinity[image, p, 0]),
                "background": float(plan.background[image, p]),
            }
            for p in range(predictions.boxes.shape[1])
        ]
        for image in range(len(predictions.boxes))
    ]


@pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
@pytest.mark.parametrize("family", [name for name in FAMILIES if name != "retinanet"])
def test_every_criterion_is_its_paper_written_out(family, soft):
    output, truth, plan = case(soft)
    assert plan.positive.sum() >= 10
    assert (~plan.positive & (plan.background == 0)).any()
    found = loss(CRITERIA[family](output, truth, plan))
    assert found == pytest.approx(naive.losses(family, spelled(output, truth, plan)), rel=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_terms_add_up_over_images_and_ranks(family):
    output, truth, plan = case()
    plan = replace(plan, affinity=plan.affinity * torch.tensor([1.0, 0.0])[:, None, None])
    whole = CRITERIA[family](output, truth, plan)
    for name, term in whole.items():
        alone = [
            CRITERIA[family](
                replace(output, predictions=output.predictions.map(itemgetter(slice(row, row + 1)))),
                truth.map(itemgetter(slice(row, row + 1))),
                plan.map(itemgetter(slice(row, row + 1))),
            )[name]
            for row in range(2)
        ]
        summed = Term(*(sum(values) for values in zip(*alone, strict=True)))
        torch.testing.assert_close(torch.stack(term), torch.stack(summed))


@pytest.mark.parametrize("family", FAMILIES)
def test_ignored_priors_cost_nothing_and_are_not_pulled(family):
    output, truth, plan = case()
    predictions = output.predictions.map(lambda tensor: tensor.clone().requires_grad_())
    terms = CRITERIA[family](replace(output, predictions=predictions), truth, plan)
    sum(term.total for term in terms.values()).backward()
    ignored = ~plan.positive & (plan.background == 0)
    for leaf in (predictions.logits, predictions.boxes, predictions.quality, predictions.edges):
        assert leaf.grad is None or not leaf.grad[ignored].any()
    assert predictions.logits.grad[plan.positive].any()
    assert predictions.boxes.grad[plan.positive].any()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_batch_without_objects_costs_finite_classes_and_no_boxes(family):
    output, _, _ = case()
    none = GroundTruth.pad([torch.zeros(0, 4)] * 2, [torch.zeros(0, dtype=torch.long)] * 2)
    shape = output.predictions.boxes.shape[:2]
    nothing = torch.zeros(shape, dtype=torch.bool)
    predictions = output.predictions.map(lambda tensor: tensor.clone().requires_grad_())
    plan = Assignment.hard(torch.zeros(shape, dtype=torch.long), nothing, ~nothing)
    terms = CRITERIA[family](replace(output, predictions=predictions), none, plan)
    sum(term.total for term in terms.values()).backward()
    learns = terms["class"].total + (terms["quality"].total if family == "yolox" else 0)
    assert learns > 0
    assert terms["box"].total == 0
    assert terms["class"].count.maximum(terms["class"].floor) == 2
    assert predictions.logits.grad.isfinite().all()
    assert not predictions.boxes.grad.any()


def test_a_score_that_is_its_soft_target_costs_an_aligned_class_nothing():
    output, truth, plan = case(soft=True)
    _, labels = truth.at(plan.index)
    logits = torch.full_like(output.predictions.logits, -40.0)
    at = plan.affinity.clamp(1e-6, 1 - 1e-6).logit()
    logits = torch.where(plan.positive.unsqueeze(-1), logits.scatter(2, labels.unsqueeze(-1), at), logits)
    aligned = replace(output, predictions=replace(output.predictions, logits=logits))
    assert loss(CRITERIA["tood"](aligned, truth, plan))["class"] == pytest.approx(0, abs=1e-6)
    assert loss(CRITERIA["tood"](output, truth, plan))["class"] > 0.1


def test_objectness_is_learnt_at_every_prior_that_counts():
    output, truth, plan = case()
    predictions = output.predictions
    quality = predictions.quality.clone().requires_grad_()
    CRITERIA["yolox"](replace(output, predictions=replace(predictions, quality=quality)), truth, plan)[
        "quality"
    ].total.backward()
    assert (quality.grad[plan.positive] < 0).all()
    assert (quality.grad[plan.background > 0] > 0).all()


def test_a_branch_that_is_not_there_is_refused_in_a_sentence():
    output, truth, plan = case()
    bare = replace(output, predictions=replace(output.predictions, quality=None, edges=None))
    with pytest.raises(ValueError, match="predicts none"):
        CRITERIA["gfl"](bare, truth, plan)
    with pytest.raises(ValueError, match="objectness, but this detector has no quality branch"):
        CRITERIA["yolox"](bare, truth, plan)


def test_a_plan_with_several_objects_a_prior_is_refused():
    output, truth, plan = case()
    double = replace(plan, objects=plan.objects.repeat(1, 1, 2), affinity=plan.affinity.repeat(1, 1, 2))
    with pytest.raises(ValueError, match="gives each prior 2 objects"):
        DenseCriterion()(output, truth, double)


def test_the_default_is_paa():
    assert CRITERIA["paa"] == DenseCriterion()
