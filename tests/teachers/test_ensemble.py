"""Several teachers find together what any of them finds."""

import pytest
import torch

from ladle.errors import UserError
from ladle.teachers import open_teacher
from tests.teachers.batches import batch_of
from tests.teachers.onnx_files import boxes_and_scores, yolo


def test_boxes_of_all_members_are_joined_by_class_name(tmp_path):
    first = boxes_and_scores(tmp_path / "first.onnx", names=("red", "x", "y"))
    second = yolo(tmp_path / "second.onnx", names=("rot", "z", "blue"))
    images = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
    images[0, 0, 8:16, 24:32] = 204
    images[0, 2, 40:48, 0:8] = 102
    teacher = open_teacher(f"ensemble:onnx:{first}?pad=0,{second}", ["blue", "red"])
    assert teacher.detector.classes == ("red", "x", "y", "rot", "z", "blue")
    assert teacher.info.name == "first.onnx+second.onnx"
    found, _ = teacher.observe(batch_of(images))
    scores = found.logits.sigmoid()[0]
    red, blue = scores[:, 1].argmax(), scores[:, 0].argmax()
    assert found.boxes[0, red].tolist() == [24.0, 8.0, 32.0, 16.0]
    assert found.boxes[0, blue].tolist() == [0.0, 40.0, 8.0, 48.0]
    assert [float(scores[red, 1]), float(scores[blue, 0])] == pytest.approx([0.8, 0.4], rel=1e-3)


def test_what_two_members_find_is_found_once(tmp_path):
    file = boxes_and_scores(tmp_path / "one.onnx")
    images = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
    images[0, 0, 8:16, 24:32] = 204
    alone, both = (open_teacher(text, ["red"]) for text in (str(file), f"ensemble:{file},{file}"))
    one, other = (teacher.observe(batch_of(images))[0] for teacher in (alone, both))
    assert torch.equal(one.boxes, other.boxes)


def test_each_member_has_its_own_match_with_the_student_s_classes(tmp_path):
    """By name, spelling, synonym and its own ?class_map=, as one teacher alone has."""
    (tmp_path / "map.yaml").write_text("cat: y\ndog: y\n")
    first = boxes_and_scores(tmp_path / "first.onnx", names=("Dining-Table", "x", "y"))
    second = boxes_and_scores(tmp_path / "second.onnx", names=("table", "cat", "dining table"))
    images = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
    images[0, 0, 8:16, 24:32] = 204  # the first class of both
    images[0, 2, 40:48, 0:8] = 102  # the third
    ours = ["dining table", "cat", "dog"]
    teacher = open_teacher(f"ensemble:onnx:{first}?class_map={tmp_path / 'map.yaml'},{second}", ours)
    assert teacher.detector.classes == ("dining table", "x", "cat", "dog", "table")
    assert "first.onnx: 3 of the student's 3 classes are known to the teacher: " in " ".join(teacher.detector.about)
    found, _ = teacher.observe(batch_of(images))
    best = found.logits.sigmoid()[0].amax(0)
    # The table of the first is 0.8, that of the second 0.4: its class called table is not the student's.
    assert best.tolist() == pytest.approx([0.8, 0.4, 0.4], rel=1e-3)
    places = found.boxes[0, found.logits[0].argmax(0)]
    assert places.tolist() == [[24.0, 8.0, 32.0, 16.0], [0.0, 40.0, 8.0, 48.0], [0.0, 40.0, 8.0, 48.0]]


def test_a_member_that_knows_no_class_is_named(tmp_path):
    first, second = (boxes_and_scores(tmp_path / f"{name}.onnx", names=(name, "x", "y")) for name in ("red", "rot"))
    with pytest.raises(UserError, match=r"rot\.onnx.* knows none of the student's classes red"):
        open_teacher(f"ensemble:{first},{second}", ["red"])


def test_less_than_two_that_run_are_refused(tmp_path):
    file = boxes_and_scores(tmp_path / "one.onnx")
    with pytest.raises(UserError, match="two or more detectors that run, joined by commas, found one"):
        open_teacher(f"ensemble:{file}", ["red"])
    with pytest.raises(UserError, match=r"found cache\.jsonl"):
        open_teacher(f"ensemble:{file},cache.jsonl", ["red"])
