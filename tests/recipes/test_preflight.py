"""Unsuitable teachers and image sizes are errors before the first step."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from ladle.data.scenes import CLASSES, Scenes
from ladle.detectors import save_detector
from ladle.errors import UserError
from ladle.families import Start, detector_spec
from ladle.recipes import preflight
from ladle.recipes.preflight import check_strength, check_trainable, load_teacher, strength_in_words

STUDENT = detector_spec("paa-tiny", CLASSES, imgsz=64)


@pytest.fixture
def saved(tmp_path):
    def save(spec):
        torch.manual_seed(0)
        save_detector(spec.build(), tmp_path / "teacher.safetensors")
        return str(tmp_path / "teacher.safetensors")

    return save


def test_a_teacher_keeps_every_one_of_its_weights(saved):
    torch.manual_seed(0)
    expected = STUDENT.build().state_dict()
    found = load_teacher(saved(STUDENT), STUDENT).detector.state_dict()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_teacher_may_have_more_classes_in_another_order(saved):
    many = detector_spec("paa-small", ("unicorn", *reversed(CLASSES)), imgsz=96)
    assert load_teacher(saved(many), STUDENT).order.tolist() == [6, 5, 4, 3, 2, 1]


def test_a_teacher_that_lacks_a_class_is_refused_by_its_name(saved):
    few = detector_spec("paa-tiny", [name for name in CLASSES if name != "crescent"])
    with pytest.raises(UserError, match="crescent"):
        load_teacher(saved(few), STUDENT)


@pytest.mark.parametrize(
    ("name", "named"), [("retinanet-tiny", "priors"), ("paa-r18", "strides")], ids=["anchors", "strides"]
)
def test_a_teacher_with_other_priors_is_refused(saved, name, named):
    file = saved(detector_spec(name, CLASSES))
    with pytest.raises(UserError, match=named) as caught:
        load_teacher(file, STUDENT)
    assert file in str(caught.value)


def test_an_incomplete_teacher_is_refused(saved, tmp_path):
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    file = saved(STUDENT)
    with safe_open(file, "pt") as stream:
        header = stream.metadata()
    tensors = load_file(file)
    lost = sorted(tensors)[3]
    del tensors[lost]
    save_file(tensors, file, header)
    with pytest.raises(UserError, match=lost):
        load_teacher(file, STUDENT)


@pytest.fixture
def untrained():
    torch.manual_seed(0)
    return STUDENT.build()


def test_the_error_for_a_weak_teacher_names_the_flag_that_accepts_it(untrained):
    with pytest.raises(UserError, match="--allow-weak-teacher"):
        check_strength("some.safetensors", untrained, Scenes(16, size=64), 64, 8, allow_weak=False)
    assert check_strength("some.safetensors", untrained, Scenes(16, size=64), 64, 8, allow_weak=True) < 0.01


def test_a_teacher_above_the_bar_passes(untrained, monkeypatch):
    monkeypatch.setattr(preflight, "LEAST_AP", 0.0)
    assert check_strength("some.safetensors", untrained, Scenes(4, size=64), 64, 4, allow_weak=False) >= 0


class Empty(Scenes):
    """Scenes without objects."""

    def sample(self, index):
        scene = super().sample(index)
        return replace(scene, boxes=scene.boxes[:0], labels=scene.labels[:0], crowd=scene.crowd[:0])


def test_a_sample_without_objects_accepts_any_teacher(untrained):
    ap = check_strength("some.safetensors", untrained, Empty(4, size=64), 64, 4, allow_weak=False)
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
