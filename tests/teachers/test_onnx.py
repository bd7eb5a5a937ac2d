"""ONNX files of every layout are read alike, and what is not understood is refused in a sentence."""

import pytest
import torch

from ladle.detectors import Anchors
from ladle.errors import UserError
from ladle.teachers import Teacher, open_teacher
from ladle.teachers.layouts import find_layout, grids_of
from ladle.teachers.program import Program, class_names, open_program
from ladle.teachers.uri import parse_uri
from tests.teachers.batches import batch_of
from tests.teachers.onnx_files import NAMES, as_many_as_found, boxes_and_scores, detections, detr, distributions, yolo

PRIORS = Anchors(offset=0.5).grid([(8, 8)], [8], None, torch.device("cpu"))
FILES = {
    "boxes": (boxes_and_scores, "&strides=8"),
    "yolo": (yolo, "&strides=8"),
    "yolo-objectness": (lambda path: yolo(path, objectness=True), "&strides=8"),
    "distributions": (distributions, "&strides=8&offset=0.5"),
}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("onnx")
    return {name: str(make(folder / f"{name}.onnx")) for name, (make, _) in FILES.items()}


@pytest.fixture(scope="module")
def batch():
    """Two images of grey, with one cell of bright red and one of dim blue."""
    images = torch.zeros(2, 3, 64, 64, dtype=torch.uint8)
    images[0, 0, 8:16, 24:32] = 204
    images[1, 2, 40:48, 0:8] = 102
    return batch_of(images)


@pytest.mark.parametrize("layout", FILES)
def test_every_layout_gives_scores_and_boxes_at_its_places(files, batch, layout):
    teacher = open_teacher(f"onnx:{files[layout]}?{FILES[layout][1]}", ("blue", "red"))
    output = teacher.predict_at(teacher.observe(batch), PRIORS)
    factor = 0.5 if layout == "yolo-objectness" else 1.0
    scores = output.predictions.scores.view(2, 8, 8, 2)
    assert scores[0, 1, 3].tolist() == pytest.approx([1e-4, 0.8 * factor], rel=1e-3)
    assert scores[1, 5, 0].tolist() == pytest.approx([0.4 * factor, 1e-4], rel=1e-3)
    assert int((scores > 0.01).sum()) == 2
    spread = 4.0 if layout == "distributions" else 0.0
    wanted = torch.tensor([24 - spread, 8 - spread, 32 + spread, 16 + spread])
    assert torch.allclose(output.predictions.boxes[0, 11], wanted, atol=1e-3)
    assert isinstance(teacher, Teacher)
    assert (teacher.info.stage(0).bins, output.predictions.edges is not None) == (
        (4, True) if layout == "distributions" else (0, False)
    )


def test_the_number_of_final_boxes_may_differ_from_image_to_image(tmp_path):
    teacher = open_teacher(str(as_many_as_found(tmp_path / "some.onnx")), NAMES)
    images = torch.zeros(4, 3, 64, 64, dtype=torch.uint8)
    images[1, 0, 8:16, 24:32] = 204
    images[3, 2, :8, :8] = images[3, 1, 56:, 56:] = 153
    batch = batch_of(images)
    found, _ = teacher.observe(batch)
    each = found.detections(batch)
    assert [one.boxes.tolist() for one in each[:3]] == [[], [[24.0, 8.0, 32.0, 16.0]], []]
    assert sorted(zip(each[3].labels.tolist(), each[3].boxes.tolist(), strict=True)) == [
        (1, [56.0, 56.0, 64.0, 64.0]),
        (2, [0.0, 0.0, 8.0, 8.0]),
    ]
    assert each[1].scores.tolist() == pytest.approx([0.8], rel=1e-4)


def test_the_boxes_of_a_detr_are_fractions_and_its_scores_logits(tmp_path, batch):
    teacher = open_teacher(str(detr(tmp_path / "detr.onnx")), NAMES)
    assert "gives final boxes (layout detr)" in teacher.detector.about
    first, second = teacher.detector.find(batch).detections(batch)
    assert (first.boxes.tolist(), first.labels.tolist()) == ([[24.0, 8.0, 32.0, 16.0]], [0])
    assert (second.boxes.tolist(), second.labels.tolist()) == ([[0.0, 40.0, 8.0, 48.0]], [2])
    assert [*first.scores.tolist(), *second.scores.tolist()] == pytest.approx([0.8, 0.4], rel=1e-4)


def test_logits_in_the_place_of_scores_are_refused(tmp_path):
    file = str(detr(tmp_path / "odd.onnx", logits=("a", "b")))
    with pytest.raises(UserError, match=r"its output a has values from -9\.21 to -9\.21, .* add \?layout=detr"):
        open_teacher(file, NAMES)
    assert "gives final boxes (layout detr)" in open_teacher(f"{file}?layout=detr", NAMES).detector.about


def test_of_four_classes_the_scores_are_told_from_the_boxes_by_name():
    """Both outputs have four columns; only the scores must be probabilities."""
    boxes, scores = torch.tensor([[[8.0, 8.0, 40.0, 40.0]]]), torch.tensor([[[0.1, 0.2, 0.9, 0.0]]])
    program = Program(lambda images: {"scores": scores, "boxes": boxes}, (1, 3, 64, 64), {"names": "a,b,c,d"}, print)
    assert open_program(parse_uri("onnx:a.onnx"), program).layout == "boxes"
    swapped = program._replace(run=lambda images: {"scores": boxes, "boxes": scores})
    with pytest.raises(UserError, match=r"its output scores has values from 8 to 40"):
        open_program(parse_uri("onnx:a.onnx"), swapped)


def test_detections_of_an_end_to_end_file_are_as_they_are(tmp_path, batch):
    teacher = open_teacher(str(detections(tmp_path / "end.onnx")), NAMES)
    assert "gives final boxes (layout detections)" in teacher.detector.about
    for found in teacher.detector.find(batch).detections(batch):
        assert found.boxes.tolist() == [[8.0, 16.0, 40.0, 48.0], [24.0, 8.0, 32.0, 16.0]]
        assert found.labels.tolist() == [2, 0]
        assert found.scores.tolist() == pytest.approx([0.9, 0.8], rel=1e-4)
    with pytest.raises(UserError, match=r"expected the names of its classes, found none in its metadata"):
        open_teacher(str(detections(tmp_path / "bare.onnx", names=None)), NAMES)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("{'red': 0, 'x': 1, 'blue': 2}", ("red", "x", "blue")),
        ('{"2": "blue", "0": "red", "10": "y"}', ("red", "blue", "y")),
        ("{1: 'b', 0: 'a'}", ("a", "b")),
        ('{"a": "red", "b": "x"}', ("red", "x")),
        ('{"names": ["red", "x", "blue"]}', None),
        ("[1, 2, 3]", None),
        ("red, x\nblue", ("red", "x", "blue")),
    ],
)
def test_names_of_classes_in_the_metadata_of_a_file(text, names):
    assert class_names(parse_uri("onnx:a.onnx"), {"names": text}) == names


def test_a_layout_that_outputs_do_not_have_is_refused_with_their_names(files):
    with pytest.raises(UserError, match=r"boxes \(1, 64, 4\), scores \(1, 64, 3\) are not of layout distributions"):
        open_teacher(f"onnx:{files['boxes']}?layout=distributions", NAMES)


def test_final_boxes_are_suppressed_and_placed(files, batch):
    teacher = open_teacher(files["boxes"], NAMES)
    assert "gives final boxes (layout boxes)" in teacher.detector.about
    found, _ = teacher.observe(batch)
    assert found.boxes.shape == (2, 1, 4)
    assert found.boxes[0, 0].tolist() == [24.0, 8.0, 32.0, 16.0]
    one = teacher.predict_at((found, batch.sizes), PRIORS).predictions.scores.view(2, 8, 8, 3)
    assert torch.isclose(one[0, 1, 3, 0], torch.tensor(0.8))


def test_detections_are_in_pixels_of_the_files(files, batch):
    teacher = open_teacher(files["yolo"] + "?strides=8", NAMES)
    found, _ = teacher.observe(batch)
    seen = found.detections(batch.__class__(batch.images, batch.truth, batch.sizes, 2 * batch.sizes, batch.ids))
    assert [one.labels.tolist() for one in seen] == [[0], [2]]
    assert seen[0].boxes.tolist() == [[48.0, 16.0, 64.0, 32.0]]


def test_half_precision_of_the_student_changes_nothing(files, batch):
    teacher = open_teacher(files["distributions"] + "?strides=8", NAMES)
    wanted, _ = teacher.observe(batch)
    with torch.autocast("cpu", torch.bfloat16):
        found, _ = teacher.observe(batch)
    assert torch.equal(found.logits, wanted.logits)
    assert torch.equal(found.boxes, wanted.boxes)


def test_channel_order_and_range_change_what_it_finds(files, batch):
    blue_first = open_teacher(files["boxes"] + "?strides=8&bgr=1&std=2", NAMES)
    scores = blue_first.predict_at(blue_first.observe(batch), PRIORS).predictions.scores.view(2, 8, 8, 3)
    assert scores[0, 1, 3].tolist() == pytest.approx([1e-4, 1e-4, 0.4], rel=1e-3)


def test_images_of_other_sizes_are_judged_in_the_student_s_pixels(files):
    images = torch.zeros(1, 3, 128, 96, dtype=torch.uint8)
    images[0, 0, 16:32, 48:64] = 204
    teacher = open_teacher(files["boxes"] + "?strides=8", NAMES)
    found, _ = teacher.observe(batch_of(images, [[128, 64]]))
    best = found.logits[0, :, 0].argmax()
    assert found.boxes[0, best].tolist() == [48.0, 16.0, 56.0, 32.0]


def test_layouts_are_told_by_name_and_shape_or_refused():
    assert find_layout({"b": (1, 300, 4), "s": (1, 300, 80)}, None) == "boxes"
    assert find_layout({"output0": (1, 84, 8400)}, None) == "yolo"
    assert find_layout({"output": (1, 25200, 85)}, None) == "yolo-objectness"
    assert find_layout({"class_scores": (1, 3549, 80), "box_distributions": (1, 3549, 44)}, 80) == "distributions"
    for name in ("logits", "pred_logits"):
        assert find_layout({name: (1, 300, 80), "pred_boxes": (1, 300, 4)}, 80) == "detr"
    for classes in (None, 1, 80):
        assert find_layout({"output0": (1, 300, 6)}, classes) == "detections"
    assert find_layout({"output": (1, 8400, 6)}, 1) == "yolo-objectness"
    for shapes in ({"x": (1, 3)}, {"a": (1, 5, 4), "b": (1, 5, 4), "c": (1, 5, 4)}, {"a": (1, 9, 9)}):
        with pytest.raises(ValueError, match=r"are none of the known layouts; name one by \?layout="):
            find_layout(shapes, None)


def test_places_are_told_by_their_number():
    assert [grid.stride for grid in grids_of(8400, 640, 640, None)] == [8, 16, 32]
    assert [grid.stride for grid in grids_of(3598, 416, 416, None)] == [8, 16, 32, 64]
    assert grids_of(300, 640, 640, None) is None
    with pytest.raises(ValueError, match="strides 8 give 64 places, but there are 63"):
        grids_of(63, 64, 64, (8,))


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("?layout=yolo", "are not of layout yolo"),
        ("?layout=odd", r"\?layout=odd: expected one of"),
        ("?color=1", "onnx has no option 'color'; it takes"),
        ("?strides=16", r"strides 16 give 16 places, but there are 64"),
        ("?strides=x", r"\?strides=x: expected whole numbers"),
        ("?imgsz=32", "takes images of 64x64 pixels only"),
        ("?mean=1,2", r"\?mean=1,2: expected a number, or 3 with commas"),
        ("?std=0", r"\?std=0: expected numbers other than 0"),
        ("?resize=crop", r"\?resize=crop: expected one of stretch, letterbox, corner"),
        ("?classes=coco80", "expected the names of its 3 classes, found 80"),
        ("?classes=none.txt", "expected a text file with one name in each line"),
        ("?class_map=none.yaml", "there is no such file; expected YAML"),
        ("?bgr=1&bgr=0", "each once"),
    ],
)
def test_what_is_not_understood_is_refused(files, query, named):
    with pytest.raises(UserError, match=named) as raised:
        open_teacher(files["boxes"] + query, NAMES)
    assert str(raised.value).startswith(f"--teacher {files['boxes']}{query}: ")


def test_files_that_are_no_detectors_are_refused(tmp_path):
    with pytest.raises(UserError, match="there is no file"):
        open_teacher("onnx:nowhere.onnx", NAMES)
    (tmp_path / "text.onnx").write_text("text")
    with pytest.raises(UserError, match="onnxruntime cannot run it"):
        open_teacher(str(tmp_path / "text.onnx"), NAMES)
    with pytest.raises(UserError, match="'ftp' is no kind of teacher"):
        open_teacher("ftp:file", NAMES)
    with pytest.raises(UserError, match="ladle has no option 'imgsz'; it takes none"):
        open_teacher("best.safetensors?imgsz=64", NAMES)
    nameless = boxes_and_scores(tmp_path / "nameless.onnx", names=None)
    with pytest.raises(UserError, match="expected the names of its 3 classes, found none in its metadata"):
        open_teacher(str(nameless), NAMES)


def test_names_and_pairs_from_files(tmp_path, files):
    (tmp_path / "names.txt").write_text("rot\ngruen\n\nblau\n")
    (tmp_path / "map.yaml").write_text("sky: blau\n")
    text = f"{files['boxes']}?classes={tmp_path / 'names.txt'}&class_map={tmp_path / 'map.yaml'}"
    assert open_teacher(text, ["sky", "rot"]).table.columns == (2, 0)
    with pytest.raises(UserError, match="knows none of the student's classes x: it knows rot, gruen, blau"):
        open_teacher(text.partition("&")[0], ["x"])


def test_a_missing_onnxruntime_names_the_extra(files, monkeypatch):
    monkeypatch.setattr("ladle.teachers.onnx_file.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs onnxruntime: pip install 'ladle\[onnx\]'"):
        open_teacher(files["boxes"], NAMES)
