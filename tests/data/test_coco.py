import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ladle.data import detect_format, read, splits
from ladle.errors import UserError

CATEGORIES = [{"id": 7, "name": "cat"}, {"id": 3, "name": "dog"}]


def image(file: Path, width=96, height=64) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height), (90, 90, 90)).save(file)
    return file


def annotations(file: Path, boxes=((10, 12, 30, 20),), names=("a.jpg",), size=(96, 64), **changes) -> Path:
    """A COCO file with ``boxes`` on the first of the images ``names``."""
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
    file = image(tmp_path / folder / "a.jpg")
    assert detect_format(tmp_path) == "coco"
    assert read(tmp_path, "train").images[0].file.samefile(file)


def test_labels_follow_the_order_of_category_ids(tmp_path):
    image(tmp_path / "train" / "a.jpg")
    dataset = read(annotations(tmp_path / "annotations" / "train.json"))
    assert dataset.classes == ("dog", "cat")
    assert dataset.category_ids == (3, 7)
    np.testing.assert_array_equal(dataset.images[0].labels, [1])
    np.testing.assert_array_equal(dataset.images[0].boxes, [[10, 12, 40, 32]])
    np.testing.assert_array_equal(dataset.images[0].areas, [600])


def test_valid_and_test_stand_in_for_val_and_it_is_noted(tmp_path):
    for name in ("train", "test"):
        annotations(tmp_path / name / "_annotations.coco.json")
        image(tmp_path / name / "a.jpg")
    assert splits(tmp_path) == ("train", "test")
    assert "'test' stands in" in read(tmp_path, "val").summary()
    annotations(tmp_path / "valid" / "_annotations.coco.json")
    image(tmp_path / "valid" / "a.jpg")
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


def test_all_missing_images_come_in_one_message(tmp_path):
    file = annotations(tmp_path / "annotations" / "train.json", names=("a.jpg", "b.jpg", "c.jpg"))
    image(tmp_path / "train" / "b.jpg")
    with pytest.raises(UserError, match=r"(?s)a\.jpg.*c\.jpg") as caught:
        read(file)
    assert "b.jpg" not in str(caught.value)
    assert [one.id for one in read(file, on_defect="skip").images] == [2]


def test_boxes_are_scaled_when_only_the_stated_frame_holds_them(tmp_path):
    image(tmp_path / "train" / "a.jpg")
    boxes = [(20, 24, 60, 40), (110, 60, 50, 50)]
    dataset = read(annotations(tmp_path / "train.json", boxes, size=(192, 128)))
    np.testing.assert_allclose(dataset.images[0].boxes, [[10, 12, 40, 32], [55, 30, 80, 55]])
    assert "scaled to the file" in dataset.summary()


def test_boxes_of_an_enlarged_image_are_scaled_up(tmp_path):
    image(tmp_path / "train" / "a.jpg", 192, 128)
    dataset = read(annotations(tmp_path / "train.json", [(10, 12, 30, 20)], size=(96, 64)))
    np.testing.assert_allclose(dataset.images[0].boxes, [[20, 24, 80, 64]])


def test_boxes_that_leave_the_image_are_counted(tmp_path):
    image(tmp_path / "train" / "a.jpg")
    dataset = read(annotations(tmp_path / "train.json", [(10, 12, 40, 32), (55, 30, 80, 55), (200, 9, 9, 9)]))
    assert "2 of 3 boxes leave their image" in dataset.summary()
    assert len(dataset.images[0].boxes) == 2


def test_crowds_are_marked_and_never_lost(tmp_path):
    image(tmp_path / "train" / "a.jpg")
    crowd = [{"id": 1, "image_id": 1, "category_id": 3, "bbox": [0, 0, 40, 64], "iscrowd": 1}]
    dataset = read(annotations(tmp_path / "train.json", annotations=crowd))
    np.testing.assert_array_equal(dataset.images[0].crowd, [True])


def test_annotations_of_other_images_altogether_are_refused(tmp_path):
    image(tmp_path / "train" / "a.jpg")
    strangers = [{"id": 1, "image_id": "a.jpg", "category_id": 3, "bbox": [0, 0, 40, 64]}]
    with pytest.raises(UserError, match="image_id"):
        read(annotations(tmp_path / "train.json", annotations=strangers))


@pytest.mark.parametrize("name", ["../a.jpg", "/a.jpg", "C:\\a.jpg", "x/../../a.jpg", "..\\a.jpg", ".", ""])
def test_no_name_leads_out_of_the_folder(tmp_path, name):
    image(tmp_path / "a.jpg")
    image(tmp_path / "set" / "train" / "b.jpg")
    with pytest.raises(UserError, match="leaves it"):
        read(annotations(tmp_path / "set" / "train.json", names=(name, "b.jpg")))


@pytest.mark.parametrize("name", ["nul\0.jpg", "long" * 100, None, 7])
def test_impossible_names_are_refused(tmp_path, name):
    image(tmp_path / "train" / "b.jpg")
    with pytest.raises(UserError, match=r"expected an? (image|file_name)"):
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


def with_values(**values):
    """One annotation with some values of another kind."""
    return [{"id": 1, "image_id": 1, "category_id": 7, "bbox": [10, 12, 30, 20], "iscrowd": 0} | values]


def test_a_file_with_every_value_as_text_is_read_alike(tmp_path):
    image(tmp_path / "train" / "a.jpg")
    entry = {"id": "1", "image_id": "1", "category_id": "7", "bbox": ["10", "12", "30", "20"], "iscrowd": "0"}
    file = annotations(tmp_path / "train.json", annotations=[entry])
    dataset = read(file)
    np.testing.assert_array_equal(dataset.images[0].boxes, [[10, 12, 40, 32]])
    np.testing.assert_array_equal(dataset.images[0].labels, [1])
    np.testing.assert_array_equal(dataset.images[0].crowd, [False])
    assert dataset.images[0].id == 1


@pytest.mark.parametrize(
    ("values", "crowd"),
    [
        ({"iscrowd": "0"}, False),
        ({"iscrowd": "false"}, False),
        ({"iscrowd": None}, False),
        ({"iscrowd": False}, False),
        ({"iscrowd": "1"}, True),
        ({"iscrowd": "True"}, True),
        ({"iscrowd": 1.0}, True),
        ({"ignore": "1"}, True),
        ({"ignore": 0}, False),
    ],
)
def test_flags_are_read_as_written(tmp_path, values, crowd):
    image(tmp_path / "train" / "a.jpg")
    dataset = read(annotations(tmp_path / "train.json", annotations=with_values(**values)))
    assert dataset.images[0].crowd.tolist() == [crowd]
    assert ("'ignore' is set" in dataset.summary()) == (values.get("ignore") == "1")


@pytest.mark.parametrize("values", [{"iscrowd": "maybe"}, {"iscrowd": 2}, {"ignore": "-1"}])
def test_flags_that_are_neither_yes_nor_no_are_refused_by_name(tmp_path, values):
    image(tmp_path / "train" / "a.jpg")
    file = annotations(tmp_path / "train.json", annotations=with_values(**values))
    with pytest.raises(UserError, match=rf"a\.jpg: annotation 1: expected 0 or 1 under '{next(iter(values))}'"):
        read(file)


@pytest.mark.parametrize("size", [("96", "64"), (96.0, 64.0), ("96.0", " 64 ")])
def test_sizes_may_be_text(tmp_path, size):
    image(tmp_path / "train" / "a.jpg")
    dataset = read(annotations(tmp_path / "train.json", size=size))
    assert dataset.defects == ()


@pytest.mark.parametrize("size", [(10**400, 64), ("9" * 5000, 64), (96.5, 64), ("wide", "high"), (-96, 64), (True, 64)])
def test_invalid_sizes_are_read_from_the_image_and_reported(tmp_path, size):
    image(tmp_path / "train" / "a.jpg")
    dataset = read(annotations(tmp_path / "train.json", size=size))
    np.testing.assert_array_equal(dataset.images[0].boxes, [[10, 12, 40, 32]])
    assert [defect.what for defect in dataset.defects] == [
        "width and height in the JSON are no size; read from the image"
    ]


def test_ids_of_images_are_unique_however_they_are_written(tmp_path):
    for name in "abc":
        image(tmp_path / "train" / f"{name}.jpg")
    images = [{"id": key, "file_name": f"{n}.jpg", "width": 96, "height": 64} for n, key in zip("ab", (7, "7.0"))]
    with pytest.raises(UserError, match="its own id, found 7 twice"):
        read(annotations(tmp_path / "train.json", images=images))
    images = [
        {"id": key, "file_name": f"{n}.jpg", "width": 96, "height": 64} for n, key in zip("abc", ("7", "007", "x"))
    ]
    file = annotations(tmp_path / "train.json", images=images, annotations=with_values(image_id="007"))
    assert {one.id: len(one.boxes) for one in read(file).images} == {"7": 0, "007": 1, "x": 0}


@pytest.mark.parametrize("key", [None, True, [1], {}, 1.5])
def test_images_without_an_id_are_named(tmp_path, key):
    image(tmp_path / "train" / "a.jpg")
    with pytest.raises(UserError, match=r"id of every image, found none for 'a\.jpg'"):
        read(annotations(tmp_path / "train.json", images=[{"id": key, "file_name": "a.jpg"}]))


def categories(*entries):
    return [{"id": key, "name": name, "supercategory": above} for key, name, above in entries]


def test_classes_of_one_name_are_refused(tmp_path):
    image(tmp_path / "train" / "a.jpg")
    twice = categories((3, "dog", "animal"), (7, "dog ", "animal"))
    both = [*with_values(), *with_values(id=2, category_id=3)]
    with pytest.raises(UserError, match=r"different names, found 'dog' for 3, 7: rename"):
        read(annotations(tmp_path / "train.json", categories=twice, annotations=both))


@pytest.mark.parametrize(
    ("listed", "used", "kept"),
    [
        (categories((0, "fish", "none"), (7, "fish", "fish")), True, {7: "fish"}),
        (categories((0, "fish", "none"), (7, "fish", "fish")), False, {7: "fish"}),
        (categories((0, "fish", "none"), (7, "fish", "none")), True, {7: "fish"}),
        (categories((0, "fish", "none"), (7, "fish", "fish"), (8, "shark", "fish")), True, {7: "fish", 8: "shark"}),
        (categories((0, "things", "none"), (7, "fish", "things")), True, {0: "things", 7: "fish"}),
    ],
)
def test_the_group_of_the_name_of_its_only_class_is_left_out_and_reported(tmp_path, listed, used, kept):
    image(tmp_path / "train" / "a.jpg")
    boxes = with_values() if used else []
    dataset = read(annotations(tmp_path / "train.json", categories=listed, annotations=boxes))
    assert dict(zip(dataset.category_ids, dataset.classes, strict=True)) == kept
    assert ("has the name of another one; left out" in dataset.summary()) == (len(kept) < len(listed))


def test_odd_names_of_classes_are_cleaned_and_reported(tmp_path):
    image(tmp_path / "train" / "a.jpg")
    odd = [{"id": n, "name": name} for n, name in enumerate(["a\nb", "\ud800", "", None, 7])]
    dataset = read(annotations(tmp_path / "train.json", categories=odd, annotations=[]))
    assert dataset.classes == ("a b", "\ufffd", "category 2", "category 3", "7")
    assert len(dataset.defects) == 5
    dataset.summary().encode("utf-8")


def test_a_key_that_is_given_two_values_is_refused(tmp_path):
    image(tmp_path / "train" / "a.jpg")
    file = annotations(tmp_path / "train.json")
    file.write_text(file.read_text().replace('"iscrowd": 0', '"bbox": [1, 2, 3, 4]'))
    with pytest.raises(UserError, match=r"train\.json: .*'bbox' twice"):
        read(file)


def test_names_do_not_break_the_lines_of_messages(tmp_path):
    image(tmp_path / "train" / "b.jpg")
    file = annotations(tmp_path / "train.json", names=("a\n\x1b[31m.jpg", "b.jpg"))
    with pytest.raises(UserError) as caught:
        read(file)
    assert "a\\n\\x1b[31m.jpg" in str(caught.value)
    assert str(caught.value).isprintable()


def test_of_two_files_of_a_split_one_is_read_with_a_note_or_none(tmp_path):
    image(tmp_path / "train" / "a.jpg")
    annotations(tmp_path / "annotations" / "train.json", boxes=[])
    annotations(tmp_path / "annotations" / "instances_train.json")
    dataset = read(tmp_path)
    assert len(dataset.images[0].boxes) == 1
    assert dataset.notes == ("train.json is of the same split as instances_train.json, and is not read",)

    (tmp_path / "annotations" / "instances_train.json").rename(tmp_path / "annotations" / "train_coco.json")
    with pytest.raises(UserError, match=r"expected one annotation file for the split 'train', found train\.json and"):
        read(tmp_path)


def test_masks_written_as_text_have_the_boxes_of_their_pixels(tmp_path):
    image(tmp_path / "train" / "a.jpg", 8, 8)
    mask = {"size": "[8, 8]", "counts": "[17, 3, 5, 3, 36]"}  # columns 2 and 3, rows 1 to 3
    notes = [
        {"id": n, "image_id": 1, "category_id": 7, "segmentation": shape}
        for n, shape in enumerate((mask, json.dumps(mask)))
    ]
    annotations(tmp_path / "annotations" / "train.json", size=(8, 8), annotations=notes)
    assert read(tmp_path).images[0].boxes.tolist() == [[2, 1, 4, 4], [2, 1, 4, 4]]


def test_names_that_look_alike_are_one_name(tmp_path):
    image(tmp_path / "train" / "a.jpg")
    categories = [{"id": 7, "name": "e\u0301"}, {"id": 3, "name": "dog"}]
    file = annotations(tmp_path / "annotations" / "train.json", categories=categories)
    assert read(tmp_path).classes == ("dog", "\xe9")
    assert [one.what for one in read(tmp_path).defects] == ["class name in another Unicode form; read as '\xe9'"]
    notes = [{"id": n, "image_id": 1, "category_id": n, "bbox": [1, 1, 9, 9]} for n in (3, 7)]
    annotations(file, categories=[categories[0], {"id": 3, "name": "\xe9"}], annotations=notes)
    with pytest.raises(UserError, match="expected classes with different names"):
        read(tmp_path)
