import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ladle.data import inspect
from ladle.errors import UserError

CAT, DOG = 1, 2


def split(folder: Path, name: str, named: dict[str, list[tuple[int, int]]], shade: int) -> None:
    """A COCO split: for each image (category, side) of its objects; the shade keeps images of splits apart."""
    images, annotations = [], []
    for number, (file, objects) in enumerate(named.items(), start=1):
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
    assert (train.name, train.images, train.empty, train.objects) == ("train", 2, 1, 3)
    assert (train.classes, train.counts) == (("cat", "dog"), (2, 1))
    assert (train.small, train.medium, train.large) == (1, 1, 1)
    assert (train.sides[0], train.sides[2], train.sides[4]) == (10, 50, 98)
    assert (train.heights[0], train.heights[4], train.widths[2]) == (101, 102, 200)
    assert (train.per_image[0], train.per_image[4]) == (0, 3)
    assert val.absent == ("dog",)
    assert (health.format, health.fatal, health.shared) == ("coco", (), ())


def test_the_report_is_complete(data):
    report = inspect(data).render()
    for words in ("COCO", "train: 2 pictures, 1 of them without objects, 3 objects", "no object of: 'dog'", "no fatal"):
        assert words in report


def test_copies_in_two_splits_are_found_by_content(data):
    (data / "val" / "c.png").write_bytes((data / "train" / "a.png").read_bytes())
    health = inspect(data)
    assert health.shared == ("train/a.png = val/c.png",)
    assert "train/a.png = val/c.png" in health.render()


def test_damaged_images_are_fatal_and_named(data):
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


def test_a_broken_split_that_training_does_not_read_is_reported_and_not_fatal(data):
    (data / "annotations" / "test.json").write_text("{")
    health = inspect(data)
    assert health.fatal == ()
    (sentence,) = health.aside
    assert sentence.startswith("test: ")
    assert f"not read by training: {sentence}" in health.render()
    assert "no fatal defects" in health.render()


@pytest.mark.parametrize(
    ("images", "changed", "told"),
    [
        ({"d.png": []}, ("", ""), "test: no objects to score"),
        (
            {"d.png": [(CAT, 20)]},
            ("dog", "gnu"),
            "train and test: expected the same classes, found 'gnu' in test alone",
        ),
        ({"d.png": [(9, 20)]}, ("", ""), "category_id 9 is not in 'categories'"),
    ],
)
def test_a_split_that_only_tests_may_be_what_training_could_not_be(data, images, changed, told):
    split(data, "test", images, shade=3)
    file = data / "annotations" / "test.json"
    file.write_text(file.read_text().replace(*changed) if changed[0] else file.read_text())
    health = inspect(data)
    assert health.fatal == ()
    assert told in " ".join(health.aside)
    assert any("test: " in sentence for sentence in inspect(data, ["train", "test"]).fatal), "asked for, it is judged"


def test_a_split_that_stands_in_is_judged_and_named(data):
    (data / "annotations" / "val.json").rename(data / "annotations" / "test.json")
    (data / "val").rename(data / "test")
    health = inspect(data)
    assert (health.fatal, health.aside) == ((), ())
    assert health.splits[1].notes == ("there is no split 'val'; 'test' stands in for it",)
    split(data, "test", {"d.png": []}, shade=3)
    assert inspect(data).fatal == ("test: no objects to score",)


@pytest.mark.parametrize("gone", ["train", "val"])
def test_a_missing_split_that_training_needs_is_fatal(data, gone):
    (data / "annotations" / f"{gone}.json").unlink()
    (sentence,) = inspect(data).fatal
    assert f"expected a split '{gone}'" in sentence


def test_one_file_for_both_splits_is_reported(data):
    health = inspect(data / "annotations" / "train.json")
    assert health.fatal == ()
    assert health.splits[0].notes == (
        "train.json is one split by itself and is read as 'val', as it is for any other split",
        "the same images train and validate",
    )


def test_small_objects_are_reported_for_the_given_size(data):
    told = "1 of 3 objects have a side under 8 pixels at --imgsz 100"
    assert told in inspect(data, imgsz=100).splits[0].notes
    assert f"note: {told}" in inspect(data, imgsz=100).render()
    assert inspect(data).splits[0].notes == ()
    (sentence,) = inspect(data, imgsz=2).fatal
    assert sentence.startswith("train: every object has a side under 1 pixel at --imgsz 2")


def test_sixteen_bits_are_reported_with_the_values_of_all_splits(data):
    for file, value in (("train/a.png", 900), ("val/c.png", 3000)):
        with Image.open(data / file) as image:
            Image.fromarray(np.full((image.height, image.width), value, dtype=np.uint16)).save(data / file)
    health = inspect(data)
    told = "images have 16 bits a channel: values up to 0 become black, from 4095 on white (--value-range 0,4095)"
    assert [one.notes for one in health.splits] == [(f"1 of 2 {told}",), (f"1 of 1 {told}",)]
    said = "the values of 16 bits lie between 900 and 3000, so that they are read with --value-range 0,4095"
    assert health.notes == (said,)
    assert f"note: {said}" in health.render()
    assert inspect(data, decode=False).splits[1].notes == ("1 of 1 images have 16 bits a channel",)


def test_other_ids_for_the_same_classes_are_reported_and_not_fatal(data):
    file = data / "annotations" / "val.json"
    file.write_text(file.read_text().replace('"id": 2, "name"', '"id": 7, "name"'))
    health = inspect(data)
    assert health.fatal == ()
    assert health.notes == ("train and val number their classes differently; they are matched by name",)


def test_a_pipe_in_the_place_of_a_image_is_a_defect_and_not_waited_for(data):
    (data / "train" / "b.png").unlink()
    os.mkfifo(data / "train" / "b.png")
    (sentence,) = inspect(data).fatal
    assert sentence == "train: b.png: expected a file, found a pipe (FIFO)"


def test_nothing_to_examine_is_a_mistake(tmp_path):
    with pytest.raises(UserError, match="COCO"):
        inspect(tmp_path)
