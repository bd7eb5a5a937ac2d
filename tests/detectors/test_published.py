"""Networks of published sizes answer as the public implementations did, and cost what was published."""

import pytest
import torch
from torch import nn

from ladle.cli.main import main
from ladle.detectors import Detector, load_detector
from ladle.errors import UserError
from ladle.exporting import planned_cost
from ladle.families import detector_spec, from_published, read_tensors
from tests.golden.networks import CLASSES, golden, image, shapes_of, state_of

COCO = tuple(f"class {number}" for number in range(80))
RECORDED = [
    *((name, "mmdet") for name in ("rtmdet-t", "yolox-n", "yolox-t", "atss-r50")),
    ("yolox-n", "yolox"),
    *(pytest.param(name, "mmdet", marks=pytest.mark.slow) for name in ("rtmdet-s", "rtmdet-m", "yolox-s", "yolox-m")),
    *(pytest.param(name, "mmdet", marks=pytest.mark.slow) for name in ("retinanet-r50", "gfl-r50", "paa-r50")),
    pytest.param("yolox-s", "yolox", marks=pytest.mark.slow),
]


def tensors(record):
    state = state_of(shapes_of(record), float(record["gain"]))
    return {name: torch.from_numpy(value) for name, value in state.items()}


def pixels(record, detector: Detector):
    """The recorded image as Ladle takes it: red, green and blue in [0, 1]."""
    values = torch.from_numpy(image(float(record["most"]))) / 255
    return values.flip(1)


@pytest.mark.parametrize(("name", "source"), RECORDED)
@torch.no_grad()
def test_a_published_network_answers_as_its_release(name, source):
    record = golden(name, source)
    detector = from_published(tensors(record), name, COCO)
    found = detector(pixels(record, detector))[0].predictions
    torch.testing.assert_close(found.logits[..., :CLASSES], torch.from_numpy(record["logits"]), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.boxes, torch.from_numpy(record["boxes"]), rtol=1e-4, atol=1e-2)
    if len(record["quality"]):
        torch.testing.assert_close(found.quality, torch.from_numpy(record["quality"]), rtol=1e-4, atol=1e-4)
    if "parameters" in record and not name.endswith("r50"):  # those have frozen normalizations
        assert sum(weight.numel() for weight in detector.parameters()) == record["parameters"]


PUBLISHED = {
    "rtmdet-t": (4.8, 8.1),
    "rtmdet-s": (8.89, 14.8),
    "rtmdet-m": (24.71, 39.27),
    "yolox-n": (0.91, 1.08),
    "yolox-t": (5.06, 6.45),
    "yolox-s": (9.0, 26.8),
    "yolox-m": (25.3, 73.8),
}
"""Millions of parameters and billions of operations; of RTMDet a multiplication and an addition are counted as one."""


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_network_costs_what_was_published(name):
    """Within 2 %, beyond the digits that are published: RTMDet-tiny's 4.8 million may be 4.85."""
    spec = detector_spec(name, COCO)
    parameters, operations = planned_cost(spec)
    if name.startswith("rtmdet"):
        operations /= 2
    elif name == "yolox-n":
        operations += 4 * normalized_values(spec)  # the authors' counter takes each for four operations
    for found, expected in zip((parameters / 1e6, operations / 1e9), PUBLISHED[name], strict=True):
        digits = len(str(expected).partition(".")[2])
        assert abs(found - expected) <= 0.02 * expected + 0.5 * 10**-digits


@torch.no_grad()
def normalized_values(spec):
    """How many values the batch normalizations of a network see in one image."""
    with torch.device("meta"):
        detector = spec.build().eval()
    seen = []
    for module in detector.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.register_forward_hook(lambda module, given, out: seen.append(out.numel()))
    maps = detector.extract_features(torch.zeros(1, 3, spec.imgsz, spec.imgsz, device="meta"))
    detector.chain[0](maps, detector.chain[0].propose(maps, None, None, None))
    return sum(seen)


def test_a_checkpoint_of_another_network_is_refused():
    state = tensors(golden("yolox-n", "yolox"))
    with pytest.raises(UserError, match="not those of a published yolox-t with 80 classes"):
        from_published(state, "yolox-t", COCO)
    with pytest.raises(UserError, match=r"with 79 classes: 6 do not fit \(first: stages.0.class_conv.0.bias\)"):
        from_published(state, "yolox-n", COCO[1:])
    del state["head.stems.0.conv.weight"]
    with pytest.raises(UserError, match=r"1 do not fit \(first: neck.last.0.0.weight\)"):
        from_published(state, "yolox-n", COCO)
    for name in ("rtmdet-t", "yolox-t", "atss-r50"):
        with pytest.raises(UserError, match=f"not those of a published {name}"):
            from_published({"conv_stem.weight": torch.zeros(32, 3, 3, 3)}, name, COCO)
    with pytest.raises(UserError, match="fcos-r50: no public checkpoint is known"):
        from_published(state, "fcos-r50", COCO)


def test_convolutions_that_levels_share_must_be_the_same():
    state = tensors(golden("rtmdet-t", "mmdet"))
    state["bbox_head.cls_convs.2.1.conv.weight"] = state["bbox_head.cls_convs.2.1.conv.weight"] + 1
    with pytest.raises(
        UserError, match=r"cls_convs\.2\.1\.conv\.weight: expected the convolution that all levels share"
    ):
        from_published(state, "rtmdet-t", COCO)


class Foreign:
    """An object that a checkpoint may hold beside its tensors, and that is never made."""


@pytest.mark.parametrize("key", ["state_dict", "model"])
def test_only_tensors_are_read_of_a_checkpoint(key, tmp_path):
    file = tmp_path / "checkpoint.pth"
    torch.save({"meta": {"epoch": 300}, "state_dict": {}, "model": {}, key: {"module.a.weight": torch.ones(2)}}, file)
    found = read_tensors(file)
    assert list(found) == ["a.weight"]
    assert torch.equal(found["a.weight"], torch.ones(2))
    torch.save({"meta": Foreign(), "state_dict": {}}, file)
    with pytest.raises(UserError, match=r"checkpoint\.pth: expected tensors and plain data"):
        read_tensors(file)
    with pytest.raises(UserError, match="none.pth: expected a checkpoint with tensors, found no file"):
        read_tensors(tmp_path / "none.pth")


def test_the_running_average_of_mmdetection_is_read(tmp_path):
    """Its hooks leave the average in ``state_dict``, and the weights before averaging beside it."""
    average, file = tensors(golden("yolox-n", "mmdet")), tmp_path / "epoch_300.pth"
    raw = {name: value + 1 for name, value in average.items()}
    third = {f"module.{name}": value for name, value in raw.items()} | {"steps": torch.tensor(7)}
    second = {f"ema_{name.replace('.', '_')}": value for name, value in raw.items()}
    for content in (
        {"state_dict": average, "ema_state_dict": third},
        {"ema_state_dict": third, "state_dict": average},
        {"state_dict": average | second},
    ):
        torch.save({"meta": {}, **content}, file)
        found = read_tensors(file)
        assert found.keys() == average.keys()
        assert all(torch.equal(found[name], value) for name, value in average.items())
    from_published(found, "yolox-n", COCO)


@torch.no_grad()
@pytest.mark.slow
def test_a_checkpoint_is_converted_by_the_command_line(tmp_path, capsys):
    record = golden("yolox-n", "yolox")
    torch.save({"model": tensors(record), "epoch": 300}, tmp_path / "nano.pth")
    (tmp_path / "coco.txt").write_text("\n".join(COCO) + "\n")
    words = ["convert", str(tmp_path / "nano.pth"), "--model=yolox-n", f"--classes={tmp_path / 'coco.txt'}"]
    assert main(words) == 0
    detector = load_detector(tmp_path / "yolox-n.safetensors").eval()
    assert detector.spec.classes == COCO
    found = detector(pixels(record, detector))[0].predictions
    torch.testing.assert_close(found.boxes, torch.from_numpy(record["boxes"]), rtol=1e-4, atol=1e-2)
    assert main(words) == 2
    assert "exists already" in capsys.readouterr().err
    for flag, message in (
        ("--model=yolox-s", "nano.pth: these tensors are not those of a published yolox-s"),
        (f"--classes={tmp_path / 'none.txt'}", "none.txt"),
        (f"--classes={tmp_path / 'nano.pth'}", "nano.pth"),
        ("--out=a.pth", "ends with .safetensors"),
        ("--model=tood-r50", "tood-r50: no public checkpoint is known"),
    ):
        assert main([*words, f"--out={tmp_path / 'other.safetensors'}", flag]) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "other.safetensors").exists()
