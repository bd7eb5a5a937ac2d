"""Detectors: their priors, their files, and what they find."""

import json
from dataclasses import replace

import pytest
import torch
from torchvision.models import resnet50
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.ops import FrozenBatchNorm2d

from ladle.boxes import decode_deltas, encode_deltas, giou, pairwise_iou
from ladle.detectors import Anchors, BackboneSpec, DetectorSpec, Inference, load_detector, save_detector
from ladle.detectors.backbones import color_statistics
from ladle.errors import UserError
from ladle.families import Start, detector_spec, ready_made
from ladle.types import Batch, GroundTruth, Output, Predictions, Priors
from tests.families import DENSE
from tests.golden.scenes import Scene


def test_anchors_stand_where_the_reference_puts_them():
    scene = Scene("tiny")
    own = Anchors().grid(scene.sizes, scene.strides, None, torch.device("cpu"))
    expected = scene.priors()
    assert torch.equal(own.boxes, expected.boxes)
    assert torch.equal(own.stride, expected.stride)
    assert torch.equal(own.level, expected.level)
    assert own.counts == expected.counts


def test_nine_anchors_have_the_published_shapes():
    anchors = detector_spec("retinanet-r50", ("a",)).head.anchors
    boxes = anchors.grid([(1, 1)], [8], None, torch.device("cpu")).boxes[0]
    size = boxes[:, 2:] - boxes[:, :2]
    areas = torch.tensor([4 * 8 * 2 ** (k / 3) for k in range(3)] * 3).square()
    torch.testing.assert_close(size.prod(-1), areas)
    torch.testing.assert_close(size[:, 1] / size[:, 0], torch.tensor([0.5] * 3 + [1.0] * 3 + [2.0] * 3))


def test_priors_in_the_padding_are_not_valid():
    priors = Anchors().grid([(4, 6)], [8], torch.tensor([[32, 48], [17, 24]]), torch.device("cpu"))
    assert priors.valid[0].all()
    assert priors.valid[1].view(4, 6).nonzero().amax(0).tolist() == [2, 2]


@pytest.mark.parametrize("name", ["paa-tiny", "atss-tiny", "retinanet-tiny", "paa-small"])
def test_a_detector_comes_back_from_its_file_unchanged(name, tmp_path):
    detector = detector_spec(name, ("a", "b"), category_ids=(3, 90), imgsz=128).build().eval()
    save_detector(detector, tmp_path / "d.safetensors")
    again = load_detector(tmp_path / "d.safetensors").eval()
    images = torch.rand(1, 3, 64, 96)
    assert again.spec.classes == ("a", "b")
    assert again.spec.category_ids == (3, 90)
    assert again.spec == detector.spec
    assert torch.equal(detector(images)[0].predictions.logits, again(images)[0].predictions.logits)
    assert [p.name for p in tmp_path.iterdir()] == ["d.safetensors"]


def test_bytes_and_floats_are_the_same_image():
    detector = detector_spec("paa-tiny", ("a",)).build().eval()
    images = torch.randint(256, (1, 3, 64, 64), dtype=torch.uint8)
    assert torch.equal(detector(images)[0].predictions.boxes, detector(images / 255)[0].predictions.boxes)


READY_MADE = [name for name in ready_made() if name.partition("-")[0] in DENSE]


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in READY_MADE if name.endswith(("r18", "small"))])
def test_ready_made_detectors_predict_at_every_prior(name):
    spec = detector_spec(name, ("a", "b", "c"))
    output = spec.build().eval()(torch.rand(1, 3, 64, 64), torch.tensor([[64, 64]]))[0]
    priors = output.priors.boxes.shape[1]
    assert output.predictions.logits.shape == (1, priors, 3)
    assert (output.predictions.quality is None) == name.startswith(("retinanet", "gfl", "tood", "rtmdet"))
    assert len(output.priors.counts) == len(output.features) == len(spec.strides)


def test_any_timm_model_with_three_maps_serves_as_backbone():
    spec = detector_spec("atss-mobilenetv3_small_050", ("a",), imgsz=64)
    assert spec.build().eval()(torch.rand(1, 3, 64, 64))[0].predictions.logits.shape[-1] == 1


MODELS = ("tf_efficientnet_lite0", "mobilenetv2_100", "resnet18", "convnext_nano", "vgg11", "inception_v4")


@pytest.mark.parametrize("name", MODELS)
def test_images_are_normalized_as_the_backbones_weights_were_trained(name):
    from timm.data import resolve_data_config
    from timm.models import get_pretrained_cfg

    expected = resolve_data_config(pretrained_cfg=get_pretrained_cfg(name).to_dict())
    assert color_statistics(name) == (expected["mean"], expected["std"])


def test_images_are_normalized_by_imagenet_where_nothing_else_is_known():
    imagenet = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    for name in ("tiny", "small", "r18", "r101", "mobilenetv2_100", "no such model"):
        assert color_statistics(name) == imagenet
    assert color_statistics("tf_efficientnet_lite0") == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def test_what_images_are_normalized_by_is_kept_in_the_file(tmp_path):
    """A file from before it was looked up says ImageNet's of every backbone, and is believed."""
    spec = detector_spec("paa-tf_efficientnet_lite0", ("a",))
    assert DetectorSpec.from_json(spec.to_json()) == spec
    assert (spec.mean, spec.std) == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    older = replace(spec, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    again = DetectorSpec.from_json(older.to_json())
    assert again == older
    images = torch.full((1, 3, 1, 1), 0.5)
    for one, expected in ((spec, [0.0, 0.0, 0.0]), (again, [0.0655, 0.1964, 0.4178])):
        detector = replace(one, backbone=BackboneSpec("tiny")).build()
        found = ((images - detector.mean) / detector.std).flatten()
        torch.testing.assert_close(found, torch.tensor(expected), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("norm", "kind"), [("none", None), ("batch", torch.nn.BatchNorm2d), ("group", torch.nn.GroupNorm)]
)
@pytest.mark.parametrize("name", ["fasterrcnn-tiny", "paa-tiny"])
def test_the_pyramid_can_be_normalized(name, norm, kind):
    spec = detector_spec(name, ("a",), start=Start(neck_norm=norm))
    found = [one for one in spec.build().neck.modules() if isinstance(one, torch.nn.BatchNorm2d | torch.nn.GroupNorm)]
    assert [type(one) for one in found] == [kind] * (6 if kind else 0)
    assert DetectorSpec.from_json(spec.to_json()).neck_norm == norm


@pytest.mark.parametrize(("found", "norm"), [(False, "none"), (True, "batch")])
def test_a_file_that_says_of_the_pyramids_normalization_yes_or_no_is_understood(found, norm):
    values = json.loads(detector_spec("fasterrcnn-tiny", ("a",)).to_json()) | {"neck_norm": found}
    assert DetectorSpec.from_json(json.dumps(values)).neck_norm == norm


@pytest.mark.parametrize(
    ("name", "hint"),
    [("pa-r18", "paa-r18"), ("paa", "<family>-<backbone>"), ("paa-resnet9000", "no backbone is called")],
)
def test_a_wrong_name_is_answered_with_a_hint(name, hint):
    with pytest.raises(UserError, match=hint):
        detector_spec(name, ("a",)).build()


def test_group_and_frozen_normalization_are_what_they_say(tmp_path):
    group = detector_spec("paa-r18", ("a",), start=Start(norm="group")).build()
    assert not any(isinstance(m, torch.nn.modules.batchnorm._BatchNorm) for m in group.backbone.modules())
    donor = BackboneSpec("r18").build()
    torch.save(donor.body.state_dict(), tmp_path / "r18.pth")
    frozen = detector_spec("paa-r18", ("a",), start=Start(weights=str(tmp_path / "r18.pth"))).build().train()
    assert sum(isinstance(m, FrozenBatchNorm2d) for m in frozen.backbone.modules()) == 20
    assert not any(isinstance(m, torch.nn.modules.batchnorm._BatchNorm) for m in frozen.backbone.modules())
    torch.testing.assert_close(frozen.backbone.body["conv1"].weight, donor.body["conv1"].weight)


@pytest.mark.parametrize("content", ["nothing", "a text", "half the weights", "another network"])
def test_backbone_weights_that_do_not_fit_are_refused(content, tmp_path):
    file = tmp_path / "weights.pth"
    state = BackboneSpec("r18").build().body.state_dict()
    if content == "a text":
        file.write_text("hello")
    elif content == "half the weights":
        torch.save(dict(list(state.items())[:40]), file)
    elif content == "another network":
        torch.save(BackboneSpec("tiny").build().body.state_dict(), file)
    with pytest.raises(UserError, match="weights.pth"):
        BackboneSpec("r18", weights=str(file)).build()


def test_a_detector_file_that_lacks_a_tensor_is_refused(tmp_path):
    from safetensors.torch import load_file, save_file

    detector = detector_spec("paa-tiny", ("a",)).build()
    file = tmp_path / "d.safetensors"
    save_detector(detector, file)
    state = load_file(file)
    state.pop(next(iter(state)))
    save_file(state, file, metadata={"ladle": detector.spec.to_json()})
    with pytest.raises(UserError, match=r"d\.safetensors: 1 tensors do not fit"):
        load_detector(file)
    save_file(state, file, metadata={"ladle": json.dumps({"name": "x"})})
    with pytest.raises(UserError, match=r"d\.safetensors: its header: expected the key family, found none"):
        load_detector(file)
    save_file(state, file)
    with pytest.raises(UserError, match="no ladle detector"):
        load_detector(file)
    file.write_bytes(b"junk")
    with pytest.raises(UserError, match="not a readable"):
        load_detector(file)
    with pytest.raises(UserError, match="no such file"):
        load_detector(tmp_path / "missing.safetensors")


def point_output(boxes, logits, quality):
    count = len(boxes)
    priors = Priors(
        boxes[None], torch.full((count,), 8.0), torch.zeros(count).long(), torch.ones(1, count).bool(), (count,)
    )
    return Output(Predictions(logits[None], boxes[None], quality[None]), priors, ())


SIZE = torch.tensor([[100, 100]])


def test_suppression_is_per_class_and_boxes_return_to_the_original_image():
    boxes = torch.tensor([[10.0, 10, 50, 50], [11, 10, 50, 50], [10, 10, 50, 50], [60, 60, 130, 90]])
    logits = torch.tensor([[3.0, -9], [2, -9], [-9, 1], [-9, 2]])
    found = Inference().find(point_output(boxes, logits, torch.zeros(4)), SIZE, torch.tensor([[200, 50]]))[0]
    assert found.labels.tolist() == [0, 1, 1]
    torch.testing.assert_close(found.boxes[0], torch.tensor([5.0, 20, 25, 100]))
    torch.testing.assert_close(found.boxes[1], torch.tensor([30.0, 120, 50, 180]))
    assert (found.scores.diff() <= 0).all()


def test_score_rules_are_the_published_ones():
    said = Predictions(torch.tensor([[[1.0]]]), torch.zeros(1, 1, 4), torch.tensor([[-0.5]]))
    p, q = torch.sigmoid(torch.tensor(1.0)), torch.sigmoid(torch.tensor(-0.5))
    for rule, expected in (("class", p), ("product", p * q), ("root", (p * q).sqrt())):
        torch.testing.assert_close(Inference(rule=rule).scores(said)[0, 0, 0], expected)


def test_voting_averages_what_was_suppressed():
    boxes = torch.tensor([[10.0, 10, 50, 50], [12, 10, 52, 50], [80, 80, 90, 90]])
    logits = torch.tensor([[3.0], [3.0 - 1e-3], [0.0]])
    found = Inference(voting=True).find(point_output(boxes, logits, torch.zeros(3)), SIZE, SIZE)[0]
    overlap = pairwise_iou(boxes[:1], boxes[:2])[0]
    weight = (-((1 - overlap) ** 2) / 0.025).exp() * logits[:2, 0].sigmoid()
    torch.testing.assert_close(found.boxes[0], (weight[:, None] * boxes[:2]).sum(0) / weight.sum())
    torch.testing.assert_close(found.boxes[1], boxes[2])


def test_no_more_than_the_surest_are_kept():
    corners = torch.stack(torch.meshgrid(torch.arange(9.0), torch.arange(9.0), indexing="ij"), -1).reshape(-1, 2) * 11
    boxes = torch.cat([corners, corners + 10], 1)
    logits = torch.linspace(-2, 4, len(boxes))[torch.randperm(len(boxes), generator=torch.Generator().manual_seed(0))]
    output = point_output(boxes, logits[:, None], torch.zeros(len(boxes)))
    for keep in (1, 7, 80, 81, 100):
        found = Inference(keep=keep).find(output, SIZE, SIZE)[0]
        assert len(found.scores) == min(keep, 81)
        torch.testing.assert_close(found.scores, logits.sigmoid().sort(descending=True).values[:keep])


@pytest.mark.parametrize(
    ("steps", "candidates"),
    [([100], 1000), ([1], 1000), ([1, 100], 1000), ([300], 3000), ([10_000], 100_000), ([250, 100], 2500)],
)
def test_what_is_kept_is_chosen_from_ten_times_as_many(steps, candidates):
    spec = detector_spec("paa-tiny", ("a",))
    for most in steps:
        spec = spec.keeping(most)
    assert spec == replace(spec, inference=replace(spec.inference, keep=steps[-1], candidates=candidates))
    assert spec.from_json(spec.to_json()) == spec


def test_the_usual_number_is_no_change():
    for name in ("paa-r18", "cascade-tiny"):
        assert detector_spec(name, ("a",)).keeping(100) == detector_spec(name, ("a",))


def test_detect_finds_nothing_in_padding_and_says_so_per_image():
    detector = detector_spec("paa-tiny", ("a",)).build().eval()
    with torch.no_grad():
        detector.stages[0].class_conv.bias.fill_(2.0)
    sizes = torch.tensor([[64, 64], [24, 40]])
    truth = GroundTruth.pad([torch.zeros(0, 4)] * 2, [torch.zeros(0).long()] * 2)
    found = detector.detect(Batch(torch.rand(2, 3, 64, 64), truth, sizes, sizes, ("x", "y")))
    assert len(found) == 2
    assert len(found[1].boxes) > 0
    assert (found[1].boxes[:, 2] <= 40).all()
    assert (found[1].boxes[:, 3] <= 24).all()


def test_deltas_and_boxes_are_inverse():
    priors = torch.tensor([[0.0, 0, 10, 20], [5, 5, 9, 8]])
    boxes = torch.tensor([[2.0, 1, 8, 30], [4, 4, 12, 7]])
    torch.testing.assert_close(decode_deltas(priors, encode_deltas(priors, boxes)), boxes)


def test_giou_is_iou_less_the_empty_share_of_the_hull():
    first, second = torch.tensor([0.0, 0, 2, 2]), torch.tensor([4.0, 0, 6, 2])
    torch.testing.assert_close(giou(first, second), torch.tensor(-4 / 12))
    torch.testing.assert_close(giou(first, first), torch.tensor(1.0))


@pytest.mark.slow
def test_frozen_normalization_folded_into_convolutions_changes_no_number():
    """The same features, gradients and state as the plain network in torchvision's order of operations."""
    folded = detector_spec("paa-r50", ("a",), start=Start(norm="frozen")).build().backbone.body
    plain = IntermediateLayerGetter(resnet50(norm_layer=FrozenBatchNorm2d), folded.return_layers)
    generator = torch.Generator().manual_seed(0)
    state = plain.state_dict()
    state |= {k: torch.rand(v.shape, generator=generator) + 0.5 for k, v in state.items() if v.ndim == 1}
    plain.load_state_dict(state)
    folded.load_state_dict(state)
    assert list(folded.state_dict()) == list(plain.state_dict())
    images = torch.rand(1, 3, 64, 64, generator=generator)
    gradients = []
    for body in (folded, plain):
        maps = body(images)
        sum(one.div(one.detach().norm()).pow(2).sum() for one in maps.values()).backward()
        gradients.append([p.grad / p.grad.norm() for p in body.parameters()])
    with torch.no_grad():
        for name, one in folded(images).items():
            torch.testing.assert_close(one, plain(images)[name], rtol=1e-3, atol=1e-3 * float(one.abs().max()))
    for mine, other in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=2e-3)
