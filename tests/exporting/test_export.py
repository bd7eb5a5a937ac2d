"""``ladle export``: the file, what it says of itself, the program beside it, and what is refused."""

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
import torch
from PIL import Image

from ladle.boxes import clip
from ladle.cli.main import main
from ladle.data.loader import _MULTIPLE
from ladle.data.scenes import CLASSES, Scenes
from ladle.data.sources import Remembered
from ladle.data.transforms import GREY
from ladle.detectors import load_detector, save_detector
from ladle.errors import UserError
from ladle.evaluation import evaluate
from ladle.exporting import TOLERANCE, OnnxDetector, Parity, onnx_runner, packages
from ladle.exporting.parity import compare_detections
from ladle.recipes import bench, export, predict
from ladle.recipes.bench import Measured, _named
from ladle.recipes.demo import teacher_file
from ladle.recipes.scoring import Evaluator
from ladle.teachers import open_teacher
from ladle.types import Detections
from tests.exporting.small import SIDE, batch_of, small_detector

benches = sys.modules["ladle.recipes.bench"]  # its name in the package is that of the function

FILES = ["trained", "raw", "staged"]
"""The fixtures of files; each takes some seconds to export, so tests that use one are slow."""


def write_onnx(model, **flags):
    """The ONNX file of a detector; a PyTorch that writes none, as another test shows, is not tested."""
    if not packages.writes_onnx():
        pytest.skip("this PyTorch cannot write ONNX")
    return export(str(model), **flags)


def draw(path, height=SIDE, width=SIDE, seed=3):
    scene = Scenes(1, seed=seed, size=max(height, width)).sample(0).image[:, :height, :width]
    Image.fromarray(scene.permute(1, 2, 0).numpy()).save(path)
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A trained detector and its ONNX file, both in one folder."""
    folder = tmp_path_factory.mktemp("trained")
    model = folder / "teacher.safetensors"
    model.write_bytes(teacher_file().read_bytes())
    return model, write_onnx(model, imgsz=96)


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """A file of another kind in every respect: sizes vary, boxes of all priors come out, floats go in, 16 bits."""
    folder = tmp_path_factory.mktemp("raw")
    model = folder / "fcos.safetensors"
    save_detector(small_detector("fcos-tiny"), model, half=True)
    return model, write_onnx(model, dynamic="sizes", images="float", nms=False, half=True)


@pytest.fixture(scope="module")
def staged(tmp_path_factory):
    """A detector in two stages and its ONNX file."""
    model = tmp_path_factory.mktemp("staged") / "faster.safetensors"
    save_detector(small_detector("fasterrcnn-tiny"), model)
    return model, write_onnx(model)


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """A detector and its ``.pt2`` file, in which nothing varies."""
    model = tmp_path_factory.mktemp("program") / "rtmdet.safetensors"
    save_detector(small_detector("rtmdet-tiny"), model)
    return model, export(str(model), format="pt2", dynamic="none", batch=2, images="normalized")


# ------------------------------------------------------------------------------------ parity


@pytest.mark.slow
@pytest.mark.parametrize("which", FILES)
def test_a_file_is_compared_before_it_is_written(which, request):
    model, made = request.getfixturevalue(which)
    assert made.file == model.with_suffix(".onnx")
    assert made.parity.images == 4
    assert made.parity.detections > 20
    assert made.parity.boxes <= 1e-3
    assert made.parity.scores <= 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("which", FILES)
def test_detections_are_those_of_pytorch_in_batches_of_any_size(which, request):
    model, made = request.getfixturevalue(which)
    detector, file = load_detector(model).eval(), OnnxDetector(made.file)
    for batch in (batch_of(3, seed=7), batch_of(1, seed=8), batch_of(5, seed=9)):
        padded = batch if which == "raw" else file_batch(batch, made)
        for one, expected in zip(file.detect(batch), detector.detect(padded), strict=True):
            boxes, scores = compare_detections(one, expected, detector.spec.inference)
            assert len(expected.scores) > 0
            assert boxes <= 1e-3 * max(batch.originals.max() / batch.sizes.max(), 1)
            assert scores <= 1e-4


def file_batch(batch, made):
    """The batch padded as the file pads it: that is part of what a network sees."""
    from dataclasses import replace

    return replace(batch, images=OnnxDetector(made.file)._padded(batch.images))


@pytest.mark.slow
def test_average_precision_is_that_of_pytorch(trained):
    model, made = trained
    detector, file = load_detector(model), OnnxDetector(made.file)
    scenes = Remembered(Scenes(12, seed=1, size=96))
    evaluator = Evaluator(scenes, 96, 4)
    found = {name: one for batch in evaluator.loader for name, one in zip(batch.ids, file.detect(batch), strict=True)}
    expected = 100 * evaluator(detector).evaluation.ap
    assert expected > 10
    assert 100 * evaluate(evaluator.truth, found, CLASSES).ap == pytest.approx(expected, abs=0.1)


def test_a_file_that_answers_otherwise_is_refused_and_not_left_behind(tmp_path, monkeypatch, capsys):
    """The file is stood in for by the network itself, whose answers are a little changed."""
    module = sys.modules["ladle.recipes.export"]
    model = tmp_path / "gfl.safetensors"
    save_detector(small_detector("gfl-tiny"), model)
    traced = []
    monkeypatch.setattr(module, "trace", traced.append)
    monkeypatch.setattr(module, "program_bytes", lambda program, described: b"written")
    for shift in (0.0, 0.01):
        monkeypatch.setattr(module, "program_runner", lambda written, shift=shift: shifted(traced[-1], shift))
        code = main(["export", str(model), "--format", "pt2", "--nms", "false"])
        assert code == (2 if shift else 0)
        assert model.with_suffix(".pt2").exists() == (not shift)
        model.with_suffix(".pt2").unlink(missing_ok=True)
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "differs from PyTorch by 0.01 pixels in boxes (at most 0.001) and by 0.01 in scores (at most 0.0001)" in said
    assert [path.name for path in tmp_path.iterdir()] == [model.name]


def shifted(network, shift):
    def run(images, sizes):
        with torch.no_grad():
            return tuple(part + shift for part in network(images, sizes))

    return run


def test_objects_are_matched_and_a_missing_one_is_no_small_difference():
    inference = small_detector("fcos-tiny").spec.inference
    boxes = torch.tensor([[0.0, 0, 9, 9], [20, 20, 40, 40]])
    one = Detections(boxes, torch.tensor([0.9, 0.8]), torch.tensor([1, 2]))
    turned = Detections(boxes.flip(0) + 0.25, torch.tensor([0.8, 0.9]), torch.tensor([2, 1]))
    assert compare_detections(turned, one, inference) == (0.25, 0.0)
    lacking = one.map(lambda values: values[:1])
    assert compare_detections(lacking, one, inference) == (float("inf"), float("inf"))
    assert compare_detections(one, lacking, inference) == (float("inf"), float("inf"))
    barely = Detections(boxes, torch.tensor([0.9, inference.threshold + 1e-5]), torch.tensor([1, 2]))
    assert compare_detections(lacking, barely, inference) == (0.0, 0.0)


# ------------------------------------------------------------------------------------ the file, and what it says


@pytest.mark.slow
def test_the_file_says_how_to_feed_it_and_what_comes_out(trained):
    model, made = trained
    spec, about = load_detector(model).spec, OnnxDetector(made.file).about
    assert about["classes"] == list(CLASSES)
    assert about["category_ids"] == list(spec.category_ids)
    assert (about["mean"], about["std"]) == (list(spec.mean), list(spec.std))
    assert (about["imgsz"], about["input_size"], about["strides"]) == (96, [96, 96], list(spec.strides))
    assert about["value_range"] == [0, 65535]
    assert about["prior_offset"] == spec.head.anchors.offset
    assert (about["pad_value"], about["pad_multiple"]) == (GREY, _MULTIPLE)
    assert about["images"] == "uint8"


@pytest.mark.slow
def test_inputs_and_outputs_have_the_sizes_that_were_asked_for(trained, raw):
    shapes = {}
    for _, made in (trained, raw):
        graph = onnx.load(made.file).graph
        images = graph.input[0].type.tensor_type
        assert [one.name for one in graph.input] == ["images", "sizes"]
        shapes[made.file.stem] = images.elem_type, [one.dim_value for one in images.shape.dim]
        assert not any(node.doc_string or node.metadata_props for node in graph.node)
    assert shapes["teacher"] == (onnx.TensorProto.UINT8, [0, 3, 96, 96])
    assert shapes["fcos"] == (onnx.TensorProto.FLOAT, [0, 3, 0, 0])
    assert OnnxDetector(raw[1].file).about["input_size"] is None


@pytest.mark.slow
def test_half_stores_the_weights_in_16_bits(raw):
    model, made = raw
    tensors = onnx.load(made.file).graph.initializer
    sizes = {kind: sum(len(one.raw_data) for one in tensors if one.data_type == kind) for kind in (1, 10)}
    weights = sum(one.numel() for one in load_detector(model).parameters() if one.ndim > 1)
    assert sizes[10] >= 2 * weights
    assert sizes[1] < sizes[10] / 4


@pytest.mark.slow
def test_a_pt2_file_answers_as_pytorch_does(program):
    _, made = program
    assert made.script is None
    assert isinstance(made.parity, Parity)
    kept = {"ladle.json": ""}
    network = torch.export.load(made.file, extra_files=kept).module()
    assert json.loads(kept["ladle.json"])["batch"] == 2
    boxes, scores, labels = network(torch.zeros(2, 3, SIDE, SIDE), torch.tensor([[SIDE, SIDE]] * 2))
    assert boxes.shape == (2, 100, 4)
    assert scores.shape == labels.shape == (2, 100)


# ------------------------------------------------------------------------------------ as teachers


@pytest.mark.slow
@pytest.mark.parametrize("which", ["trained", "staged", "program"])
def test_a_file_teaches_the_detections_of_the_detector(which, request):
    model, made = request.getfixturevalue(which)
    detector, batch = load_detector(model).eval(), batch_of(3, seed=7, least=96 if which == "trained" else SIDE)
    text = f"{made.file}?run_code=1" if which == "program" else str(made.file)
    found, _ = open_teacher(text, CLASSES[::-1]).observe(batch)
    own = detector.detect(batch.replaced(originals=batch.sizes))
    for boxes, logits, one in zip(found.boxes, found.logits, own):
        count = len(one.scores)
        assert count > 0
        assert torch.allclose(boxes[:count], one.boxes, atol=1e-3)
        assert torch.allclose(logits[:count].sigmoid().amax(-1), one.scores.clamp(1e-4, 1 - 1e-4), atol=1e-4)
        assert torch.equal(logits[:count].argmax(-1), len(CLASSES) - 1 - one.labels)
        assert float(logits[count:].sigmoid().sum()) == pytest.approx(1e-4 * logits[count:].numel(), rel=1e-3)


@pytest.mark.slow
def test_a_file_of_all_priors_teaches_the_predictions_of_the_detector(raw):
    model, made = raw
    detector, batch = load_detector(model).eval(), batch_of(3, seed=7)
    teacher = open_teacher(str(made.file), CLASSES)
    assert teacher.detector.about[1] == "gives predictions at strides 8, 16, 32"
    own = detector(batch.images, batch.sizes)[0]
    moved = teacher.predict_at(teacher.observe(batch), own.priors).predictions
    valid = own.priors.valid.expand(len(batch.ids), -1)
    scores = detector.spec.inference.scores(own.predictions).clamp(1e-4, 1 - 1e-4)
    assert torch.allclose(moved.scores[valid], scores[valid], atol=1e-4)
    assert torch.allclose(moved.boxes[valid], clip(own.predictions.boxes, batch.sizes)[valid], atol=1e-3)


# ------------------------------------------------------------------------------------ the program beside it


@pytest.mark.slow
@pytest.mark.parametrize(
    ("which", "height", "width", "exact"),
    [
        ("trained", 96, 96, True),
        ("trained", 150, 150, False),
        ("raw", 40, SIDE, True),
        ("staged", SIDE, SIDE, True),
    ],
)
def test_infer_finds_what_predict_finds(which, height, width, exact, request, tmp_path):
    """Also where the image is resized, up to a level of a few of its bytes."""
    model, made = request.getfixturevalue(which)
    file = draw(tmp_path / "image.png", height, width)
    imgsz = 96 if which == "trained" else None
    (found,) = predict(str(file), str(model), out=str(tmp_path / "out"), imgsz=imgsz, device="cpu").values()
    command = [sys.executable, str(made.script), str(made.file), str(file), "0.1"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    rows = [line.split() for line in said]
    sure = found.scores >= 0.1
    assert sure.sum() >= 1
    slack = 0.06 if exact else 0.5
    assert abs(len(rows) - int(sure.sum())) <= (0 if exact else 2)
    for box, score, label in zip(found.boxes[sure][:10], found.scores[sure], found.labels[sure], strict=False):
        same = [row for row in rows if row[0] == CLASSES[label] and abs(float(row[1]) - score) < slack / 50 + 5e-4]
        assert any((torch.tensor([float(side) for side in row[2:]]) - box).abs().max() <= slack for row in same)


@pytest.mark.slow
def test_the_program_imports_what_it_says_alone(trained):
    _, made = trained
    lines = made.script.read_text().splitlines()
    modules = {line.split()[1] for line in lines if line.startswith(("import ", "from "))}
    assert modules - sys.stdlib_module_names == {"numpy", "onnxruntime", "PIL"}


@pytest.mark.slow
@pytest.mark.parametrize("made", ["trained", "staged"])
def test_openvino_finds_what_onnxruntime_finds(made, request):
    openvino = pytest.importorskip("openvino", reason="there is no wheel of openvino for this machine")
    model, exported = request.getfixturevalue(made)
    compiled = openvino.Core().compile_model(str(exported.file), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    assert [output.get_any_name() for output in compiled.outputs] == ["boxes", "scores", "labels"]
    inference, (side, _) = load_detector(model).spec.inference, OnnxDetector(exported.file).about["input_size"]
    for batch in (batch_of(3, least=side), batch_of(1, seed=1, least=side)):
        expected = onnx_runner(exported.file)(batch.images, batch.sizes)
        answered = compiled({"images": batch.images.numpy(), "sizes": batch.sizes.numpy()})
        found = [torch.from_numpy(answered[output]) for output in compiled.outputs]
        for image in range(len(batch.sizes)):
            pair = [
                Detections(*(one[image][scores[image] > 0] for one in (boxes, scores, labels)))
                for boxes, scores, labels in (found, expected)
            ]
            assert len(pair[1].scores) > 0
            boxes, scores = compare_detections(*pair, inference)
            assert boxes <= TOLERANCE
            assert scores <= TOLERANCE / 10


# ------------------------------------------------------------------------------------ what is refused


def test_what_cannot_be_is_refused_in_one_sentence(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(packages, "writes_onnx", lambda: True)
    model = tmp_path / "fcos.safetensors"
    save_detector(small_detector("fcos-tiny"), model)
    (tmp_path / "infer.py").write_text("print('another')\n")
    for flags, part in {
        "--format pt2 --half": "--half: a .pt2 file keeps weights of 32 bits",
        "--batch 4": "--batch 4: with --dynamic batch a file takes any number of images",
        "--out model.pt2": "--out model.pt2: expected a file called .onnx",
        "--format tflite": "--format takes one of onnx, pt2",
        "": f"{tmp_path / 'infer.py'}: expected no file or that of an earlier export",
    }.items():
        assert main(["export", str(model), *flags.split()]) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        assert part in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fcos.safetensors", "infer.py"]


def test_without_the_packages_of_onnx_a_sentence_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(packages, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs onnx and onnxscript and onnxruntime: pip install 'ladle\[onnx\]'"):
        export(str(tmp_path / "a.safetensors"))


def test_a_pytorch_that_cannot_write_onnx_says_so(tmp_path, monkeypatch):
    for version, writes in (("2.6.0+cu124", False), ("2.7.1", True), ("2.14.1+cu130", True), ("3.0.0a0", True)):
        monkeypatch.setattr(torch, "__version__", version)
        assert packages.writes_onnx() is writes
    monkeypatch.setattr(torch, "__version__", "2.6.0+cu124")
    with pytest.raises(UserError, match=r"needs PyTorch 2\.7 or newer, found 2\.6\.0\+cu124; --format pt2 does not"):
        export(str(tmp_path / "a.safetensors"))


def test_another_onnx_model_is_no_detector(tmp_path):
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    node = onnx.helper.make_node("Identity", ["x"], ["y"])
    out = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])
    model = onnx.helper.make_model(
        onnx.helper.make_graph([node], "g", [value], [out]),
        ir_version=8,
        opset_imports=[onnx.helper.make_opsetid("", 18)],
    )
    onnx.save(model, tmp_path / "x.onnx")
    with pytest.raises(UserError, match="expected a file written by `ladle export`"):
        bench(str(tmp_path / "x.onnx"))


# ------------------------------------------------------------------------------------ bench


@pytest.mark.slow
def test_bench_measures_both_runtimes_and_writes_what_it_says(trained, tmp_path, data96):
    model, made = trained
    out = tmp_path / "bench.json"
    rows = bench([str(model), str(made.file)], data=data96, imgsz=96, calls=2, threads=1, device="cpu", out=str(out))
    assert [row.runtime for row in rows] == ["PyTorch, cpu", "onnxruntime, cpu"]
    detector = load_detector(model)
    assert rows[0].parameters == sum(weight.numel() for weight in detector.parameters())
    assert rows[0].file_mib == model.stat().st_size / 2**20
    assert rows[1].file_mib == made.file.stat().st_size / 2**20
    assert rows[0].ap == pytest.approx(rows[1].ap, abs=0.1)
    written = json.loads(out.read_text())
    assert written["threads"] == 1
    assert [row["ms"] for row in written["measured"]] == [row.ms for row in rows]
    assert written["measured"][1]["flops"] is None
    assert out.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


ONE = Measured("paa-tiny", "PyTorch, cpu", 64, 1.0, 1.0, 2.5, 10.0, 11.0, 80.0, 90.0, 200.0, 1.0, math.nan)


def test_detectors_of_one_name_are_told_apart_by_their_files():
    onnx_file = replace(ONE, runtime="onnxruntime, cpu")
    files = [Path("a/best.onnx"), Path("a/best.int8.onnx"), Path("a/best.safetensors"), Path("b/best.safetensors")]
    named = _named(zip(files[:3], [onnx_file, onnx_file, ONE], strict=True))
    assert [each.model for each in named] == ["paa-tiny (best.onnx)", "paa-tiny (best.int8.onnx)", "paa-tiny"]
    named = _named(zip(files[2:], [ONE, ONE], strict=True))
    assert [each.model for each in named] == ["paa-tiny (a/best.safetensors)", "paa-tiny (b/best.safetensors)"]


def test_the_numbers_of_bench_are_not_written_where_its_chart_lies(tmp_path):
    with pytest.raises(UserError, match=r"--out .*x\.png: expected a \.json file; its chart lies beside it as \.png"):
        bench(str(tmp_path / "x.safetensors"), out=str(tmp_path / "x.png"))


def test_the_chart_of_bench_has_a_bar_for_each_detector(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(benches, "draw_bars", lambda panels, file: drawn.extend(panels) or file)
    two = replace(ONE, runtime="onnxruntime, cpu", ms=5.25)
    benches._draw(tmp_path / "x.png", [ONE, two])
    assert [[(bar.name, bar.length, bar.note) for bar in panel.bars] for panel in drawn[:1]] == [
        [("paa-tiny, PyTorch, cpu", 10.0, "10.0"), ("paa-tiny, onnxruntime, cpu", 5.25, "5.2")]
    ]
    assert [len(panel.bars) for panel in drawn] == [2, 2, 2, 0]
    drawn.clear()
    benches._draw(tmp_path / "x.png", [ONE, replace(two, ap=12.34)])
    (bar,) = drawn[3].bars
    assert (bar.name, bar.length, bar.note) == ("paa-tiny, onnxruntime, cpu", 12.34, "12.3")


@pytest.fixture(scope="module")
def data96(tmp_path_factory):
    from ladle.data.scenes import write_coco

    folder = tmp_path_factory.mktemp("data")
    write_coco(folder, train=1, val=6, size=96)
    return str(folder)


def test_operations_are_counted_as_multiplications_and_additions():
    from ladle.exporting import network_cost

    detector = small_detector("rtmdet-tiny")
    stem = detector.backbone.body.stem[0]
    cost = network_cost(detector, 64)
    first = 2 * 32 * 32 * stem.weight.numel()
    assert cost.flops > 5 * first
    assert network_cost(detector, 128).flops == 4 * cost.flops


def test_a_cost_is_that_of_a_detector_in_use_and_leaves_it_as_it_was():
    """In training, batch normalization refuses a map of one value, and its statistics would change."""
    from ladle.exporting import network_cost
    from ladle.families import detector_spec

    detector = detector_spec("yolox-n", ["cat"]).build().train()
    before = {name: value.clone() for name, value in detector.state_dict().items()}
    assert network_cost(detector, 32).flops == network_cost(detector.eval(), 32).flops
    assert network_cost(detector.train(), 32).flops > 0
    assert detector.training
    assert all(torch.equal(value, before[name]) for name, value in detector.state_dict().items())
