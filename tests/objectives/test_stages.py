"""A teacher judges proposals and regions; the identities that make that trustworthy."""

from dataclasses import dataclass, field, replace

import pytest
import torch
import torch.nn.functional as F

from ladle.assigners import PAA, MaxIoU, TaskAligned
from ladle.boxes import pairwise_iou
from ladle.distillers import PKD, SoftLabels
from ladle.families import Start, detector_spec, lessons_of
from ladle.lessons import Scheduled, TeacherJudges
from ladle.methods import LAD, Method, plan_for
from ladle.objectives import TrainingStep
from ladle.objectives.training_step import _independent, _with_ground_truth
from ladle.teachers import FrozenDetector
from ladle.types import GroundTruth, Output, Predictions
from tests.objectives.test_training_step import CLASSES, Mirror, batch, same

METRICS = ("positives_per_object", "unassigned", "unassigned_small", "unassigned_medium", "unassigned_large")

SPECS = {name: detector_spec(f"{name}-tiny", CLASSES, start=Start(norm="group")) for name in ("fasterrcnn", "cascade")}


def build(seed, name="fasterrcnn"):
    torch.manual_seed(seed)
    return SPECS[name].build()


def lots(seed=7):
    return torch.Generator().manual_seed(seed)


def staged(student, method="plain", teacher=None, name="fasterrcnn", **changes):
    method = method if isinstance(method, str) else Method((method,))
    plan = plan_for(method, SPECS[name], teacher.detector.spec if teacher else None)
    lessons = tuple(replace(lesson, **changes) for lesson in plan.lessons)
    return TrainingStep(student, lessons, teacher, lots())


STAGES = {"lad": "all", "lad-rpn": "rpn", "lad-roi": "roi"}


@dataclass(frozen=True)
class Recording:
    """An assigner that keeps what it returns."""

    inner: object
    kept: list = field(default_factory=list, compare=False)
    boxes: str = "priors"

    def judged_by_teacher(self, keep_count, class_power, ignore_rejected):
        return replace(self, inner=self.inner.judged_by_teacher(keep_count, class_power, ignore_rejected))

    def __call__(self, predictions, priors, truth):
        self.kept.append((predictions, priors, truth, self.inner(predictions, priors, truth)))
        return self.kept[-1][-1]


def recorded(objective):
    """The same objective with recording assigners and without samples, and what they keep."""
    lessons = [replace(one, assigner=Recording(one.assigner), sampler=None) for one in objective.lessons]
    objective.lessons = tuple(lessons)
    return objective, [one.assigner.kept for one in lessons]


def train(objective, steps=2):
    optimizer = torch.optim.SGD(objective.parameters(), lr=0.01, momentum=0.9)
    for step in range(steps):
        terms = objective(batch(step))
        loss = sum(t.total / torch.maximum(t.count, t.floor).clamp(min=1e-9) for t in terms.values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return objective.student.state_dict()


class Scripted(FrozenDetector):
    """A teacher whose boxes are the priors themselves: it refines nothing."""

    def predict_at(self, seen, priors, *rest):
        output = super().predict_at(seen, priors, *rest)
        boxes = priors.boxes.expand(len(seen.features[0]), -1, -1)
        return replace(output, predictions=replace(output.predictions, boxes=boxes))


@pytest.mark.slow
@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("keep_count", [True, False])
@pytest.mark.parametrize("method", ["lad", "lad-rpn", "lad-roi"])
def test_a_teacher_that_refines_nothing_gives_the_anchor_rule(name, method, keep_count):
    plain = train(staged(build(0, name), name=name))
    teacher = Scripted(build(1, name), CLASSES)
    judged = staged(build(0, name), LAD(STAGES[method], keep_count, class_power=0.0), teacher, name)
    assert same(plain, train(judged))


@pytest.mark.parametrize("assigner", [PAA(), TaskAligned(), MaxIoU(0.5, 0.4, boxes="predictions")], ids=repr)
@pytest.mark.parametrize("stages", [*(pytest.param(one, marks=pytest.mark.slow) for one in ("rpn", "roi")), "all"])
def test_a_teacher_that_is_the_student_gives_the_assignment_of_the_student(assigner, stages):
    """For assigners that use predictions, bit for bit, in both stages."""
    lessons = tuple(replace(one, assigner=assigner) for one in lessons_of(SPECS["fasterrcnn"]))
    plain = train(TrainingStep(build(0), lessons, generator=lots()))
    student = build(0)
    # An overlap rule keeps its own fields: the form with predicted boxes is given as it is.
    judge = TeacherJudges() if not isinstance(assigner, MaxIoU) else Unchanged()
    judged = [
        replace(one, judge=judge if stages in ("all", name) else None) for one, name in zip(lessons, ("rpn", "roi"))
    ]
    assert same(plain, train(TrainingStep(student, judged, Mirror(student), lots())))


class Unchanged(TeacherJudges):
    """A judge under which an assigner stays as it is."""

    def assigner(self, plain):
        return plain


@pytest.mark.parametrize("method", ["lad", "lad-rpn", "lad-roi"])
def test_another_teacher_judges_differently_in_its_stages(method):
    teacher, student = FrozenDetector(build(1), CLASSES), build(0)
    plain, own = recorded(staged(student))
    judged, theirs = recorded(staged(student, LAD(STAGES[method], keep_count=False), teacher))
    for objective in (plain, judged):
        objective(batch(0))
    for stage, one, other in zip(("rpn", "roi"), own, theirs, strict=True):
        differs = not torch.equal(one[0][-1].affinity, other[0][-1].affinity)
        assert differs == (method in ("lad", f"lad-{stage}"))


@pytest.mark.parametrize("power", [0.0, None], ids=["by-box", "by-box-and-class"])
def test_ground_truth_among_proposals_is_judged_as_itself(power):
    """However badly a teacher refines and scores it, it learns the object it is, unless the sample leaves it out."""

    class Blind(FrozenDetector):
        def predict_at(self, seen, priors, *rest):
            output = super().predict_at(seen, priors, *rest)
            nowhere = torch.zeros_like(output.predictions.boxes)
            nothing = torch.full_like(output.predictions.logits, -20.0)
            return replace(output, predictions=replace(output.predictions, boxes=nowhere, logits=nothing))

    lad = LAD("roi", keep_count=False, class_power=power)
    objective = staged(build(0), lad, Blind(build(1), CLASSES))
    terms = objective(batch(0))
    assert terms["roi/box"].total > 0
    assert float(objective.monitor["roi/positives_per_object"]) >= 1


def test_in_a_region_head_the_teacher_chooses_by_box_and_class_and_the_rest_of_the_rule_is_ignored():
    """Each proposal is of one fate, counted by hand in float64."""
    student, network = build(0), build(1)
    with torch.no_grad():
        network.stages[1].box_deltas.weight.mul_(30)  # an untrained head moves boxes by next to nothing
    teacher = FrozenDetector(network, CLASSES)
    judge = staged(student, "lad-roi", teacher)
    one = batch(0)
    features, seen = student.extract_features(one.images), teacher.observe(one)
    anchors = student.chain[0].propose(features, None, None, one.sizes)
    proposed = Output(student.chain[0](features, anchors)[0], anchors, features, one.sizes)
    priors = student.chain[1].propose(features, proposed.detach(), one.truth, one.sizes)
    # Ten proposals near each of the four objects: an untrained student proposes next to none.
    near = one.truth.boxes.repeat(1, 10, 1) + torch.randn(2, 40, 4, generator=lots()) * 3
    priors = replace(priors, boxes=torch.cat([near, priors.boxes[:, 40:]], 1))
    predicted = teacher.predict_at(seen, priors, 1).predictions
    rule = judge.lessons[1].assigner_at(None)
    plan = rule(_with_ground_truth(_independent(predicted), priors, one.truth), priors, one.truth)
    fates = {"learns": 0, "spared": 0}
    probs = F.pad(predicted.logits.double(), (0, 1)).softmax(-1)[..., :-1]
    for row in range(2):
        boxes, proposals, objects = (
            predicted.boxes[row].double(),
            priors.boxes[row].double(),
            one.truth.boxes[row].double(),
        )
        own = pairwise_iou(proposals, objects)
        trusted = pairwise_iou(boxes, objects) * probs[row][:, one.truth.labels[row]]
        count = len(objects)
        trusted[-count:] = own[-count:] * torch.eye(count)  # ground truth, judged as itself
        best, mine = own.max(-1)
        for number in range(count):
            wanted = int(((mine == number) & (best >= 0.5) & priors.valid[row]).sum())
            theirs = (trusted.argmax(-1) == number) & (trusted.max(-1).values > 0) & priors.valid[row]
            order = trusted[:, number].masked_fill(~theirs, -1).argsort(descending=True, stable=True)[:wanted]
            chosen = [int(p) for p in order if theirs[p]]
            learns = (plan.positive[row] & (plan.index[row] == number)).nonzero()[:, 0].tolist()
            assert sorted(chosen) == sorted(learns)
            fates["learns"] += len(chosen)
        down = (best >= 0.5) & priors.valid[row] & ~plan.positive[row]
        assert not plan.background[row][down].any()
        rest = priors.valid[row] & ~down & ~plan.positive[row]
        assert plan.background[row][rest].all()
        fates["spared"] += int(down.sum())
    assert all(fates.values())


def test_after_its_time_the_student_judges_itself():
    teacher = FrozenDetector(build(1), CLASSES)
    objective = staged(build(0), LAD(until=1.0), teacher)
    with pytest.raises(ValueError, match=r"objective\.set_time\(epoch, step\)"):
        objective(batch(0))
    objective.set_time(1.5, 1)
    terms, plain = objective(batch(0)), staged(build(0))(batch(0))
    assert {name: float(t.total.detach()) for name, t in terms.items()} == {
        name: float(t.total.detach()) for name, t in plain.items()
    }


def test_losses_and_positives_are_told_stage_by_stage():
    objective = staged(build(0, "cascade"), name="cascade")
    names = {name.partition("/")[0] for name in objective(batch(0))}
    assert names == {"rpn", "roi_1", "roi_2", "roi_3"}
    assert set(objective.monitor) == {f"{name}/{metric}" for name in names for metric in METRICS}


def test_regions_learn_from_a_sample():
    terms = staged(build(0))(batch(0))
    assert float(terms["rpn/class"].count) <= 2 * 256
    assert float(terms["roi/class"].count) <= 2 * 128


def test_distillers_add_to_a_judge():
    teacher = FrozenDetector(build(1), CLASSES)
    plan = plan_for("lad+soft+pkd", SPECS["fasterrcnn"], SPECS["fasterrcnn"])
    objective = TrainingStep(build(0), plan.lessons, teacher)
    terms = objective(batch(0))
    assert objective.distilled == set(plan.teaches) == {
        "rpn/soft_class", "rpn/soft_box", "roi/soft_class", "roi/soft_box", "rpn/pkd",
    }  # fmt: skip
    assert all(float(terms[name].total.detach()) > 0 for name in plan.teaches)
    assert plan.lessons[0].distillers == (SoftLabels(), PKD())


def test_weight_nought_is_exactly_plain_training():
    teacher = FrozenDetector(build(1), CLASSES)
    lessons = lessons_of(SPECS["fasterrcnn"])
    nothing = (replace(lessons[0], distillers=(Scheduled(PKD(), weight=0.0),)), lessons[1])
    plain = train(TrainingStep(build(0), lessons, generator=lots()))
    assert same(plain, train(TrainingStep(build(0), nothing, teacher, generator=lots())))


def test_a_teacher_in_one_stage_judges_proposals_where_priors_agree():
    """A dense detector says how likely any object is, where a proposal network says how likely one is."""
    torch.manual_seed(1)
    dense = FrozenDetector(detector_spec("atss-tiny", CLASSES, start=Start(norm="group")).build(), CLASSES)
    plan = plan_for("lad-rpn+soft", SPECS["fasterrcnn"], dense.detector.spec)
    assert [lesson.judge is not None for lesson in plan.lessons] == [True, False]
    assert plan.skipped[-1] == "soft in roi: the teacher has one stage"
    objective = TrainingStep(build(0), plan.lessons, dense)
    terms = objective(batch(0))
    assert {"rpn/soft_class", "rpn/soft_box"} <= set(terms)
    seen = dense.observe(batch(0))
    anchors = build(0).chain[0].propose(seen.features, None, None, None)
    assert dense.predict_at(seen, anchors, 0, class_agnostic=True).predictions.logits.shape[-1] == 1


def test_a_faster_rcnn_judges_every_look_of_a_cascade():
    teacher = FrozenDetector(build(1), CLASSES)
    plan = plan_for("lad", SPECS["cascade"], SPECS["fasterrcnn"])
    terms = TrainingStep(build(0, "cascade"), plan.lessons, teacher)(batch(0))
    assert all(term.total.isfinite() for term in terms.values())


@pytest.mark.parametrize("name", SPECS)
def test_images_without_objects_train_on_background(name):
    full = batch(0)
    for truth in (
        GroundTruth.pad([torch.zeros(0, 4)] * 2, [torch.zeros(0, dtype=torch.long)] * 2),
        replace(full.truth, valid=torch.zeros_like(full.truth.valid)),
    ):
        terms = staged(build(0, name), name=name)(replace(full, truth=truth))
        assert all(term.total.isfinite() for term in terms.values())
        assert terms["rpn/class"].total > 0
        assert terms["rpn/box"].total == 0


def test_a_teacher_that_knows_more_classes_has_them_count_as_background():
    torch.manual_seed(3)
    wide = detector_spec("fasterrcnn-tiny", ("unicorn", *reversed(CLASSES))).build().eval()
    teacher = FrozenDetector(wide, CLASSES)
    predicted = wide(batch(0).images, batch(0).sizes)[1].predictions
    seen = teacher.reorder(predicted)
    probs = predicted.scores
    torch.testing.assert_close(seen.scores, probs.flip(-1)[..., : len(CLASSES)])
    assert isinstance(seen, Predictions)
    torch.testing.assert_close(seen.class_boxes, predicted.class_boxes.flip(2)[:, :, : len(CLASSES)])


def test_a_later_region_head_gets_each_object_once():
    """Ground-truth boxes are appended to the proposals of each stage; refined ones of the stage before are dropped."""
    student, images = build(0, "cascade"), batch(0)
    step = staged(student, name="cascade")
    seen = []
    for stage in student.chain[2:]:
        stage.register_forward_pre_hook(lambda stage, arguments: seen.append(arguments[1]))
        plain = stage.propose

        def propose(features, previous, truth, sizes, plain=plain):
            proposed = plain(features, previous, truth, sizes)
            before = previous.priors
            exact = (before.boxes.unsqueeze(2) == truth.boxes.unsqueeze(1)).all(-1).any(-1) & before.valid
            real = proposed.valid[:, : before.boxes.shape[1]]
            seen.append((int(exact.sum()), int((real & exact).sum()), int((real & ~exact).sum())))
            return proposed

        stage.propose = propose
    step.set_time(0.1, 1)
    step(images)
    counts = [one for one in seen if isinstance(one, tuple)]
    assert len(counts) == len(student.chain) - 2
    for exact, kept, others in counts:
        assert exact > 0
        assert kept == 0
        assert others > 0
