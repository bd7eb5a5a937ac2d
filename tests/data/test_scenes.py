import json

import numpy as np
import pytest
import torch
from PIL import Image

from ladle.data.drawing import LOOKALIKES, OUTLINES, paint, place
from ladle.data.scenes import CLASSES, Difficulty, Scenes, split_scenes, write_coco
from ladle.errors import UserError


def sides(boxes):
    return boxes[:, 2:] - boxes[:, :2]


@pytest.fixture(scope="module")
def many():
    return list(Scenes(200, seed=5, size=96))


def test_a_scene_is_a_pure_function_of_seed_and_index():
    first, second = Scenes(50, seed=3), Scenes(9, seed=3)
    first.sample(2)
    ours, theirs = first.sample(7), second.sample(7)
    for name in ("image", "boxes", "labels", "crowd"):
        assert torch.equal(getattr(ours, name), getattr(theirs, name))
    assert not torch.equal(ours.image, Scenes(9, seed=4).sample(7).image)


def test_scenes_draw_nothing_from_the_global_generators():
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()
    Scenes(1).sample(0)
    assert torch.equal(before, torch.get_rng_state())
    assert np.array_equal(numpy_before, np.random.get_state()[1])


@pytest.mark.slow
def test_every_scene_has_an_object_and_every_box_lies_inside(many):
    for sample in many:
        assert sample.image.shape == (3, 96, 96)
        assert len(sample.boxes) >= 1
        assert sides(sample.boxes).min() > 1
        assert sample.boxes.min() >= 0
        assert sample.boxes.max() <= 96


def test_all_classes_sizes_and_crowds_occur(many):
    longest = torch.cat([sides(s.boxes).amax(1) for s in many])
    assert torch.cat([s.labels for s in many]).bincount(minlength=len(CLASSES)).min() > 50
    assert longest.max() / longest.median() > 3
    assert longest.max() / longest.min() > 8
    assert sum(int(s.crowd.sum()) for s in many) > 3


def test_boxes_enclose_what_is_drawn_to_the_pixel():
    random = np.random.default_rng(0)
    for outline in (*OUTLINES.values(), *LOOKALIKES):
        points = place(outline, random.uniform(8.0, 60.0), random.uniform(20, 76, 2), random)
        canvas, drawn = paint(np.zeros((96, 96, 3), np.float32), [points], random, (0.5, 0.6), 0.0, 0.9)
        rows, columns = np.nonzero(canvas.max(-1) > 0.02)
        seen = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        meant = np.concatenate([points.min(0), points.max(0)]).clip(0, 96)
        assert drawn == [0]
        assert np.abs(seen - meant).max() <= 1.01


def test_a_hidden_shape_is_left_out():
    square = OUTLINES["square"] * 20 + 48
    canvas = np.zeros((96, 96, 3), np.float32)
    shapes = [square, square * 0.5 + 24, square + np.array([20, 0]), square + np.array([60, 0])]
    _, drawn = paint(canvas, shapes, np.random.default_rng(0), (0.5, 0.6), 0.0, 0.6)
    assert drawn == [0, 2]  # the second lies behind the first, most of the last one outside


def test_difficulty_bounds_the_number_and_the_size_of_objects():
    easy = Difficulty(smallest=0.2, largest=0.3, most_objects=2, herd_rate=0.0)
    for sample in Scenes(20, size=100, difficulty=easy):
        assert len(sample.boxes) <= 2
        assert sides(sample.boxes).amax() <= 30.01


def test_train_and_val_share_no_seed():
    seeds = [scenes.seed for seed in range(5) for scenes in split_scenes(1, 1, seed)]
    assert len(set(seeds)) == len(seeds)


def test_a_written_folder_holds_the_same_scenes(tmp_path):
    write_coco(tmp_path, train=3, val=2, seed=1, size=64)
    train, val = split_scenes(3, 2, seed=1, size=64)
    for split, scenes in (("train", train), ("val", val)):
        content = json.loads((tmp_path / "annotations" / f"instances_{split}.json").read_text())
        assert [c["name"] for c in content["categories"]] == list(CLASSES)
        for sample, image in zip(scenes, content["images"], strict=True):
            pixels = np.asarray(Image.open(tmp_path / split / image["file_name"]))
            rows = [a for a in content["annotations"] if a["image_id"] == image["id"]]
            boxes = torch.tensor([a["bbox"] for a in rows])
            boxes[:, 2:] += boxes[:, :2]
            assert torch.equal(torch.from_numpy(pixels.copy()).permute(2, 0, 1), sample.image)
            assert torch.allclose(boxes, sample.boxes, atol=1e-4)
            assert [a["category_id"] - 1 for a in rows] == sample.labels.tolist()
            assert [bool(a["iscrowd"]) for a in rows] == sample.crowd.tolist()


def test_impossible_scenes_are_refused():
    with pytest.raises(UserError, match="at least 32"):
        Scenes(1, size=8)
    with pytest.raises(IndexError):
        Scenes(1).sample(1)
