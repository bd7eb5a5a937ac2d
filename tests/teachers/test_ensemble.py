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


def test_less_than_two_that_run_are_refused(tmp_path):
    file = boxes_and_scores(tmp_path / "one.onnx")
    with pytest.raises(UserError, match="two or more detectors that run, joined by commas, found one"):
        open_teacher(f"ensemble:{file}", ["red"])
    with pytest.raises(UserError, match=r"found cache\.jsonl"):
        open_teacher(f"ensemble:{file},cache.jsonl", ["red"])
