from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ladle.data import detect_format, read, splits
from ladle.errors import UserError


def thing(name: str, box=(10, 12, 40, 32), difficult=0) -> str:
    corners = "".join(
        f"<{tag}>{value}</{tag}>" for tag, value in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
    )
    return f"<object><name>{name}</name><difficult>{difficult}</difficult><bndbox>{corners}</bndbox></object>"


def page(folder: Path, stem: str, *things: str) -> None:
    for inner in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (folder / inner).mkdir(parents=True, exist_ok=True)
    (folder / "Annotations" / f"{stem}.xml").write_text(f"<annotation>{''.join(things)}</annotation>")
    Image.new("RGB", (96, 64)).save(folder / "JPEGImages" / f"{stem}.jpg")


def listing(folder: Path, split: str, text: str) -> None:
    (folder / "ImageSets" / "Main" / f"{split}.txt").write_text(text)


def test_every_split_agrees_on_the_classes(tmp_path):
    page(tmp_path, "a", thing("dog"))
    page(tmp_path, "b", thing("cat"))
    listing(tmp_path, "train", "a\n")
    listing(tmp_path, "val", "b\n")
    assert detect_format(tmp_path) == "voc"
    assert read(tmp_path, "train").classes == read(tmp_path, "val").classes == ("cat", "dog")
    np.testing.assert_array_equal(read(tmp_path).pictures[0].labels, [1])
    np.testing.assert_array_equal(read(tmp_path).pictures[0].boxes, [[10, 12, 40, 32]])


def test_lists_of_a_single_class_are_no_splits(tmp_path):
    page(tmp_path, "a", thing("dog"))
    listing(tmp_path, "trainval", "a\n")
    listing(tmp_path, "train", "a\n")
    listing(tmp_path, "dog_train", "a  1\n")
    assert splits(tmp_path) == ("train", "trainval")


def test_without_lists_all_annotated_pictures_are_the_training_split(tmp_path):
    page(tmp_path, "a", thing("dog"))
    page(tmp_path, "b")
    (tmp_path / "ImageSets" / "Main").rmdir()
    (tmp_path / "ImageSets").rmdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "JPEGImages" / "c.jpg")
    catalogue = read(tmp_path)
    assert [one.id for one in catalogue.pictures] == ["a", "b"]
    assert [defect.file for defect in catalogue.defects] == ["JPEGImages/c.jpg"]


def test_a_class_list_fixes_the_order_and_refuses_other_names(tmp_path):
    page(tmp_path, "a", thing("cat"))
    page(tmp_path, "b", thing("purple"))
    listing(tmp_path, "train", "a\n")
    listing(tmp_path, "val", "b\n")
    (tmp_path / "classes.txt").write_text("dog\ncat\n")
    assert read(tmp_path, "train").classes == ("dog", "cat")
    with pytest.raises(UserError, match="'purple' is not in classes"):
        read(tmp_path, "val")


def test_difficult_objects_are_regions_to_ignore(tmp_path):
    page(tmp_path, "a", thing("dog", difficult=1), thing("dog", (50, 30, 80, 60)))
    listing(tmp_path, "train", "a\n")
    np.testing.assert_array_equal(read(tmp_path).pictures[0].crowd, [True, False])


def test_all_broken_files_of_a_split_come_in_one_message(tmp_path):
    for stem in "abc":
        page(tmp_path, stem, thing("dog"))
    listing(tmp_path, "train", "a\nb\nc\nd\n")
    (tmp_path / "Annotations" / "a.xml").write_text("<annotation>")
    (tmp_path / "JPEGImages" / "b.jpg").unlink()
    with pytest.raises(UserError, match=r"Annotations/a\.xml.*b: .*d: "):
        read(tmp_path)
    assert [one.id for one in read(tmp_path, on_defect="skip").pictures] == ["c"]


def test_an_entity_is_never_resolved(tmp_path):
    page(tmp_path, "a")
    secret = tmp_path / "secret.txt"
    secret.write_text("hush")
    evil = f'<!DOCTYPE a [<!ENTITY e SYSTEM "{secret.as_uri()}">]><annotation>{thing("&e;")}</annotation>'
    (tmp_path / "Annotations" / "a.xml").write_text(evil)
    listing(tmp_path, "train", "a\n")
    with pytest.raises(UserError, match=r"a\.xml") as caught:
        read(tmp_path)
    assert "hush" not in str(caught.value)
