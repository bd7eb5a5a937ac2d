import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ladle.data import detect_format, read, splits
from ladle.errors import UserError

CATEGORIES = [{"id": 7, "name": "cat"}, {"id": 3, "name": "dog"}]


def picture(file: Path, width=96, height=64) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height), (90, 90, 90)).save(file)
    return file


def annotations(file: Path, boxes=((10, 12, 30, 20),), names=("a.jpg",), size=(96, 64), **changes) -> Path:
    """A COCO file with ``boxes`` on the first of the pictures ``names``."""
    width, height = size
    document = {
        "images": [
            {"id": n, "file_name": name, "width": width, "height": height} for n, name in enumerate(names, start=1)
        ],
        "annotations": [
            {"id": n, "image_id": 1, "category_id": 7, "bbox": list(box), "iscrowd": 0} for n, box in enumerate(boxes)
        ],
        "categories": CATEGORIES,
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(document | changes))
    return file


@pytest.mark.parametrize(
    ("listing", "folder"),
    [
        ("annotations/instances_train.json", "train"),
        ("annotations/instances_train2017.json", "train2017"),
        ("annotations/instances_train2017.json", "images/train2017"),
        ("annotations/train.json", "train"),
        ("annotations/train.json", "images"),
        ("annotations/train.json", "."),
        ("train/_annotations.coco.json", "train"),
        ("train.json", "images"),
    ],
)
def test_the_usual_layouts_are_found(tmp_path, listing, folder):
    annotations(tmp_path / listing)
    file = picture(tmp_path / folder / "a.jpg")
    assert detect_format(tmp_path) == "coco"
    assert read(tmp_path, "train").pictures[0].file.samefile(file)


def test_labels_follow_the_order_of_category_ids(tmp_path):
    picture(tmp_path / "train" / "a.jpg")
    catalogue = read(annotations(tmp_path / "annotations" / "train.json"))
    assert catalogue.classes == ("dog", "cat")
    assert catalogue.category_ids == (3, 7)
    np.testing.assert_array_equal(catalogue.pictures[0].labels, [1])
    np.testing.assert_array_equal(catalogue.pictures[0].boxes, [[10, 12, 40, 32]])
    np.testing.assert_array_equal(catalogue.pictures[0].areas, [600])


def test_valid_and_test_stand_in_for_val_and_it_is_said(tmp_path):
    for name in ("train", "test"):
        annotations(tmp_path / name / "_annotations.coco.json")
        picture(tmp_path / name / "a.jpg")
    assert splits(tmp_path) == ("train", "test")
    assert "'test' stands in" in read(tmp_path, "val").summary()
    annotations(tmp_path / "valid" / "_annotations.coco.json")
    picture(tmp_path / "valid" / "a.jpg")
    assert "'valid' stands in" in read(tmp_path, "val").summary()


def test_annotations_of_other_tasks_are_no_splits(tmp_path):
    for name in ("instances_val2017", "captions_val2017", "person_keypoints_val2017"):
        annotations(tmp_path / "annotations" / f"{name}.json")
    assert splits(tmp_path) == ("val2017",)


def test_an_unknown_split_is_refused_with_the_known_ones(tmp_path):
    annotations(tmp_path / "annotations" / "train.json")
    with pytest.raises(UserError, match=r"'val'.*train"):
        read(tmp_path, "val")


def test_two_years_of_a_split_are_not_guessed_between(tmp_path):
    for year in (2014, 2017):
        annotations(tmp_path / "annotations" / f"instances_train{year}.json")
    with pytest.raises(UserError, match="train2014, train2017"):
        read(tmp_path, "train")


def test_all_missing_pictures_come_in_one_message(tmp_path):
    file = annotations(tmp_path / "annotations" / "train.json", names=("a.jpg", "b.jpg", "c.jpg"))
    picture(tmp_path / "train" / "b.jpg")
    with pytest.raises(UserError, match=r"(?s)a\.jpg.*c\.jpg") as caught:
        read(file)
    assert "b.jpg" not in str(caught.value)
    assert [one.id for one in read(file, on_defect="skip").pictures] == [2]


def test_boxes_are_scaled_when_only_the_stated_frame_holds_them(tmp_path):
    picture(tmp_path / "train" / "a.jpg")
    boxes = [(20, 24, 60, 40), (110, 60, 50, 50)]
    catalogue = read(annotations(tmp_path / "train.json", boxes, size=(192, 128)))
    np.testing.assert_allclose(catalogue.pictures[0].boxes, [[10, 12, 40, 32], [55, 30, 80, 55]])
    assert "scaled to the file" in catalogue.summary()


def test_boxes_of_an_enlarged_picture_are_scaled_up(tmp_path):
    picture(tmp_path / "train" / "a.jpg", 192, 128)
    catalogue = read(annotations(tmp_path / "train.json", [(10, 12, 30, 20)], size=(96, 64)))
    np.testing.assert_allclose(catalogue.pictures[0].boxes, [[20, 24, 80, 64]])


def test_boxes_that_leave_the_picture_are_counted(tmp_path):
    picture(tmp_path / "train" / "a.jpg")
    catalogue = read(annotations(tmp_path / "train.json", [(10, 12, 40, 32), (55, 30, 80, 55), (200, 9, 9, 9)]))
    assert "2 of 3 boxes leave their picture" in catalogue.summary()
    assert len(catalogue.pictures[0].boxes) == 2


def test_crowds_are_marked_and_never_lost(tmp_path):
    picture(tmp_path / "train" / "a.jpg")
    crowd = [{"id": 1, "image_id": 1, "category_id": 3, "bbox": [0, 0, 40, 64], "iscrowd": 1}]
    catalogue = read(annotations(tmp_path / "train.json", annotations=crowd))
    np.testing.assert_array_equal(catalogue.pictures[0].crowd, [True])


def test_annotations_of_other_images_altogether_are_refused(tmp_path):
    picture(tmp_path / "train" / "a.jpg")
    strangers = [{"id": 1, "image_id": "a.jpg", "category_id": 3, "bbox": [0, 0, 40, 64]}]
    with pytest.raises(UserError, match="image_id"):
        read(annotations(tmp_path / "train.json", annotations=strangers))


@pytest.mark.parametrize("name", ["../a.jpg", "/a.jpg", "C:\\a.jpg", "x/../../a.jpg", "..\\a.jpg", ".", ""])
def test_no_name_leads_out_of_the_folder(tmp_path, name):
    picture(tmp_path / "a.jpg")
    picture(tmp_path / "set" / "train" / "b.jpg")
    with pytest.raises(UserError, match="leaves it"):
        read(annotations(tmp_path / "set" / "train.json", names=(name, "b.jpg")))


@pytest.mark.parametrize("name", ["nul\0.jpg", "long" * 100, None, 7])
def test_impossible_names_are_refused(tmp_path, name):
    picture(tmp_path / "train" / "b.jpg")
    with pytest.raises(UserError, match=r"expected a (picture|file_name)"):
        read(annotations(tmp_path / "train.json", names=(name, "b.jpg")))


def test_a_folder_without_data_is_refused_with_the_layouts(tmp_path):
    with pytest.raises(UserError, match=r"COCO .*YOLO .*VOC"):
        read(tmp_path)
    with pytest.raises(UserError, match="nothing there"):
        read(tmp_path / "nowhere")


def test_a_folder_with_two_formats_is_not_guessed(tmp_path):
    annotations(tmp_path / "annotations" / "train.json")
    (tmp_path / "data.yaml").write_text("names: [cat]\ntrain: images\n")
    with pytest.raises(UserError, match="coco and yolo"):
        read(tmp_path)
