"""Recorded predictions are read back exactly, or refused."""

import json

import pytest
import torch

from ladle.data.loader import collate
from ladle.data.predicted import WithPredictions
from ladle.data.scenes import split_scenes
from ladle.errors import UserError
from ladle.teachers import CacheHeader, cache_line, open_teacher, read_cache
from ladle.types import Detections
from tests.teachers.batches import batch_of

SOURCE, _ = split_scenes(train=3, val=1, size=64)
HEADER = CacheHeader("onnx:teacher.onnx", "0" * 64, ("cat", "dog"), 640, {"train": "1" * 64})
FOUND = {
    0: Detections(torch.tensor([[1.1, 2.2, 30.3, 40.4]]), torch.tensor([0.7]), torch.tensor([1])),
    1: Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0).long()),
    2: Detections(
        torch.tensor([[0.0, 0.0, 10.0, 10.0], [3.0, 4.0, 5.0, 60.0]]), torch.tensor([0.9, 0.2]), torch.tensor([0, 1])
    ),
}


@pytest.fixture
def cache(tmp_path):
    lines = [HEADER.line(), *(cache_line("train", image, one) for image, one in FOUND.items())]
    file = tmp_path / "cache.jsonl"
    file.write_text("\n".join(lines) + "\n")
    return file


def found_in_views(teacher):
    source = WithPredictions(SOURCE, teacher.detector.boxes, teacher.detector.rows["train"])
    return teacher.observe(collate([source.sample(index) for index in range(3)]))[0]


def test_a_cache_is_read_back_bit_for_bit(cache):
    header, images = read_cache(cache)
    assert header == HEADER
    for image, one in FOUND.items():
        assert all(
            torch.equal(getattr(images["train"][image], part), getattr(one, part))
            for part in ("boxes", "scores", "labels")
        )


def test_it_teaches_the_recorded_boxes_and_scores_at_each_image(cache):
    found = found_in_views(open_teacher(str(cache), ["dog"]))
    assert torch.equal(found.boxes[0, 0], FOUND[0].boxes[0])
    assert torch.equal(found.boxes[2, :2], FOUND[2].boxes)
    scores = found.logits.sigmoid()[..., 0]
    assert torch.allclose(scores, torch.tensor([[0.7, 1e-4], [1e-4, 1e-4], [1e-4, 0.2]]), atol=1e-6)


def test_coco_results_by_id_or_file_name(tmp_path):
    rows = [
        {"image_id": 0, "category_id": 7, "bbox": [1, 2, 3, 4], "score": 0.5},
        {"file_name": "folder/b.jpg", "category_id": 9, "bbox": [0, 0, 8, 8], "score": 1},
    ]
    file = tmp_path / "predictions.json"
    file.write_text(json.dumps(rows))
    teacher = open_teacher(str(file), ["cat", "dog"], [7, 9])
    assert teacher.detector.rows == {"": {0: (0, 1), "folder/b.jpg": (1, 2)}}
    assert teacher.detector.boxes.tolist() == [[1, 2, 4, 6], [0, 0, 8, 8]]
    assert teacher.detector.labels.tolist() == [0, 1]
    file.write_text(json.dumps([{"image_id": 0, "category_id": 90, "bbox": [1, 2, 3, 4], "score": 0.5}]))
    coco = open_teacher(f"{file}?classes=coco80", ["toothbrush"])
    assert coco.table.columns == (79,)
    assert coco.detector.labels.tolist() == [79]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[]", "a JSON list with at least one detection"),
        ("{}", "a JSON list with at least one detection"),
        ('[{"image_id": 1, "category_id": 7, "bbox": [1, 2, 3, 4], "score": 2}]', "entry 1: expected image_id"),
        ('[{"image_id": 1, "category_id": 8, "bbox": [1, 2, 3, 4], "score": 1}]', "category_id of the data"),
        ('[{"image_id": 1, "category_id": 7, "bbox": [1, 2, 3], "score": 1}]', "bbox as x y w h"),
        ("nonsense", "expected JSON"),
    ],
)
def test_other_files_are_refused(tmp_path, text, named):
    file = tmp_path / "predictions.json"
    file.write_text(text)
    with pytest.raises(UserError, match=named):
        open_teacher(str(file), ["cat"], [7])


def test_damaged_caches_are_refused_and_an_unfinished_line_is_left_out(cache):
    whole = cache.read_text()
    cache.write_text(whole[:-20])
    assert list(read_cache(cache)[1]["train"]) == [0, 1]
    for text, named in (
        ("[1, 2]\n", "expected a cache written by"),
        (
            HEADER.line() + '\n{"split": "train", "id": 1}\n',
            "line 2: expected boxes, scores and labels of its 2 classes",
        ),
        (whole.replace('"labels": [1]', '"labels": [2]'), "line 2: expected boxes"),
        (whole.replace('"imgsz": 640', '"imgsz": "x"'), "make the cache anew"),
    ):
        cache.write_text(text)
        with pytest.raises(UserError, match=named):
            read_cache(cache)


def test_a_batch_without_recorded_boxes_holds_nothing(cache):
    found, _ = open_teacher(str(cache), ["cat"]).observe(batch_of(torch.zeros(2, 3, 64, 64)))
    assert found.boxes.shape == (2, 0, 4)
