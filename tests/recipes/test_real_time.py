"""Real-time students: every assigner trains them, they are resumed, and options change what they say."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from ladle.assigners import ATSS
from ladle.cli.main import main
from ladle.data.loader import collate, make_loader
from ladle.data.scenes import CLASSES, Scenes
from ladle.data.transforms import Augmentation
from ladle.detectors import FPN, PAN, DetectorSpec, load_detector, save_detector
from ladle.engine import AdamW, Settings, fit, one_process
from ladle.errors import UserError
from ladle.families import Start, detector_spec, families, lessons_of
from ladle.methods import plan_for
from ladle.objectives import TrainingStep
from ladle.recipes import train
from ladle.recipes.jobs import Job
from ladle.recipes.parts import ASSIGNERS, parts_of
from ladle.recipes.setup import resolve
from ladle.teachers import FrozenDetector
from tests.recipes.test_train import stop_after
from tests.recipes.tiny import RUN, make_data, same_weights

SIDE = 64
STUDENTS = ("rtmdet-n", "yolox-n", "gfl+lite-tiny")


def batch():
    scenes = Scenes(2, seed=0, size=SIDE)
    return collate([scenes.sample(number) for number in range(2)])


def total(terms):
    return sum(term.total / torch.maximum(term.count, term.floor).clamp(min=1e-6) for term in terms.values())


@pytest.fixture(scope="module")
def students():
    torch.manual_seed(0)
    return {name: detector_spec(name, CLASSES, imgsz=SIDE).build() for name in STUDENTS}


@pytest.mark.slow
@pytest.mark.parametrize("name", STUDENTS)
@pytest.mark.parametrize("assigner", ASSIGNERS)
def test_every_assigner_trains_backbone_neck_and_head(students, name, assigner):
    """Parts of the head that belong to a level learn where an object is assigned to it."""
    student = students[name]
    student.zero_grad(set_to_none=True)
    loss = total(TrainingStep(student, lessons_of(student.spec, ASSIGNERS[assigner]))(batch()))
    assert loss > 0
    loss.backward()
    gradients = {key: weight.grad for key, weight in student.named_parameters()}
    assert [key for key, gradient in gradients.items() if gradient is None] == []
    still = {key for key, gradient in gradients.items() if not gradient.any()}
    assert {key for key in still if not key.startswith(("stages.0.", "neck.last."))} == set()
    learning = {key.split(".")[2] for key in gradients.keys() - still if key.startswith("stages.0.")}
    assert learning == {key.split(".")[2] for key in gradients if key.startswith("stages.0.")}


@pytest.mark.slow
@pytest.mark.parametrize("name", STUDENTS)
@pytest.mark.parametrize("assigner", ASSIGNERS)
def test_two_epochs_with_every_assigner_change_every_part(name, assigner, tmp_path):
    torch.manual_seed(0)
    scenes = Scenes(4, seed=0, size=SIDE)
    student = detector_spec(name, CLASSES, imgsz=SIDE).build()
    before = {key: weight.clone() for key, weight in student.named_parameters()}
    objective = TrainingStep(student, lessons_of(student.spec, ASSIGNERS[assigner]))
    settings = Settings(epochs=2, optimizer=AdamW(lr=0.001), quiet=True)
    loader = make_loader(scenes, batch=2, imgsz=SIDE, shuffle=True)
    result = fit(one_process(1, "cpu"), objective, loader, settings, tmp_path, None, save_detector)
    assert [row["step"] for row in result.rows] == [2, 4]
    assert all(math.isfinite(row["loss"]) for row in result.rows)
    trained = load_detector(tmp_path / "weights" / "last.safetensors")
    moved = {key for key, weight in trained.named_parameters() if not torch.equal(weight, before[key])}
    assert {key.split(".")[0] for key in moved} == {"backbone", "neck", "stages"}
    assert all(weight.isfinite().all() for weight in trained.parameters())


@pytest.mark.parametrize("name", STUDENTS)
def test_a_larger_detector_of_the_family_can_judge(students, name):
    student = students[name]
    larger = {"rtmdet-n": "rtmdet-t", "yolox-n": "yolox-t", "gfl+lite-tiny": "gfl-small"}[name]
    teacher = FrozenDetector(detector_spec(larger, CLASSES, imgsz=SIDE).build(), CLASSES)
    plan = plan_for("lad", student.spec, teacher.detector.spec, ATSS())
    objective = TrainingStep(student, plan.lessons, teacher)
    assert total(objective(batch())) > 0
    assert objective.monitor["positives_per_object"] > 0


@pytest.mark.slow
@pytest.mark.parametrize(("name", "strides"), [("yolox+lite+p6-tiny", (8, 16, 32, 64)), ("tood+o2o-tiny", (8, 16, 32))])
def test_a_student_is_trained_and_resumed_bit_for_bit(name, strides, tmp_path, monkeypatch):
    data = make_data(tmp_path / "data")
    run = replace(RUN, epochs=2, ema=0.9, project=str(tmp_path))
    whole = train(data, name, replace(run, name="whole")).weights.parent
    with monkeypatch.context() as patch:
        stop_after(patch, 1)
        with pytest.raises(KeyboardInterrupt):
            train(data, name, replace(run, name="stopped"))
    stopped = tmp_path / "train" / "stopped"
    assert main(["train", "--resume", str(stopped)]) == 0
    assert same_weights(whole / "last.safetensors", stopped / "weights" / "last.safetensors")
    assert load_detector(stopped / "weights" / "last.safetensors").spec.strides == strides


def levels(name):
    spec = detector_spec(name, CLASSES, imgsz=SIDE)
    output = spec.build().eval()(batch().images)[0]
    assert tuple(-(-SIDE // stride) for stride in spec.strides) == tuple(one.shape[-1] for one in output.features)
    assert output.predictions.boxes.shape[1] == sum(output.priors.counts)
    return spec.strides


def test_levels_are_added_below_and_above():
    assert levels("atss-tiny") == (8, 16, 32)
    assert levels("atss+p2-tiny") == (4, 8, 16, 32)
    assert levels("atss+p6-tiny") == (8, 16, 32, 64)
    assert levels("yolox+p2+p6-n") == (4, 8, 16, 32, 64)
    assert levels("gfl+lite+p2-mobilenetv3_small_050") == (4, 8, 16, 32, 64, 128)


@pytest.mark.parametrize("family", [one.name for one in families().values() if not one.regions])
def test_six_levels_train_with_every_family(family):
    torch.manual_seed(0)
    student = detector_spec(f"{family}+lite+p2-mobilenetv3_small_050", CLASSES, imgsz=SIDE).build()
    terms = TrainingStep(student, lessons_of(student.spec))(batch())
    assert all(term.total.isfinite() for term in terms.values())
    assert total(terms) > 0


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("atss+p6-r18", r"\+p6: this network has levels up to stride 128 already"),
        ("fasterrcnn+lite-tiny", "lite is for dense heads, and fasterrcnn has none"),
        ("atss+p3-r18", "no head is called 'p3'; expected one of dist, cop, io, lite, p2, p6, o2o"),
        ("yolox-x", "no backbone is called 'x'"),
    ],
)
def test_an_option_that_does_not_fit_is_refused(name, message):
    with pytest.raises(UserError, match=message):
        detector_spec(name, CLASSES).build()


def test_a_light_student_has_any_head_on_any_backbone():
    spec = detector_spec("paa+dist+lite-tf_efficientnet_lite0", CLASSES)
    assert (spec.head.box, spec.head.width, spec.head.depth, spec.head.light.joint) == ("distribution", 96, 2, True)
    assert spec.neck.inside == "output"
    assert spec.mean == (0.5, 0.5, 0.5)
    assert detector_spec("paa-cspnext_t", CLASSES).neck == FPN()
    assert detector_spec("yolox-s", CLASSES).std == (1 / 255, 1 / 255, 1 / 255)


@pytest.mark.parametrize("name", ["rtmdet-n", "yolox+p6-n", "gfl+lite-tiny", "atss-cspdarknet_n"])
def test_group_normalization_reaches_every_part(name):
    detector = detector_spec(name, CLASSES, start=Start(norm="group", neck_norm="group")).build()
    kinds = {type(module) for module in detector.modules() if type(module).__name__.endswith(("Norm", "Norm2d"))}
    assert kinds == {nn.GroupNorm}


@pytest.mark.parametrize("name", [*STUDENTS, "yolox+p6-t", "gfl+lite+p2-tiny"])
def test_a_spec_comes_back_from_its_text(name):
    spec = detector_spec(name, CLASSES)
    assert DetectorSpec.from_json(spec.to_json()) == spec


@torch.no_grad()
@pytest.mark.parametrize("name", ["yolox-n", "rtmdet-n", "rtmdet-m"])
def test_a_light_head_starts_as_its_priors(name):
    spec = detector_spec(name, CLASSES)
    stage = spec.head.build(6, spec.strides).eval()
    for conv in stage.box_conv:
        nn.init.zeros_(conv.weight)
    maps = [torch.rand(1, spec.head.width, side, side) for side in (4, 2, 1)]
    priors = stage.propose(maps, None, None, None)
    predictions, _ = stage(maps, priors)
    torch.testing.assert_close(predictions.boxes, priors.boxes)
    torch.testing.assert_close(predictions.scores.mean(), torch.tensor(0.01), atol=5e-3, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("name", [*STUDENTS, "paa+lite-tiny"])
def test_towers_can_be_left_and_entered_anywhere(name):
    spec = detector_spec(name, CLASSES)
    stage = spec.head.build(6, spec.strides).eval()
    maps = [torch.rand(1, spec.head.width, side, side) for side in (4, 2, 1)]
    priors = stage.propose(maps, None, None, None)
    whole, _ = stage(maps, priors)
    for depth in range(spec.head.depth + 1):
        again, towers = stage(maps, priors, depth)
        assert len(towers) == 3
        torch.testing.assert_close(again.logits, whole.logits)
        torch.testing.assert_close(again.boxes, whole.boxes)


def test_a_pyramid_of_the_backbones_map_has_its_widths():
    neck = FPN("backbone", rectified=False).build((8, 16), 12, 2)
    assert neck.fpn.extra_blocks.p6.in_channels == 16
    maps = [torch.rand(1, 8, 8, 8), torch.rand(1, 16, 4, 4)]
    *_, p6, p7 = neck(maps)
    torch.testing.assert_close(p6, neck.fpn.extra_blocks.p6(maps[1]))
    torch.testing.assert_close(p7, neck.fpn.extra_blocks.p7(p6))
    assert (p6 < 0).any()
    with pytest.raises(ValueError, match="without last convolutions"):
        PAN(last=0)


def test_yolox_has_its_l1_loss_in_the_closing_epochs():
    torch.manual_seed(0)
    student = detector_spec("yolox+lite-tiny", CLASSES, imgsz=SIDE).build()
    (lesson,) = lessons_of(student.spec)
    objective = TrainingStep(student, (replace(lesson, closes=3.0),))
    with pytest.raises(ValueError, match="set_time"):
        objective(batch())
    found = {}
    for epoch in (0.5, 3.0, 3.1, 5.0):
        objective.set_time(epoch, 1)
        found[epoch] = set(objective(batch()))
    assert found == {
        0.5: {"class", "box", "quality"},
        3.0: {"class", "box", "quality"},
        3.1: {"class", "box", "quality", "l1"},
        5.0: {"class", "box", "quality", "l1"},
    }
    assert lessons_of(detector_spec("fcos-tiny", CLASSES))[0].closing is None


def test_the_last_epochs_are_without_mosaics_and_with_the_closing_losses():
    run = replace(RUN, epochs=5, mosaic=0.5, mixup=0.2, scale_jitter=0.4, close_mosaic=2)
    assert run.augmentation == Augmentation(0.5, 0.2, 0.3, 0.5, 0.2, 0.4, 3)
    assert replace(run, close_mosaic=0).augmentation.joined is None
    ids = tuple(range(1, len(CLASSES) + 1))
    pair = Job("colearn", "scenes", "yolox-tiny", second="yolox-mini", assigner="PAA", run=run)
    for job, count in ((Job("train", "scenes", "yolox-tiny", run=run), 1), (pair, 2)):
        plans = resolve(job, parts_of(job), CLASSES, ids).plans
        assert [plan.lessons[0].closes for plan in plans.values()] == [3] * count
        assert all(plan.lessons[0].closing is not None for plan in plans.values())
    with pytest.raises(UserError, match=r"--close-mosaic 2: there are neither mosaics nor mixed images"):
        replace(run, mosaic=0.0, mixup=0.0)
