from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ladle.data import read, splits
from ladle.errors import UserError

ROW = "1 0.5 0.5 0.25 0.5\n"


def picture(folder: Path, name: str, rows: str | None = ROW) -> None:
    """A 96x64 picture ``images/name`` with its label file ``labels/name``."""
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
    picture(tmp_path, "train/a.jpg")
    catalogue = read(data(tmp_path, "path: .\ntrain: images/train"))
    np.testing.assert_allclose(catalogue.pictures[0].boxes, [[36, 16, 60, 48]])
    np.testing.assert_array_equal(catalogue.pictures[0].labels, [1])
    assert (catalogue.pictures[0].id, catalogue.category_ids) == ("a.jpg", (0, 1))


def test_the_splits_are_those_of_the_yaml(tmp_path):
    for name in ("train/a.jpg", "val/b.jpg"):
        picture(tmp_path, name)
    data(tmp_path, "train: images/train\nval: images/val\ntest:")
    assert splits(tmp_path) == ("train", "val")
    assert read(tmp_path / "data.yaml", "val").pictures[0].file.name == "b.jpg"


def test_a_stray_step_up_is_forgiven(tmp_path):
    picture(tmp_path / "train", "a.jpg")
    assert len(read(data(tmp_path, "train: ../train/images"))) == 1


def test_lists_of_files_and_lists_of_folders_are_followed(tmp_path):
    for name in ("one/a.jpg", "two/b.jpg", "two/c.jpg"):
        picture(tmp_path, name)
    (tmp_path / "train.txt").write_text("./images/one/a.jpg\n\nimages/two/c.jpg\n")
    data(tmp_path, "train: train.txt\nval: [images/one, images/two]")
    assert [one.id for one in read(tmp_path).pictures] == ["images/one/a.jpg", "images/two/c.jpg"]
    assert [one.id for one in read(tmp_path, "val").pictures] == ["a.jpg", "b.jpg", "c.jpg"]


def test_a_list_may_not_lead_out_of_the_folder(tmp_path):
    picture(tmp_path, "a.jpg")
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "train.txt").write_text("../images/a.jpg\n")
    with pytest.raises(UserError, match="leaves it"):
        read(data(tmp_path / "set", "train: train.txt"))


def test_only_the_last_images_folder_becomes_labels(tmp_path):
    picture(tmp_path / "images" / "set", "a.jpg")
    assert len(read(data(tmp_path / "images" / "set", "train: images")).pictures[0].boxes) == 1


def test_pictures_without_labels_are_counted(tmp_path):
    picture(tmp_path, "a.jpg")
    picture(tmp_path, "b.jpg", rows=None)
    catalogue = read(data(tmp_path, "train: images"))
    assert "1 of 2 pictures have no label file" in catalogue.summary()
    assert catalogue.pictures[1].boxes.shape == (0, 4)


def test_a_missing_label_folder_is_no_background(tmp_path):
    (tmp_path / "pictures" / "images").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(tmp_path / "pictures" / "images" / "a.jpg")
    with pytest.raises(UserError, match="labels"):
        read(data(tmp_path, "train: pictures/images"))


@pytest.mark.parametrize(
    ("row", "why"), [("0 30 20 10 10", "pixels"), ("0,0.5,0.5,0.1,0.1", "blanks"), ("2 0 0 1 1", "class")]
)
def test_a_broken_row_is_named_by_file_and_line(tmp_path, row, why):
    picture(tmp_path, "a.jpg", ROW + row)
    with pytest.raises(UserError, match=rf"labels/a\.txt: line 2: .*{why}"):
        read(data(tmp_path, "train: images"))


def test_skip_leaves_a_picture_with_a_broken_row_out(tmp_path):
    picture(tmp_path, "a.jpg", ROW + "dog 0.5 0.5 0.1 0.1")
    picture(tmp_path, "b.jpg")
    catalogue = read(data(tmp_path, "train: images"), on_defect="skip")
    assert [one.id for one in catalogue.pictures] == ["b.jpg"]


def test_a_polygon_becomes_its_bounding_box(tmp_path):
    picture(tmp_path, "a.jpg", "0 0.25 0.25 0.5 0.125 0.75 0.75")
    catalogue = read(data(tmp_path, "train: images"))
    np.testing.assert_allclose(catalogue.pictures[0].boxes, [[24, 8, 72, 48]])
