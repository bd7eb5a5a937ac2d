"""Unsuitable teachers and image sizes are errors before the first step; teachers with other priors are moved."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from ladle.data.scenes import CLASSES, Scenes
from ladle.detectors import save_detector
from ladle.errors import UserError
from ladle.families import Start, detector_spec
from ladle.recipes import Run, preflight
from ladle.recipes.jobs import Job
from ladle.recipes.parts import parts_of
from ladle.recipes.preflight import check_strength, check_trainable, load_teacher, strength_in_words
from ladle.recipes.setup import resolve
from ladle.teachers import FrozenDetector, MovedTeacher
from tests.recipes.test_conformance import scenes

STUDENT = detector_spec("paa-tiny", CLASSES, imgsz=64)


@pytest.fixture
def saved(tmp_path):
    def save(spec):
        torch.manual_seed(0)
        save_detector(spec.build(), tmp_path / "teacher.safetensors")
        return str(tmp_path / "teacher.safetensors")

    return save


def plan_of(file, method="lad"):
    """The plan of a run for the student and the teacher in a file."""
    job = Job("distill", "scenes", STUDENT.name, "nowhere", Run(imgsz=64), method=method, teacher=file)
    return resolve(job, parts_of(job), CLASSES, STUDENT.category_ids).plans["student"]


def same_state(detector, spec):
    """Whether a detector has the weights that ``saved`` wrote."""
    torch.manual_seed(0)
    expected, found = spec.build().state_dict(), detector.state_dict()
    return expected.keys() == found.keys() and all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_teacher_keeps_every_one_of_its_weights(saved):
    file = saved(STUDENT)
    plan = plan_of(file)
    found = load_teacher(file, STUDENT, plan)
    assert isinstance(found, FrozenDetector)
    assert not plan.moved
    assert same_state(found.detector, STUDENT)


def test_a_teacher_may_have_more_classes_in_another_order(saved):
    many = detector_spec("paa-small", ("unicorn", *reversed(CLASSES)), imgsz=96)
    file = saved(many)
    assert load_teacher(file, STUDENT, plan_of(file)).order.tolist() == [6, 5, 4, 3, 2, 1]


@pytest.mark.parametrize("name", ["paa-tiny", "retinanet-tiny"], ids=["same priors", "moved"])
def test_a_teacher_that_lacks_a_class_is_refused_by_its_name(saved, name):
    file = saved(detector_spec(name, [one for one in CLASSES if one != "crescent"]))
    plan = plan_of(file)
    with pytest.raises(UserError, match="the teacher does not know 'crescent'") as caught:
        load_teacher(file, STUDENT, plan)
    assert str(caught.value).startswith(f"--teacher {file}: ")


OTHERS = pytest.mark.parametrize("name", ["retinanet-tiny", "paa-r18"], ids=["anchors", "strides"])
"""Detectors with other anchors than the student at the same strides, and with other strides."""


@OTHERS
@pytest.mark.slow
def test_a_teacher_with_other_priors_is_moved_to_the_student_s(saved, name):
    spec = detector_spec(name, ("unicorn", *reversed(CLASSES)), imgsz=64)
    file, batch = saved(spec), scenes(2)
    plan = plan_of(file)
    assert (plan.aligned, plan.moved) == (True, True)
    teacher = load_teacher(file, STUDENT, plan)
    assert isinstance(teacher, MovedTeacher)
    assert same_state(teacher.frozen.detector, spec)
    assert teacher.frozen.order.tolist() == [6, 5, 4, 3, 2, 1]
    student = STUDENT.build()
    priors = student.chain[0].propose(student.extract_features(batch.images), None, None, batch.sizes)
    found = teacher.predict_at(teacher.observe(batch), priors).predictions
    assert batch.images.shape[-2:] == (96, 96)
    cells = 12 * 12 + 6 * 6 + 3 * 3  # at strides 8, 16 and 32, with one prior in each
    assert (found.logits.shape, found.boxes.shape) == ((2, cells, len(CLASSES)), (2, cells, 4))
    assert bool(found.logits.isfinite().all())


@OTHERS
@pytest.mark.slow
def test_a_teacher_of_features_with_other_priors_and_classes_is_not_moved(saved, name):
    spec = detector_spec(name, ("cat", "dog"), imgsz=64)
    file = saved(spec)
    plan = plan_of(file, "pkd")
    assert (plan.features_only, plan.aligned, plan.moved) == (True, False, False)
    teacher = load_teacher(file, STUDENT, plan)
    assert isinstance(teacher, FrozenDetector)
    assert teacher.features_only
    assert same_state(teacher.detector, spec)


@OTHERS
@pytest.mark.parametrize("method", ["cross", "lad+cross"])
def test_cross_head_distillation_from_other_priors_is_refused(saved, name, method):
    file = saved(detector_spec(name, CLASSES, imgsz=64))
    with pytest.raises(UserError, match="at the same priors; take lad or soft$") as caught:
        plan_of(file, method)
    assert str(caught.value).startswith("--method cross: cross-head distillation needs a dense head")
    same = plan_of(saved(STUDENT), method)
    assert ("cross_class" in same.teaches, same.moved) == (True, False)


def test_an_incomplete_teacher_is_refused(saved, tmp_path):
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    file = saved(STUDENT)
    plan = plan_of(file)
    with safe_open(file, "pt") as stream:
        header = stream.metadata()
    tensors = load_file(file)
    lost = sorted(tensors)[3]
    del tensors[lost]
    save_file(tensors, file, header)
    with pytest.raises(UserError, match=lost):
        load_teacher(file, STUDENT, plan)


@pytest.fixture
def untrained():
    torch.manual_seed(0)
    return STUDENT.build()


def test_the_error_for_a_weak_teacher_names_the_flag_that_accepts_it(untrained):
    with pytest.raises(UserError, match="--allow-weak-teacher"):
        check_strength("some.safetensors", untrained, Scenes(16, size=64), 64, 8, device="cpu", allow_weak=False)
    assert (
        check_strength("some.safetensors", untrained, Scenes(16, size=64), 64, 8, device="cpu", allow_weak=True) < 0.01
    )


def test_a_teacher_above_the_bar_passes(untrained, monkeypatch):
    monkeypatch.setattr(preflight, "LEAST_AP", 0.0)
    assert check_strength("some.safetensors", untrained, Scenes(4, size=64), 64, 4, device="cpu", allow_weak=False) >= 0


class Empty(Scenes):
    """Scenes without objects."""

    def sample(self, index):
        scene = super().sample(index)
        return replace(scene, boxes=scene.boxes[:0], labels=scene.labels[:0], crowd=scene.crowd[:0])


def test_a_sample_without_objects_accepts_any_teacher(untrained):
    ap = check_strength("some.safetensors", untrained, Empty(4, size=64), 64, 4, device="cpu", allow_weak=False)
    assert ap != ap
    assert strength_in_words(ap) == "not evaluated: the sample of validation images holds no object"
    assert strength_in_words(0.25) == "25.0 AP on a sample of the validation images"


@pytest.mark.parametrize(
    ("batch", "sides", "norm", "fits"),
    [
        (1, (32,), "batch", False),
        (1, (96, 64, 32), "batch", False),
        (1, (33,), "batch", True),
        (2, (32,), "batch", True),
        (1, (32,), "group", True),
        (1, (32,), "frozen", True),
    ],
)
def test_one_value_is_too_few_for_batch_normalization(batch, sides, norm, fits):
    network = detector_spec("paa-tiny", ("a",), start=Start(norm=norm)).build()
    if fits:
        check_trainable(network, batch, sides)
        return
    with pytest.raises(
        UserError, match=r"of a single image of 32 pixels .* give --norm group, --batch 2, or .* --imgsz"
    ):
        check_trainable(network, batch, sides)


class OfOneSize(nn.Module):
    """A backbone that takes images of 64 x 64 pixels only."""

    def __init__(self, backbone):
        super().__init__()
        self.backbone = backbone

    def forward(self, images):
        if images.shape[-2:] != (64, 64):
            raise AssertionError("made for\n64 x 64")
        return self.backbone(images)


def test_a_backbone_of_one_size_is_refused_at_others():
    network = detector_spec("paa-tiny", ("a",)).build()
    network.backbone = OfOneSize(network.backbone)
    check_trainable(network, 4, (64,))
    with pytest.raises(UserError, match=r"backbone of paa-tiny cannot take images of 96 pixels \(made for 64 x 64\)"):
        check_trainable(network, 4, (96,))
