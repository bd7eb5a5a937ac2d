"""Ladle's detectors teach students with other strides, anchors and families."""

import pytest
import torch

from ladle.assigners import PAA
from ladle.families import detector_spec, lessons_of, network_info
from ladle.methods import LAD, plan_of
from ladle.methods.words import method_of_words, pair_of
from ladle.networks import prior_mismatches
from ladle.objectives import TrainingStep
from ladle.teachers import FrozenDetector, MovedTeacher, Teacher, moved_info
from ladle.types import Batch, GroundTruth

NAMES = ("cat", "dog", "emu")


@pytest.fixture(scope="module")
def batch():
    images = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    truth = GroundTruth.pad(
        [torch.tensor([[8.0, 8.0, 40.0, 48.0]]), torch.tensor([[16.0, 4.0, 60.0, 60.0]])],
        [torch.tensor([1]), torch.tensor([0])],
    )
    sizes = torch.tensor([[64, 96]] * 2)
    return Batch(images, truth, sizes, sizes, (1, 2))


def frozen(name, classes=NAMES):
    torch.manual_seed(0)
    return FrozenDetector(detector_spec(name, NAMES).build(), classes)


@pytest.mark.parametrize("name", ["paa-tiny", "gfl-tiny", "retinanet-tiny"])
def test_at_equal_priors_moving_changes_nothing(batch, name):
    teacher = frozen(name, ("emu", "cat"))
    moved = MovedTeacher(teacher)
    priors = teacher.detector.chain[0].propose(teacher.observe(batch).features, None, None, batch.sizes)
    wanted = teacher.predict_at(teacher.observe(batch), priors).predictions
    found = moved.predict_at(moved.observe(batch), priors).predictions
    assert torch.equal(found.logits, wanted.logits)
    assert torch.equal(found.boxes, wanted.boxes)
    assert (found.quality is None) == (wanted.quality is None)
    assert wanted.quality is None or torch.equal(found.quality, wanted.quality)
    if wanted.edges is not None:
        assert torch.allclose(found.edges.softmax(-1), wanted.edges.softmax(-1), atol=1e-6)
    assert isinstance(moved, Teacher)


@pytest.mark.parametrize(
    ("student", "teacher"),
    [
        ("paa-r18", "fcos-tiny"),
        ("gfl-tiny", "retinanet-tiny"),
        ("paa-tiny", "fasterrcnn-tiny"),
        ("fasterrcnn-tiny", "fcos-tiny"),
    ],
)
def test_lad_and_soft_labels_work_across_families_strides_and_stages(batch, student, teacher):
    spec, guide = (detector_spec(name, NAMES, imgsz=64) for name in (student, teacher))
    pair = pair_of(spec, guide)
    assert prior_mismatches(pair.student, pair.teacher)
    plan = plan_of(method_of_words("solad"), lessons_of(spec), pair._replace(teacher=moved_info(pair.teacher)))
    step = TrainingStep(spec.build(), plan.lessons, MovedTeacher(FrozenDetector(guide.build(), NAMES)))
    terms = step(batch)
    assert all(bool(torch.isfinite(term.total)) for term in terms.values())
    assert sum(term.total for name, term in terms.items() if name.endswith("soft_class")) > 0


def test_a_two_stage_teacher_s_detections_are_expressed_at_some_prior(batch):
    teacher = MovedTeacher(frozen("fasterrcnn-tiny"))
    seen = teacher.observe(batch)
    student = detector_spec("fcos-tiny", NAMES).build()
    priors = student.chain[0].propose(student.extract_features(batch.images), None, None, batch.sizes)
    predictions = teacher.predict_at(seen, priors).predictions
    best = seen.found.logits.sigmoid().amax((1, 2))
    assert torch.allclose(predictions.scores.amax((1, 2)), best, atol=1e-5)


def test_an_assigner_judged_by_a_moved_teacher_uses_its_predictions(batch):
    spec, guide = detector_spec("paa-tiny", NAMES), frozen("fcos-tiny")
    info = moved_info(guide.info)
    plan = plan_of(method_of_words("lad"), lessons_of(spec), pair_of(spec, info))
    assert plan.aligned
    assert isinstance(plan.lessons[0].assigner, PAA)
    student = spec.build()
    priors = student.chain[0].propose(student.extract_features(batch.images), None, None, batch.sizes)
    teacher = MovedTeacher(guide)
    judged = PAA()(teacher.predict_at(teacher.observe(batch), priors).predictions, priors, batch.truth)
    assert bool(judged.positive.any())


def test_the_description_of_a_moved_teacher():
    info = moved_info(network_info(detector_spec("gfl-small", NAMES)))
    assert (info.stage(0).bins, info.stage(0).tower_depth, info.stage(0).priors) == (17, 0, None)
    two = moved_info(network_info(detector_spec("cascade-tiny", NAMES)))
    assert [stage.classes for stage in two.stages] == [3, 3, 3, 3]
    assert LAD().stages == "all"
