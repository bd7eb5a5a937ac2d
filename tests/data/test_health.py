import json
from pathlib import Path

import pytest
from PIL import Image

from ladle.data import inspect
from ladle.errors import UserError

CAT, DOG = 1, 2


def split(folder: Path, name: str, pictures: dict[str, list[tuple[int, int]]], shade: int) -> None:
    """A COCO split: for each picture (category, side) of its objects; the shade keeps pictures of splits apart."""
    images, annotations = [], []
    for number, (file, objects) in enumerate(pictures.items(), start=1):
        (folder / name).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (200, 100 + number), (shade, 0, 0)).save(folder / name / file)
        images.append({"id": number, "file_name": file, "width": 200, "height": 100 + number})
        annotations += [
            {"id": len(annotations) + n, "image_id": number, "category_id": category, "bbox": [0, 0, side, side]}
            for n, (category, side) in enumerate(objects)
        ]
    categories = [{"id": CAT, "name": "cat"}, {"id": DOG, "name": "dog"}]
    document = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "annotations").mkdir(exist_ok=True)
    (folder / "annotations" / f"{name}.json").write_text(json.dumps(document))


@pytest.fixture
def data(tmp_path):
    split(tmp_path, "train", {"a.png": [(CAT, 10), (CAT, 50), (DOG, 98)], "b.png": []}, shade=1)
    split(tmp_path, "val", {"c.png": [(CAT, 20)]}, shade=2)
    return tmp_path


def test_everything_is_counted(data):
    health = inspect(data)
    train, val = health.splits
    assert (train.name, train.pictures, train.empty, train.objects) == ("train", 2, 1, 3)
    assert (train.classes, train.counts) == (("cat", "dog"), (2, 1))
    assert (train.small, train.medium, train.large) == (1, 1, 1)
    assert (train.sides[0], train.sides[2], train.sides[4]) == (10, 50, 98)
    assert (train.heights[0], train.heights[4], train.widths[2]) == (101, 102, 200)
    assert (train.per_picture[0], train.per_picture[4]) == (0, 3)
    assert val.absent == ("dog",)
    assert (health.format, health.fatal, health.shared) == ("coco", (), ())


def test_the_report_says_it_all(data):
    report = inspect(data).render()
    for words in ("COCO", "train: 2 pictures, 1 of them without objects, 3 objects", "no object of: 'dog'", "no fatal"):
        assert words in report


def test_copies_in_two_splits_are_found_by_content(data):
    (data / "val" / "c.png").write_bytes((data / "train" / "a.png").read_bytes())
    health = inspect(data)
    assert health.shared == ("train/a.png = val/c.png",)
    assert "train/a.png = val/c.png" in health.render()


def test_damaged_pictures_are_fatal_and_named(data):
    whole = (data / "train" / "b.png").read_bytes()
    (data / "train" / "b.png").write_bytes(whole[: len(whole) // 2])
    (sentence,) = inspect(data).fatal
    assert "b.png" in sentence
    assert "FATAL: train: b.png" in inspect(data).render()
    assert inspect(data, decode=False).fatal == ()


def test_a_broken_split_is_reported_beside_the_sound_one(data):
    (data / "annotations" / "val.json").write_text("{")
    health = inspect(data)
    assert [one.name for one in health.splits] == ["train"]
    assert "val.json" in health.fatal[0]


def test_a_split_without_objects_cannot_be_trained_on(data):
    split(data, "train", {"a.png": []}, shade=3)
    assert inspect(data, ["train"]).fatal == ("train: no objects to learn",)


def test_splits_must_agree_on_their_classes(data):
    file = data / "annotations" / "val.json"
    file.write_text(file.read_text().replace("dog", "wolf"))
    assert any("same classes" in sentence for sentence in inspect(data).fatal)


def test_nothing_to_examine_is_a_mistake(tmp_path):
    with pytest.raises(UserError, match="COCO"):
        inspect(tmp_path)
