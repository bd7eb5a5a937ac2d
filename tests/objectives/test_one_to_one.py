"""A one-to-one head beside the one-to-many head: its assignment, its losses, and what it leaves as it was."""

from dataclasses import replace

import pytest
import torch

from ladle.assigners import PAA, Hungarian, TaskAligned
from ladle.boxes import pairwise_iou
from ladle.criteria import DenseCriterion
from ladle.data.loader import collate
from ladle.data.scenes import CLASSES as SCENE_CLASSES
from ladle.data.scenes import Scenes
from ladle.detectors import DetectorSpec
from ladle.errors import UserError
from ladle.families import Start, detector_spec, lessons_of
from ladle.lessons import Lesson, OneToOne
from ladle.methods import plan_for
from ladle.objectives import CoLearning, TrainingStep
from ladle.recipes.jobs import Job
from ladle.recipes.parts import Parts
from ladle.recipes.setup import resolve
from ladle.teachers import FrozenDetector
from ladle.testing import example_scene
from tests.families import DENSE
from tests.objectives.test_training_step import CLASSES, batch, same

START = Start(norm="group")


def spec_of(name):
    return detector_spec(name, CLASSES, imgsz=96, start=START)


def build(spec, seed=0):
    torch.manual_seed(seed)
    return spec.build()


def total(terms):
    return sum(t.total / torch.maximum(t.count, t.floor).clamp(min=1e-9) for t in terms.values())


def gradients(objective):
    """The terms of one step, and the gradient of each weight that has one."""
    objective.zero_grad()
    terms = objective(batch(0))
    total(terms).backward()
    return terms, {name: one.grad for name, one in objective.student.named_parameters() if one.grad is not None}


def step_of(spec, lessons=None, **options):
    return TrainingStep(build(spec), lessons if lessons is not None else lessons_of(spec), **options)


PLAIN, DUAL = spec_of("tood-tiny"), spec_of("tood+o2o-tiny")


def fading(epoch):
    """The terms of the dual student after so many of 8 epochs."""
    (lesson,) = lessons_of(DUAL)
    assert lesson.within(8).weight_at((8, 1)) == 1, "by default they do not"
    lesson = replace(lesson, one_to_one=replace(lesson.one_to_one, last=0.25))
    step = step_of(DUAL, [lesson.within(8)])
    step.set_time(epoch, 1)
    return {name: (float(term.total.detach()), float(term.count)) for name, term in step(batch(0)).items()}


# ---------------------------------------------------------------------------------------------------------- assignment


@pytest.mark.parametrize("family", DENSE)
def test_an_object_has_at_most_one_prior_and_a_prior_one_object(family):
    (lesson,) = lessons_of(spec_of(f"{family}+o2o-tiny"))
    predictions, priors, truth = example_scene()
    plan = lesson.one_to_one.lesson.assigner(predictions, priors, truth)
    learned = torch.zeros_like(truth.labels).scatter_add(1, plan.index, plan.positive.long())
    assert learned.tolist() == truth.learnable.long().tolist()
    assert plan.objects.shape[-1] == 1


@pytest.mark.parametrize("rule", [TaskAligned(), TaskAligned(alpha=0.5), TaskAligned(beta=2.0, conflict="all")])
def test_the_prior_is_the_one_of_highest_alignment_inside_the_object(rule):
    predictions, priors, truth = example_scene()
    plan = rule.one_to_one(predictions, priors, truth)
    overlap = pairwise_iou(truth.boxes, predictions.boxes)
    score = predictions.scores.transpose(1, 2).gather(1, truth.labels.unsqueeze(-1).expand_as(overlap))
    center = priors.centers
    inside = ((center > truth.boxes[:, :, None, :2]) & (center < truth.boxes[:, :, None, 2:])).all(-1)
    best = (score**rule.alpha * overlap**rule.beta * inside).argmax(-1)
    for image in range(len(best)):
        for number in range(best.shape[1]):
            assert plan.positive[image, best[image, number]]
            assert plan.index[image, best[image, number]] == number


def test_two_objects_at_one_place_do_not_share_a_prior():
    predictions, priors, truth = example_scene()
    boxes, labels = truth.boxes[:, :1].expand(-1, 2, -1), truth.labels[:, :1].expand(-1, 2)
    twins = replace(truth, boxes=boxes, labels=labels, valid=truth.valid[:, :2], crowd=truth.crowd[:, :2])
    assert TaskAligned().one_to_one(predictions, priors, twins).positive.sum(1).tolist() == [1, 1]


def test_the_match_has_the_metric_of_the_one_to_many_assigner():
    def rule(name, assigner=None):
        return lessons_of(spec_of(name), assigner)[0].one_to_one.lesson.assigner

    assert rule("tood+o2o-tiny") == TaskAligned(topk=1, inside="before")
    assert rule("paa+o2o-tiny", TaskAligned(beta=4.0)) == TaskAligned(topk=1, beta=4.0, inside="before")
    assert rule("paa+o2o-tiny") == rule("fcos+o2o-tiny", Hungarian()) == TaskAligned(topk=1, alpha=0.5, inside="before")


# -------------------------------------------------------------------------------------------------------------- losses


def detached(spec):
    """The lessons of a spec with the feature maps of its one-to-one head detached."""
    return [replace(lesson, one_to_one=replace(lesson.one_to_one, detached=True)) for lesson in lessons_of(spec)]


def same_student(name, lessons_of=lessons_of):
    """The steps of a student with a one-to-one head and of the same without it, with the same weights."""
    dual, plain = spec_of(name.replace("-", "+o2o-")), step_of(spec_of(name))
    dual = step_of(dual, lessons_of(dual))
    with torch.no_grad():
        for one, weight in plain.student.named_parameters():
            weight.copy_(dual.student.get_parameter(one))
    return dual, plain


@pytest.mark.parametrize("name", ["tood-tiny", "autoassign-tiny"])
def test_detached_it_leaves_the_other_weights_the_gradients_of_a_student_without_it(name):
    dual, plain = same_student(name, detached)
    terms, found = gradients(dual)
    alone, expected = gradients(plain)
    assert same(expected, found)
    assert {name.split(".")[0] for name in found.keys() - expected.keys()} == {"one_to_one"}
    assert {name for name in terms if "/" not in name} == alone.keys()
    assert found.keys() >= {name for name, _ in dual.student.one_to_one.named_parameters(prefix="one_to_one")}
    assert dual.monitor["one_to_one/positives_per_object"] == 1


def test_it_trains_backbone_and_neck_but_not_the_other_head():
    dual, plain = same_student("tood-tiny")
    (_, found), (_, expected) = gradients(dual), gradients(plain)
    shared = [name for name in expected if name.split(".")[0] in ("backbone", "neck")]
    assert len(shared) > 10
    assert all(not torch.equal(found[name], expected[name]) for name in shared if expected[name].any())
    heads = expected.keys() - set(shared)
    assert heads
    assert same({name: expected[name] for name in heads}, found)


def test_losses_on_ground_truth_of_the_one_to_many_head_can_fall():
    first, middle, last = (fading(epoch) for epoch in (0, 4, 8))
    assert first.keys() == {"class", "box", "one_to_one/class", "one_to_one/box"}
    for name, (value, count) in first.items():
        of_many = "/" not in name
        assert middle[name] == (pytest.approx(value * (0.625 if of_many else 1)), count)
        assert last[name] == (pytest.approx(value * (0.25 if of_many else 1)), count)


def test_the_weight_depends_on_the_time_alone_and_is_1_outside_of_a_run():
    one = OneToOne(Lesson(TaskAligned().one_to_one, DenseCriterion()), last=0.5)
    assert one.weight_of_many(None) == one.weight_of_many((100, 5)) == 1
    lesson = Lesson(TaskAligned(), DenseCriterion(), one_to_one=one).within(10, closing=3)
    assert (lesson.closes, lesson.one_to_one.lesson.closes) == (7, 7)
    assert [lesson.weight_at((epoch, 0)) for epoch in (0, 2.5, 10, 12)] == [1, 0.875, 0.5, 0.5]
    with pytest.raises(ValueError, match="set_time"):
        lesson.weight_at(None)


def test_a_run_tells_the_lesson_its_epochs():
    job = Job("train", "scenes", "tood+o2o-tiny")
    plan = resolve(job, Parts(), CLASSES, (1, 2, 3)).plans["student"]
    assert plan.lessons[0].one_to_one.epochs == job.run.epochs == 12


def test_a_teacher_judges_the_one_to_many_head_only():
    teacher = FrozenDetector(build(spec_of("tood-mini"), seed=3), CLASSES)
    plan = plan_for("lad+pkd", DUAL, teacher.detector.spec)
    assert plan.lessons[0].judge is not None
    assert plan.lessons[0].one_to_one.lesson.judge is None
    taught, alone = step_of(DUAL, plan.lessons, teacher=teacher), step_of(DUAL)
    taught.set_time(0, 0)
    terms, plain = taught(batch(0)), alone(batch(0))
    assert taught.distilled == set(plan.teaches) == {"pkd"}
    assert not torch.equal(terms["class"].total, plain["class"].total)
    for name in ("one_to_one/class", "one_to_one/box"):
        assert torch.equal(terms[name].total, plain[name].total)


def test_as_a_teacher_it_gives_what_the_one_to_many_head_predicts():
    teacher = FrozenDetector(build(DUAL), CLASSES)
    seen = teacher.observe(batch(0))
    priors = teacher.detector.chain[0].propose(seen.features, None, None, seen.sizes)
    expected, _ = teacher.detector.stages[0](seen.features, priors)
    assert torch.equal(teacher.predict_at(seen, priors).predictions.logits, expected.logits)


def found_of(detections, truth):
    """How many objects are found, and how many further detections they have."""
    hits = more = 0
    for one, boxes, valid in zip(detections, truth.boxes, truth.valid, strict=True):
        overlap, number = pairwise_iou(one.boxes[one.scores > 0.3], boxes[valid]).max(1)
        seen = number[overlap > 0.5]
        hits += seen.unique().numel()
        more += seen.numel() - seen.unique().numel()
    return hits, more


@pytest.mark.slow
def test_the_head_learns_to_find_each_object_once():
    scenes = collate([Scenes(2, seed=1, size=96).sample(number) for number in range(2)])
    spec = detector_spec("rtmdet+o2o-tiny", SCENE_CLASSES, imgsz=96)
    student = build(spec).train()
    step, optimizer = TrainingStep(student, lessons_of(spec)), torch.optim.AdamW(student.parameters(), 0.003)
    for _ in range(100):
        optimizer.zero_grad()
        total(step(scenes)).backward()
        optimizer.step()
    student.eval()
    hits, more = found_of(student.detect(scenes), scenes.truth)
    assert hits > 0.5 * scenes.truth.valid.sum()
    assert more <= 1
    with torch.no_grad():
        (of_many,) = student(scenes.images, scenes.sizes)
    several = found_of(spec.inference.find(of_many, scenes.sizes, scenes.sizes), scenes.truth)
    assert several[1] > several[0] > 0, "the other head needs suppression"


# ------------------------------------------------------------------------------------------------------------- refusals


def test_a_head_without_a_lesson_and_a_lesson_without_a_head_are_refused():
    with pytest.raises(ValueError, match="a one-to-one head, and no lesson for it"):
        step_of(DUAL, lessons_of(PLAIN))
    with pytest.raises(ValueError, match="no one-to-one head, and a lesson for it"):
        step_of(PLAIN, lessons_of(DUAL))


def test_two_students_learn_together_without_it():
    job = Job("colearn", "scenes", "paa+o2o-tiny", second="paa-mini")
    with pytest.raises(UserError, match=r"paa\+o2o-tiny: .* leave \+o2o out"):
        resolve(job, Parts(), CLASSES, (1, 2, 3))
    (lesson,) = lessons_of(spec_of("paa+o2o-tiny"), PAA())
    with pytest.raises(ValueError, match="no one-to-one heads"):
        CoLearning(build(spec_of("paa+o2o-tiny")), build(spec_of("paa-tiny")), [(lesson, lesson)])


def test_detectors_in_stages_have_none():
    with pytest.raises(UserError, match="o2o is for dense heads"):
        spec_of("fasterrcnn+o2o-tiny")
    two_stage = spec_of("fasterrcnn-tiny")
    with pytest.raises(ValueError, match="a one-to-one head beside a ProposalSpec"):
        replace(two_stage, one_to_one=True)


def test_files_of_before_have_no_such_head():
    text = PLAIN.to_json().replace(', "one_to_one": false', "")
    assert "one_to_one" not in text
    assert DetectorSpec.from_json(text) == PLAIN
    assert DetectorSpec.from_json(DUAL.to_json()) == DUAL
    assert DUAL.inference.nms is None
