"""Files in 8 bits: which layers are quantized, by how much they differ, and what the command says and refuses."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper

from ladle.cli.main import main
from ladle.data.scenes import write_coco
from ladle.detectors import load_detector, save_detector
from ladle.exporting import OnnxDetector, onnx_runner, quantized
from ladle.exporting.quantizing import _last_layers
from ladle.recipes import export, val
from ladle.recipes.demo import teacher_file
from tests.exporting.small import batch_of, needs_onnx, small_detector


def graph(*nodes):
    made = [helper.make_node(kind, inputs, [name], name=name) for kind, inputs, name in nodes]
    return helper.make_model(helper.make_graph(made, "g", [], []))


def test_the_last_layers_are_those_whose_results_reach_no_other():
    model = graph(
        ("Conv", ["images", "w"], "stem"),
        ("Relu", ["stem"], "features"),
        ("Conv", ["features", "w"], "tower"),
        ("Conv", ["tower", "w"], "classes"),
        ("Sigmoid", ["classes"], "scores"),
        ("Conv", ["tower", "w"], "edges"),
        ("Mul", ["edges", "scale"], "boxes"),
    )
    assert sorted(_last_layers(model)) == ["classes", "edges"]


def test_layers_that_give_only_the_boxes_of_regions_are_last_layers_too():
    model = graph(
        ("Conv", ["images", "w"], "features"),
        ("Conv", ["features", "w"], "shifts"),
        ("Add", ["shifts", "anchors"], "proposals"),
        ("RoiAlign", ["features", "proposals", "indices"], "regions"),
        ("Gemm", ["regions", "w"], "hidden"),
        ("Gemm", ["hidden", "w"], "scores"),
    )
    assert sorted(_last_layers(model)) == ["scores", "shifts"]


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A detector with a file that takes two images, a data set, and the file in 8 bits."""
    folder = tmp_path_factory.mktemp("small")
    save_detector(small_detector("fcos-tiny", depth=1), folder / "fcos.safetensors")
    write_coco(folder / "data", train=5, val=3, size=64)
    return folder


@pytest.fixture(scope="module")
def exported(small):
    """A file for two images at once, with AP."""
    return export(str(small / "fcos.safetensors"), dynamic="none", batch=2, nms=False, data=str(small / "data"))


@pytest.fixture(scope="module")
def files(exported):
    """The bytes of that file, and the same in 8 bits."""
    plain = exported.file.read_bytes()
    return plain, quantized(plain, [batch_of(3), batch_of(2, seed=1)])


@needs_onnx
@pytest.mark.slow
def test_all_layers_but_the_last_compute_with_seven_bits_of_weight(files):
    plain, short = (onnx.load_from_string(one) for one in files)
    weight_of = {node.name: node.input[1] for node in plain.graph.node if node.op_type == "Conv"}
    last = _last_layers(plain)
    values = {one.name: numpy_helper.to_array(one) for one in short.graph.initializer}
    weights = [one for one in values.values() if one.dtype == np.int8 and one.ndim == 4]
    assert len(last) == 9, "classes, edges and centerness on three levels, which share their layers"
    assert len({weight_of[name] for name in last}) == 3
    assert len(weights) == len({weight_of[name] for name in weight_of.keys() - last}) > 9
    assert max(int(np.abs(one.astype(int)).max()) for one in weights) == 64
    scales = [one for name, one in values.items() if name.endswith("weight_scale")]
    assert all(one.ndim == 1 for one in scales), "one for each output channel"
    assert {one.key: one.value for one in short.metadata_props} == {one.key: one.value for one in plain.metadata_props}


@needs_onnx
@pytest.mark.slow
def test_scores_in_eight_bits_stay_near(files):
    [inputs] = OnnxDetector(files[0]).inputs(batch_of(2))
    exact, near = (onnx_runner(one)(*inputs)[1].flatten() for one in files)
    assert 0 < float((exact - near).abs().mean()) < 0.03
    # Small scores would be near by chance.
    assert float(torch.corrcoef(torch.stack([exact, near]))[0, 1]) > 0.98


@needs_onnx
@pytest.mark.slow
def test_a_file_of_two_images_detects_in_any_number(small, exported):
    file = OnnxDetector(exported.file)
    batch = batch_of(3)
    assert [tuple(images.shape) for images, _ in file.inputs(batch)] == [(2, 3, 64, 64)] * 2
    expected = load_detector(small / "fcos.safetensors").eval().detect(batch)
    for one, other in zip(file.detect(batch), expected, strict=True):
        torch.testing.assert_close(one.scores, other.scores, atol=1e-4, rtol=0)
        torch.testing.assert_close(one.boxes, other.boxes, atol=1e-3, rtol=1e-5)
    assert exported.scores.images == 3
    assert exported.scores.file == pytest.approx(exported.scores.detector, abs=1e-3)


@needs_onnx
@pytest.mark.slow
def test_the_command_prints_ap_before_and_after(tmp_path, capsys):
    model = tmp_path / "teacher.safetensors"
    detector = load_detector(teacher_file())
    detector.spec = replace(detector.spec, imgsz=96)
    save_detector(detector, model)
    write_coco(tmp_path / "data", train=5, val=6, size=96)
    done = export(str(model), int8=True, data=str(tmp_path / "data"))
    lines = capsys.readouterr().out.splitlines()
    assert done.file == tmp_path / "teacher.int8.onnx"
    weights = sum(weight.numel() for weight in detector.parameters())
    assert 1 < done.file.stat().st_size / weights < 1.5, "a byte each, and the graph"
    exact = val(str(tmp_path / "data"), str(model), out=str(tmp_path / "val"), device="cpu").ap
    assert done.scores.detector == pytest.approx(exact)
    assert done.scores.file == pytest.approx(exact, abs=0.05)
    *notes, _, parity, calibrated, scored = lines
    assert all(line.startswith(("val: note: ", "train: note: ")) for line in notes)
    assert any("objects have a side under 8 pixels at --imgsz 96" in line for line in notes)
    assert parity.startswith("before it was quantized, beside PyTorch, on 4 images")
    assert calibrated == "layers compute in 8 bits, in ranges seen in 5 training images"
    assert scored == (
        f"AP on 6 validation images: {100 * exact:.2f} in PyTorch, {100 * done.scores.file:.2f} in the file"
    )


def test_what_cannot_be_is_refused_in_one_sentence(small, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("ladle.exporting.packages.writes_onnx", lambda: True)
    model, data = str(small / "fcos.safetensors"), str(small / "data")
    (tmp_path / "none").mkdir()
    for flags, part in {
        "--int8": "--int8 needs --data DIR: training images for calibration, and AP before and after",
        f"--int8 --half --data {data}": "--int8 --half: weights are stored in 8 bits or in 16",
        f"--int8 --format pt2 --data {data}": "--int8: a .pt2 file computes in 32 bits",
        f"--format pt2 --data {data}": "--data: AP is measured of ONNX files alone",
        f"--data {tmp_path / 'none'}": f"{tmp_path / 'none'}",
    }.items():
        assert main(["export", model, *flags.split()]) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        assert part in said
    assert not list(small.glob("*.int8.onnx"))
