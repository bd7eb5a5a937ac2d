"""Layouts that people have: exports of tools, folders of splits, links, and data sets inside other folders."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ladle.data import detect_format, inspect, read, splits
from ladle.errors import UserError

ROW = "1 0.5 0.5 0.25 0.5\n"
BOX = [[36, 16, 60, 48]]
XML = (
    "<annotation><filename>x.jpg</filename><size><width>0</width><height>0</height></size><object><name>dog</name>"
    "<bndbox><xmin>36</xmin><ymin>16</ymin><xmax>60</xmax><ymax>48</ymax></bndbox></object></annotation>"
)
COCO = {
    "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [36, 16, 24, 32]}],
    "categories": [{"id": 0, "name": "cat"}, {"id": 1, "name": "dog"}],
}


def lay(folder, files):
    """Write files: an image for None, JSON for a dictionary."""
    for name, content in files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            Image.new("RGB", (96, 64)).save(file, "JPEG")
        elif isinstance(content, dict):
            file.write_text(json.dumps(content))
        else:
            file.write_text(content, encoding="utf-8")
    return folder


def coco(name="a.jpg"):
    return {"images": [{"id": 1, "file_name": name, "width": 96, "height": 64}], **COCO}


NAMES = "names: [cat, dog]\n"
DARKNET = {
    "obj.data": "classes = 2\ntrain = data/train.txt\nvalid = data/valid.txt\nnames = data/obj.names\nbackup = b/\n"
}
LAYOUTS: dict[str, tuple[str, dict, str]] = {
    # format, files with their content, and names of images and of files that hold ROW (.txt) or XML
    "YOLO with the key valid": (
        "yolo",
        {"data.yaml": f"{NAMES}train: t/images\nvalid: v/images\n"},
        "t/images/a.jpg t/labels/a.txt v/images/b.jpg v/labels/b.txt",
    ),
    "YOLO with the key validation": (
        "yolo",
        {"data.yaml": f"{NAMES}train: t/images\nvalidation: v/images\n"},
        "t/images/a.jpg t/labels/a.txt v/images/b.jpg v/labels/b.txt",
    ),
    "YOLO with a path on another machine": (
        "yolo",
        {"data.yaml": f"path: /opt/someone/set\n{NAMES}train: images/t\nval: images\\v\n"},
        "images/t/a.jpg labels/t/a.txt images/v/b.JPG labels/v/b.TXT",
    ),
    "YOLO with labels beside the images, below a folder called images": (
        "yolo",
        {"images/set/data.yaml": f"{NAMES}train: t\nval: v\n"},
        "images/set/t/a.jpg images/set/t/a.txt images/set/v/b.jpg images/set/v/b.txt",
    ),
    "YOLO with a YAML deeper in the tree": (
        "yolo",
        {
            "unpacked/my set/data.yaml": f"path: ../..\n{NAMES}train: images/t\nval: images/v\n",
            "__MACOSX/data.yaml": "x",
        },
        "images/t/a.jpg labels/t/a.txt images/v/b.jpg labels/v/b.txt",
    ),
    "CVAT's Ultralytics YOLO": (
        "yolo",
        {
            "data.yaml": f"path: .\ntrain: train.txt\nval: val.txt\n{NAMES}",
            "train.txt": "data/images/train/a.jpg\n",
            "val.txt": "data/images/val/b.jpg\n",
        },
        "images/train/a.jpg labels/train/a.txt images/val/b.jpg labels/val/b.txt",
    ),
    "lists that begin with a dot": (
        "yolo",
        {
            "data.yaml": f"train: train.txt\nval: val.txt\n{NAMES}",
            "train.txt": "./images/train/a.jpg\r\n./images/train/._a.jpg\r\n",
            "val.txt": "./images/val/b.jpg\n",
        },
        "images/train/a.jpg labels/train/a.txt images/val/b.jpg labels/val/b.txt",
    ),
    "Darknet": (
        "yolo",
        {**DARKNET, "obj.names": "cat\ndog\n\n", "train.txt": "data/obj/a.jpg\n", "valid.txt": "data/obj/b.jpg\n"},
        "obj/a.jpg obj/a.txt obj/b.jpg obj/b.txt",
    ),
    "CVAT's YOLO 1.1": (
        "yolo",
        {
            **DARKNET,
            "obj.names": "cat\ndog\n",
            "train.txt": "data/obj_train_data/a.jpg\n",
            "valid.txt": "data/obj_valid_data/b.jpg\n",
        },
        "obj_train_data/a.jpg obj_train_data/a.txt obj_valid_data/b.jpg obj_valid_data/b.txt",
    ),
    "Label Studio's YOLO, put into folders": (
        "yolo",
        {"classes.txt": "cat\ndog\n", "notes.json": {"categories": []}},
        "images/train/a.jpg labels/train/a.txt images/val/b.jpg labels/val/b.txt",
    ),
    "LabelImg's YOLO": (
        "yolo",
        {"classes.txt": "cat\ndog", "train/classes.txt": "cat\ndog\n"},
        "train/a.jpg train/a.txt val/b.jpg val/b.txt a.jpg a.txt",
    ),
    "LabelImg's XML beside the images": ("voc", {}, "train/a.jpg train/a.xml test/b.jpg test/b.xml"),
    "Roboflow's VOC": (
        "voc",
        {"README.roboflow.txt": "x"},
        "train/a.jpg train/a.xml valid/b.jpg valid/b.xml test/c.jpg test/c.xml",
    ),
    "VOC with both folders in every split": (
        "voc",
        {},
        "train/Annotations/a.xml train/JPEGImages/a.jpg val/Annotations/b.xml val/JPEGImages/b.jpg",
    ),
    "VOC with the splits in both folders": (
        "voc",
        {},
        "annotations/train/a.xml images/train/a.jpg annotations/val/b.xml images/val/b.jpg",
    ),
    "CVAT's VOC": (
        "voc",
        {"ImageSets/Main/train.txt": "one/a\n", "ImageSets/Main/val.txt": "two/a\n", "labelmap.txt": "# x"},
        "Annotations/one/a.xml Annotations/two/a.xml JPEGImages/one/a.jpg JPEGImages/two/a.jpg",
    ),
    "VOC lists with suffixes and folders": (
        "voc",
        {
            "ImageSets/Main/train.txt": "a.jpg\n",
            "ImageSets/Main/val.txt": "./JPEGImages/b.jpg\n",
            "ImageSets/Main/._val.txt": "x",
            "Annotations/._a.xml": "x",
        },
        "Annotations/a.xml Annotations/b.xml JPEGImages/a.jpg JPEGImages/b.jpg",
    ),
    "Roboflow's COCO": (
        "coco",
        {"train/_annotations.coco.json": coco(), "valid/_annotations.coco.json": coco()},
        "train/a.jpg valid/a.jpg",
    ),
    "COCO with one file in each folder": (
        "coco",
        {"train/annotations.json": coco(), "val/annotations.json": coco()},
        "train/images/a.jpg val/images/a.jpg",
    ),
    "COCO with other names of files": (
        "coco",
        {
            "annotations/train_annotations.json": coco(),
            "annotations/val.coco.json": coco(),
            "annotations/._val.json": "x",
        },
        "train/a.jpg val/a.jpg",
    ),
    "COCO with images in nested folders": (
        "coco",
        {"annotations/train.json": coco(), "annotations/val.json": coco("b.jpg")},
        "images/1/a.jpg images/2/b.jpg",
    ),
    "COCO with a folder in front": (
        "coco",
        {"annotations/train.json": coco("set/images/a.jpg"), "annotations/val.json": coco("set\\images\\b.jpg")},
        "images/a.jpg images/b.jpg",
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_that_people_have_are_read(tmp_path, layout):
    kind, files, names = LAYOUTS[layout]
    content = {".jpg": None, ".txt": ROW, ".xml": XML}
    lay(tmp_path, files | {name: content[Path(name).suffix.lower()] for name in names.split()})
    assert detect_format(tmp_path) == kind
    for split in ("train", "val"):
        dataset = read(tmp_path, split)
        assert [image.boxes.tolist() for image in dataset.images] == [BOX], dataset.summary()
        assert [dataset.classes[label] for label in dataset.images[0].labels] == ["dog"]
        assert not [one for one in dataset.defects if "companion" not in one.what], dataset.summary()


@pytest.mark.parametrize(
    ("files", "kind", "advice"),
    [
        (
            {"classes.txt": "cat\ndog\n", "images/a.jpg": None, "labels/a.txt": ROW},
            "yolo",
            "name it under 'val' in data.yaml",
        ),
        ({"annotations/a.xml": XML, "images/a.jpg": None}, "voc", "ImageSets/Main/val.txt"),
        ({"annotations/instances_default.json": coco(), "images/a.jpg": None}, "coco", "instances_val.json"),
        ({"result.json": coco("images/a.jpg"), "images/a.jpg": None}, "coco", "instances_val.json"),
    ],
)
def test_the_error_without_a_second_split_has_advice(tmp_path, files, kind, advice):
    lay(tmp_path, files)
    assert detect_format(tmp_path) == kind
    assert read(tmp_path, "train").images[0].boxes.tolist() == BOX
    with pytest.raises(UserError, match=rf"expected a split 'val', found [a-z]+: put|name .*{advice}"):
        read(tmp_path, "val")


def test_a_split_of_another_name_is_trained_on_only_where_it_is_the_only_one(tmp_path):
    lay(tmp_path, {"annotations/instances_default.json": coco(), "images/a.jpg": None})
    assert "'default' is the only split and is read as 'train'" in read(tmp_path).summary()
    lay(tmp_path, {"annotations/instances_other.json": coco()})
    with pytest.raises(UserError, match="default, other"):
        read(tmp_path)


def test_data_sets_side_by_side_are_not_guessed_between(tmp_path):
    files = {"data.yaml": f"{NAMES}train: images\n", "images/a.jpg": None, "labels/a.txt": ROW}
    lay(tmp_path / "one", files)
    assert "was found in" in read(tmp_path).summary()
    lay(tmp_path / "two" / "three", files)
    with pytest.raises(UserError, match=r"found several below it \(one, two/three\)"):
        splits(tmp_path)


def test_the_error_for_labels_without_class_names_states_what_is_missing(tmp_path):
    lay(tmp_path, {"images/train/a.jpg": None, "labels/train/a.txt": ROW})
    with pytest.raises(UserError, match=r"looks like YOLO: name its classes in a data\.yaml or in classes\.txt"):
        read(tmp_path)


def test_a_yaml_that_names_no_split_is_named(tmp_path):
    (tmp_path / "data.yaml").write_text("Train: images\nnames: [a]\n")
    with pytest.raises(UserError, match=r"data\.yaml names no split: give it the key 'train'"):
        read(tmp_path)


def test_an_empty_path_is_not_the_folder_one_works_in(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for ask in (read, splits, inspect):
        with pytest.raises(UserError, match="--data is empty"):
            ask("")


def test_links_to_folders_count_and_labels_are_found_on_either_side(tmp_path):
    lay(tmp_path, {"set/data.yaml": f"{NAMES}train: images\n", "set/images/a.jpg": None, "set/labels/a.txt": ROW})
    lay(tmp_path, {"store/images/b.jpg": None, "store/labels/b.txt": ROW})
    (tmp_path / "set" / "images" / "more").symlink_to(tmp_path / "store" / "images")
    dataset = read(tmp_path / "set")
    assert {one.id: one.boxes.tolist() for one in dataset.images} == {"a.jpg": BOX, "more/b.jpg": BOX}
    (tmp_path / "set" / "labels" / "more").symlink_to(tmp_path / "store" / "labels")
    assert [one.boxes.tolist() for one in read(tmp_path / "set").images] == [BOX, BOX]


def test_the_answer_does_not_depend_on_how_the_path_is_spelt(tmp_path, monkeypatch):
    home = lay(tmp_path / "images" / "mine", {"data.yaml": f"{NAMES}train: t\n", "t/a.jpg": None, "t/a.txt": ROW})
    monkeypatch.chdir(home.parent)
    for spelling in (home, "mine", "./mine", "../images/mine"):
        np.testing.assert_array_equal(read(spelling).images[0].boxes, BOX)
