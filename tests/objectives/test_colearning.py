"""Two students that learn together."""

from dataclasses import replace

import pytest
import torch

from ladle.assigners import ATSS, PAA, CostSelector
from ladle.criteria import DenseCriterion
from ladle.distillers import PKD, CrossKD, SoftLabels
from ladle.families import Start, detector_spec
from ladle.lessons import Lesson
from ladle.objectives import CoLearning, TrainingStep
from ladle.types import GroundTruth
from tests.objectives.test_training_step import CLASSES, batch, build, same

LESSON = Lesson(PAA(), DenseCriterion(share="count"))


def cop(seed):
    torch.manual_seed(seed)
    return detector_spec("paa+cop-mini", CLASSES, start=Start(norm="group")).build()


def pair(first=None, second=None, lesson=LESSON, **kwargs):
    return CoLearning(first or build(0), second or build(1), [(lesson, lesson)], **kwargs)


def step(objective, number=0):
    terms = objective(batch(number))
    loss = sum(t.total / torch.maximum(t.count, t.floor).clamp(min=1e-9) for t in terms.values())
    loss.backward()
    return terms


def test_both_pay_their_own_losses_on_one_plan():
    objective = pair(second=cop(1))
    terms = step(objective)
    assert set(terms) == {f"{who}/{term}" for who in ("first", "second") for term in ("class", "box", "quality")}
    assert terms["first/box"].count == terms["second/box"].count > 0
    for student in objective.students.values():
        assert all(p.grad is not None and p.grad.isfinite().all() for p in student.parameters())


def test_the_plan_is_that_of_the_surer_one_for_each_object_and_level():
    objective = pair()
    first, second = (net(batch(0).images, batch(0).sizes)[0] for net in objective.students.values())
    truth = batch(0).truth
    plan, selection = objective._decide(LESSON, first, second, batch(0))
    evidence = [PAA().weigh(one.predictions, first.priors, truth) for one in (first, second)]
    expected = PAA().select(CostSelector()(*evidence, first.priors, truth).evidence, first.priors, truth)
    assert torch.equal(plan.affinity, expected.affinity)
    assert 0 < int(selection.second.sum()) < int(selection.decided.sum())


def test_two_of_the_same_weights_train_as_one_alone():
    """A tie goes to the second, whose costs are the first's: both do what plain training with LAD's losses does."""
    alone = TrainingStep(build(0), [LESSON])
    terms = alone(batch(0))
    sum(t.total / torch.maximum(t.count, t.floor).clamp(min=1e-9) for t in terms.values()).backward()
    objective = pair(second=build(0))
    step(objective)
    for student in objective.students.values():
        for mine, theirs in zip(student.parameters(), alone.student.parameters()):
            assert torch.equal(mine.grad, theirs.grad)


def test_the_share_of_decisions_is_logged_for_each_level():
    objective = pair()
    step(objective)
    shares = [objective.monitor[f"second_judges/level_{n}"] for n in (1, 2, 3)]
    assert all(torch.isnan(share) or 0 <= share <= 1 for share in shares)
    assert any(share > 0 for share in shares)
    assert float(objective.monitor["positives_per_object"]) > 0


def test_each_may_imitate_the_other_and_pulls_it_nowhere():
    soft = replace(LESSON, distillers=(SoftLabels(), PKD()))
    objective = pair(lesson=Lesson(PAA(), None, soft.distillers))
    terms = objective(batch(0))
    assert objective.distilled == set(terms)
    sum(term.total for name, term in terms.items() if name.startswith("first/")).backward()
    first, second = objective.students.values()
    assert any(p.grad is not None and p.grad.any() for p in first.parameters())
    assert not any(p.grad is not None and p.grad.any() for p in second.parameters())


def test_images_without_objects_train_both_on_background():
    """The released code stops here."""
    objective = pair()
    full = batch(0)
    for truth in (
        GroundTruth.pad([torch.zeros(0, 4)] * 2, [torch.zeros(0, dtype=torch.long)] * 2),
        replace(full.truth, valid=torch.zeros_like(full.truth.valid)),
    ):
        terms = objective(replace(full, truth=truth))
        assert all(term.total.isfinite() for term in terms.values())
        assert terms["first/class"].total > 0
        assert terms["second/box"].total == 0


def test_students_may_be_of_different_size():
    objective = pair(first=build(0), second=cop(0))
    before = {name: {k: v.clone() for k, v in net.state_dict().items()} for name, net in objective.students.items()}
    optimizer = torch.optim.SGD(objective.parameters(), lr=0.01)
    step(objective)
    optimizer.step()
    assert not any(same(before[name], net.state_dict()) for name, net in objective.students.items())


def test_what_cannot_work_is_refused_in_a_sentence():
    with pytest.raises(ValueError, match="returns its costs"):
        pair(lesson=Lesson(ATSS(), DenseCriterion()))
    with pytest.raises(ValueError, match="same assigner"):
        CoLearning(build(0), build(1), [(LESSON, Lesson(PAA(topk=5), DenseCriterion()))])
    with pytest.raises(ValueError, match="leave out CrossKD"):
        pair(lesson=replace(LESSON, distillers=(CrossKD(),)))


def test_the_closing_epochs_have_the_closing_losses():
    closing = replace(LESSON, closing=DenseCriterion(share="count", l1_weight=1.0)).within(epochs=4, closing=2)
    objective = pair(lesson=closing)
    found = []
    for epoch in (1.5, 3.5):
        objective.set_time(epoch, 1)
        found.append({name for name in objective(batch(0)) if name.endswith("/l1")})
    assert found == [set(), {"first/l1", "second/l1"}]
