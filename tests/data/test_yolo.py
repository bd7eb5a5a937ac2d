from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ladle.data import read, splits
from ladle.errors import UserError

ROW = "1 0.5 0.5 0.25 0.5\n"


def add_image(folder: Path, name: str, rows: str | None = ROW) -> None:
    """A 96x64 image ``images/name`` with its label file ``labels/name``."""
    image = folder / "images" / name
    label = (folder / "labels" / name).with_suffix(".txt")
    for file in (image, label):
        file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (96, 64)).save(image)
    if rows is not None:
        label.write_text(rows)


def data(folder: Path, text: str) -> Path:
    (folder / "data.yaml").write_text(text + "\nnames: [cat, dog]\n")
    return folder


def test_fractions_become_pixels(tmp_path):
    add_image(tmp_path, "train/a.jpg")
    dataset = read(data(tmp_path, "path: .\ntrain: images/train"))
    np.testing.assert_allclose(dataset.images[0].boxes, [[36, 16, 60, 48]])
    np.testing.assert_array_equal(dataset.images[0].labels, [1])
    assert (dataset.images[0].id, dataset.category_ids) == ("a.jpg", (0, 1))


def test_the_splits_are_those_of_the_yaml(tmp_path):
    for name in ("train/a.jpg", "val/b.jpg"):
        add_image(tmp_path, name)
    data(tmp_path, "train: images/train\nval: images/val\ntest:")
    assert splits(tmp_path) == ("train", "val")
    assert read(tmp_path / "data.yaml", "val").images[0].file.name == "b.jpg"


def test_a_stray_step_up_is_forgiven(tmp_path):
    add_image(tmp_path / "train", "a.jpg")
    dataset = read(data(tmp_path, "train: ../train/images"))
    assert len(dataset) == 1
    named, taken = tmp_path / "../train/images", tmp_path / "train/images"
    assert dataset.notes == (f"there is nothing at {named}, which 'train' names; {taken} is taken",)


def test_a_split_that_lies_beside_the_yaml_and_not_below_path_is_reported(tmp_path):
    add_image(tmp_path, "a.jpg")
    (tmp_path / "other").mkdir()
    dataset = read(data(tmp_path, "path: other\ntrain: images"))
    assert len(dataset) == 1
    assert dataset.notes == (
        f"there is nothing at {tmp_path / 'other/images'}, which 'train' names; {tmp_path / 'images'} is taken",
    )


def test_a_image_is_no_split(tmp_path):
    add_image(tmp_path, "a.jpg")
    with pytest.raises(UserError, match=r"a\.jpg: expected a folder or a list of images as a split, found an image"):
        read(data(tmp_path, "train: images/a.jpg"))


def test_lists_of_files_and_lists_of_folders_are_followed(tmp_path):
    for name in ("one/a.jpg", "two/b.jpg", "two/c.jpg"):
        add_image(tmp_path, name)
    (tmp_path / "train.txt").write_text("./images/one/a.jpg\n\nimages/two/c.jpg\n")
    data(tmp_path, "train: train.txt\nval: [images/one, images/two]")
    assert [one.id for one in read(tmp_path).images] == ["images/one/a.jpg", "images/two/c.jpg"]
    assert [one.id for one in read(tmp_path, "val").images] == ["a.jpg", "b.jpg", "c.jpg"]


def test_a_list_may_not_lead_out_of_the_folder(tmp_path):
    add_image(tmp_path, "a.jpg")
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "train.txt").write_text("../images/a.jpg\n")
    with pytest.raises(UserError, match="leaves it"):
        read(data(tmp_path / "set", "train: train.txt"))


def test_only_the_last_images_folder_becomes_labels(tmp_path):
    add_image(tmp_path / "images" / "set", "a.jpg")
    assert len(read(data(tmp_path / "images" / "set", "train: images")).images[0].boxes) == 1


def test_images_without_labels_are_counted(tmp_path):
    add_image(tmp_path, "a.jpg")
    add_image(tmp_path, "b.jpg", rows=None)
    dataset = read(data(tmp_path, "train: images"))
    assert "1 of 2 images have no label file" in dataset.summary()
    assert dataset.images[1].boxes.shape == (0, 4)


def test_a_missing_label_folder_is_no_background(tmp_path):
    (tmp_path / "pictures" / "images").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(tmp_path / "pictures" / "images" / "a.jpg")
    with pytest.raises(UserError, match="labels"):
        read(data(tmp_path, "train: pictures/images"))


@pytest.mark.parametrize(
    ("row", "why"), [("0 30 20 10 10", "pixels"), ("0,0.5,0.5,0.1,0.1", "blanks"), ("2 0 0 1 1", "class")]
)
def test_a_broken_row_is_named_by_file_and_line(tmp_path, row, why):
    add_image(tmp_path, "a.jpg", ROW + row)
    with pytest.raises(UserError, match=rf"labels/a\.txt: line 2: .*{why}"):
        read(data(tmp_path, "train: images"))


def test_skip_leaves_a_image_with_a_broken_row_out(tmp_path):
    add_image(tmp_path, "a.jpg", ROW + "dog 0.5 0.5 0.1 0.1")
    add_image(tmp_path, "b.jpg")
    dataset = read(data(tmp_path, "train: images"), on_defect="skip")
    assert [one.id for one in dataset.images] == ["b.jpg"]


def test_a_polygon_becomes_its_bounding_box(tmp_path):
    add_image(tmp_path, "a.jpg", "0 0.25 0.25 0.5 0.125 0.75 0.75")
    dataset = read(data(tmp_path, "train: images"))
    np.testing.assert_allclose(dataset.images[0].boxes, [[24, 8, 72, 48]])


def boxes(folder: Path, row: str, text: str = "train: images") -> list[list[float]]:
    add_image(folder, "a.jpg", row)
    return read(data(folder, text)).images[0].boxes.round(3).tolist()


@pytest.mark.parametrize("points", ["0.5 0.5 0.0 0.0", "0.5 0.5 2 0.0 0.0 0"])
def test_key_points_behind_a_box_are_ignored_and_reported(tmp_path, points):
    shape = 2 if points.count(" ") == 3 else 3
    assert boxes(tmp_path, f"{ROW.strip()} {points}\n{ROW}", f"train: images\nkpt_shape: [2, {shape}]") == [
        [36, 16, 60, 48],
        [36, 16, 60, 48],
    ]
    assert "1 × key points; ignored" in read(tmp_path).summary()


@pytest.mark.parametrize(
    ("row", "text", "why"),
    [
        ("0 .5 .5 .2 .2 .5 .5 2", "kpt_shape: [2, 3]", r"expected 11 fields for kpt_shape \[2, 3\], found 8"),
        ("0 .5 .5 .2 .2 .5 .5 2", "", "for key points data.yaml needs kpt_shape"),
        ("0 .5 .5 .2 .2 .9 17", "", "a box with a confidence and a number"),
        ("0 .5 .5 .2 .2 1.3", "", r"confidence between 0 and 1 as sixth number, found 1\.3 .*an angle"),
        ("0 .5 .5 .2 .2 -0.2", "", "an angle"),
        ("0 .5 .5 .2 .2 nan", "", "an angle"),
        ("0 .5 .5 .2 .2 90", "", "an angle"),
        ("0 30 20 10 10 0.5", "", "pixels"),
        ("0 .1 .1 30 .1 30 40 .1 40", "", "pixels"),
        ("1_0 .5 .5 .2 .2", "", "numbers"),
        ("0.5 .5 .5 .2 .2", "", "class from 0 to 1"),
        ("-1 .5 .5 .2 .2", "", "class from 0 to 1"),
        ("99999999999 .5 .5 .2 .2", "", "class from 0 to 1"),
        ("0 .5 .5 .2 0,2", "", "separated by blanks"),
    ],
)
def test_rows_that_are_no_boxes_are_refused(tmp_path, row, text, why):
    with pytest.raises(UserError, match=rf"labels/a\.txt: line 2: .*{why}"):
        boxes(tmp_path, ROW + row, f"train: images\n{text}")


def test_one_angle_makes_all_sixth_numbers_of_the_split_suspect(tmp_path):
    add_image(tmp_path, "b.jpg", "0 .5 .5 .2 .2 -0.7")
    add_image(tmp_path, "c.jpg")
    with pytest.raises(UserError, match=r"labels/a\.txt: line 1: .*labels/b\.txt: line 1: "):
        boxes(tmp_path, "0 .5 .5 .2 .2 .9")
    assert [one.id for one in read(tmp_path, on_defect="skip").images] == ["c.jpg"]


def test_confidences_are_ignored_and_reported(tmp_path):
    assert boxes(tmp_path, ROW.strip() + " 0.93") == [[36, 16, 60, 48]]
    assert "1 × sixth number (a confidence); ignored" in read(tmp_path).summary()


def test_four_corners_and_polygons_become_their_bounding_boxes(tmp_path):
    rows = "0 0.5 0.25 0.75 0.5 0.5 0.75 0.25 0.5\n0 0.25 0.25 0.5 0.125 0.75 0.75\n0 .1 .1 .2 nan .3 .3 .4 .4\n"
    assert boxes(tmp_path, rows) == [[24, 16, 72, 48], [24, 8, 72, 48]]
    assert "1 × coordinates that are no finite numbers; dropped" in read(tmp_path).summary()


@pytest.mark.parametrize(
    ("names", "classes"),
    [
        ("[yes, no]", ("yes", "no")),
        ("[on, off, 007, 010, 1e3, null, 12:30, 2001-01-01, ~]", None),
        ("{0: y, 1: .5, 2: 0x1F}", ("y", ".5", "0x1F")),
        ("\n  1: b\n  0: a", ("a", "b")),
        ("['', \"a\\tb\"]", ("class 0", "a b")),
    ],
)
def test_names_are_what_is_written(tmp_path, names, classes):
    add_image(tmp_path, "a.jpg", "")
    (tmp_path / "data.yaml").write_text(f"train: images\nnames: {names}\n")
    written = classes or ("on", "off", "007", "010", "1e3", "null", "12:30", "2001-01-01", "~")
    assert read(tmp_path).classes == written


@pytest.mark.parametrize(
    ("names", "why"),
    [
        ("[dog, cat, dog]", "different names, found 'dog' for 0, 2"),
        ("[dog, 'dog ']", "different names, found 'dog' for 0, 1"),
        ("{0: a, 2: b}", "without a gap"),
        ("{0: a, '0': b}", "twice"),
        ("{0: a, 0.0: b}", "without a gap"),
        ("{zero: a}", "without a gap"),
        ("[a, [b]]", "class names under 'names'"),
        ("a", "class names under 'names'"),
        ("[]", "class names under 'names'"),
        ("[a]\nnames: [b]", "'names' twice"),
        ("[a]\nkpt_shape: [17, 4]", "kpt_shape"),
        ("[a]\nval: {a: b}", "under 'val'"),
        ("[a]\npath: [a]", "folder under 'path'"),
    ],
)
def test_descriptions_that_cannot_be_trusted_are_refused(tmp_path, names, why):
    add_image(tmp_path, "a.jpg")
    (tmp_path / "data.yaml").write_text(f"train: images\nnames: {names}\n")
    with pytest.raises(UserError, match=rf"data\.yaml: .*{why}"):
        read(tmp_path)


def test_folders_that_number_their_images_alike_keep_their_images_apart(tmp_path):
    for name in ("one/0.jpg", "two/0.jpg", "two/1.jpg"):
        add_image(tmp_path, name)
    dataset = read(data(tmp_path, "train: [images/one, images/two]"))
    assert [one.id for one in dataset.images] == ["images/one/0.jpg", "images/two/0.jpg", "images/two/1.jpg"]


def test_an_image_that_is_listed_twice_is_read_once_and_reported(tmp_path):
    add_image(tmp_path, "a.jpg")
    (tmp_path / "train.txt").write_text(f"images/a.jpg\n./images/a.jpg\n{tmp_path}/images/a.jpg\n")
    dataset = read(data(tmp_path, "train: [train.txt, images, images]"))
    assert len(dataset) == 1
    assert "4 × image listed more than once; read once" in dataset.summary()


def test_splits_that_share_their_images_are_noted(tmp_path):
    add_image(tmp_path, "a.jpg")
    add_image(tmp_path, "val/b.jpg")
    data(tmp_path, "train: images\nval: ./images\ntest: images/val")
    assert "'train' and 'val' are the same images" in read(tmp_path).summary()
    assert "'test' and 'train' share images" in read(tmp_path, "test").summary()


def test_labels_in_other_encodings_are_all_named_and_skipped_when_asked(tmp_path):
    for name in "abc":
        add_image(tmp_path, f"{name}.jpg")
    (tmp_path / "labels" / "a.txt").write_text(ROW, encoding="utf-16")
    (tmp_path / "labels" / "b.txt").write_bytes(ROW.encode() + b"\xa0")
    data(tmp_path, "train: images")
    with pytest.raises(
        UserError, match=r"labels/a\.txt: expected UTF-8 text, found UTF-16.*labels/b\.txt: .*0xa0 in line 2"
    ):
        read(tmp_path)
    assert [one.id for one in read(tmp_path, on_defect="skip").images] == ["c.jpg"]


def test_a_pipe_in_the_place_of_labels_is_named(tmp_path):
    import os

    add_image(tmp_path, "a.jpg", rows=None)
    os.mkfifo(tmp_path / "labels" / "a.txt")
    with pytest.raises(UserError, match=r"labels/a\.txt: expected a file, found a pipe"):
        read(data(tmp_path, "train: images"))


def test_labels_of_no_image_and_of_several_are_named(tmp_path):
    add_image(tmp_path, "a.jpg")
    add_image(tmp_path, "a.png")
    for name in ("labels/z.txt", "labels/._a.txt", "labels/classes.txt", "labels/README.txt"):
        (tmp_path / name).write_text("x")
    dataset = read(data(tmp_path, "train: images"))
    assert {defect.file: defect.what.partition(";")[0] for defect in dataset.defects} == {
        "labels/z.txt": "label file without an image",
        "labels/a.txt": "label file of 2 images of one name",
    }
    assert [one.id for one in dataset.images] == ["a.jpg", "a.png"]


def test_a_label_folder_of_another_data_set_above_is_not_taken_for_labels_beside(tmp_path):
    home = tmp_path / "images" / "set"
    (home / "t").mkdir(parents=True)
    Image.new("RGB", (96, 64)).save(home / "t" / "a.jpg")
    (home / "t" / "a.txt").write_text(ROW)
    stranger = tmp_path / "labels" / "set" / "t" / "a.txt"
    stranger.parent.mkdir(parents=True)
    stranger.write_text("0 0.5 0.5 1 1\n")
    assert read(data(home, "train: t")).images[0].boxes.tolist() == [[36, 16, 60, 48]]


@pytest.mark.parametrize(
    "row",
    [
        "0 .5 .5 .4 .4 .4 .4 2 .6 .4 0",
        "0 .5 .5 .4 .4 .4 .4 2.000 .6 .4 2.000 .4 .6 1 .6 .6 2",
        "0 .5 .5 .4 .4 .4 .4 1 0 0 0",
        "0 .5 .5 .4 .4 .4 .4 1 .8 .5 1",
        "0 .8 .8 .4 .404 .7 .7 1 0 0 0",
        "0 .5 .5 .4 .4 0 0 0 0 0 0",
        "0 .95 .5 .4 .4 .8 .4 2 .9 .4 0",
    ],
)
def test_key_points_without_their_shape_are_no_polygon(tmp_path, row):
    add_image(tmp_path, "a.jpg", f"{row}\n")
    with pytest.raises(UserError, match=r"a\.txt: line 1: .*key points.*data.yaml needs kpt_shape"):
        read(data(tmp_path, "train: images"))


def test_a_polygon_along_the_border_stays_one(tmp_path):
    add_image(tmp_path, "a.jpg", "0 0 0 .5 0 1 0 1 1 0 1\n")
    np.testing.assert_array_equal(read(data(tmp_path, "train: images")).images[0].boxes, [[0, 0, 96, 64]])


@pytest.mark.parametrize("box", [(0, 0, 1, 1), (0, 0, 0.2, 0.2), (0.8, 0.8, 1, 1), (0, 0.8, 0.2, 1), (0.3, 0, 1, 0.5)])
def test_a_rectangle_whose_polygon_is_closed_may_touch_the_border(tmp_path, box):
    left, top, right, bottom = box
    corners = [(left, top), (left, bottom), (right, bottom), (right, top)]
    rounds = [way[start:] + way[: start + 1] for way in (corners, corners[::-1]) for start in range(4)]
    rows = "".join(f"0 {' '.join(f'{x} {y}' for x, y in points)}\n" for points in rounds)
    expected = np.asarray(box) * [96, 64, 96, 64]
    np.testing.assert_allclose(boxes(tmp_path, rows), [expected] * 8, atol=0.001)


@pytest.mark.parametrize(
    ("row", "box"),
    [
        ("0 .3 .1 .3 .3 .1 .3 0 .2 .2 0", (0, 0, 0.3, 0.3)),
        ("0 .5 .25 .5 .5 .3 .5 0 .3 .3 0", (0, 0, 0.5, 0.5)),
        ("0 .6 .9 .5 .6 .8 .6 1 .8 .7 1", (0.5, 0.6, 1, 1)),
    ],
)
def test_a_polygon_with_five_points_may_touch_two_sides(tmp_path, row, box):
    np.testing.assert_allclose(boxes(tmp_path, row), [np.asarray(box) * [96, 64, 96, 64]], atol=0.001)


def test_a_path_into_the_home_of_an_unknown_user_does_not_exist(tmp_path):
    add_image(tmp_path, "a.jpg")
    dataset = read(data(tmp_path, "path: ~nobody-of-this-name/data\ntrain: images"))
    assert len(dataset) == 1
    assert any("there is no folder '~nobody-of-this-name/data'" in note for note in dataset.notes)


def test_label_files_in_capitals_are_read_and_that_is_reported(tmp_path):
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    for name, suffix in (("a", "txt"), ("b", "TXT")):
        Image.new("RGB", (64, 64)).save(tmp_path / "images" / f"{name}.png")
        (tmp_path / "labels" / f"{name}.{suffix}").write_text("0 0.5 0.5 0.25 0.25\n")
    (tmp_path / "data.yaml").write_text("train: images\nval: images\nnames: [cat]\n")
    dataset = read(tmp_path, "train")
    assert [image.boxes.tolist() for image in dataset.images] == [[[24, 24, 40, 40]]] * 2
    assert "1 of 2 images have no label file that ends in .txt: those that end in .TXT are read" in dataset.summary()
