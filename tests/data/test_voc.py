import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ladle import assign_stats
from ladle.data import detect_format, inspect, read, splits
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
    np.testing.assert_array_equal(read(tmp_path).images[0].labels, [1])
    np.testing.assert_array_equal(read(tmp_path).images[0].boxes, [[10, 12, 40, 32]])


def test_lists_of_a_single_class_are_no_splits(tmp_path):
    page(tmp_path, "a", thing("dog"))
    listing(tmp_path, "trainval", "a\n")
    listing(tmp_path, "train", "a\n")
    listing(tmp_path, "dog_train", "a  1\n")
    assert splits(tmp_path) == ("train", "trainval")


def test_without_lists_all_annotated_images_are_the_training_split(tmp_path):
    page(tmp_path, "a", thing("dog"))
    page(tmp_path, "b")
    (tmp_path / "ImageSets" / "Main").rmdir()
    (tmp_path / "ImageSets").rmdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "JPEGImages" / "c.jpg")
    dataset = read(tmp_path)
    assert [one.id for one in dataset.images] == ["a", "b"]
    assert [defect.file for defect in dataset.defects] == ["JPEGImages/c.jpg"]


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
    np.testing.assert_array_equal(read(tmp_path).images[0].crowd, [True, False])


def test_all_broken_files_of_a_split_come_in_one_message(tmp_path):
    for stem in "abc":
        page(tmp_path, stem, thing("dog"))
    listing(tmp_path, "train", "a\nb\nc\nd\n")
    (tmp_path / "Annotations" / "a.xml").write_text("<annotation>")
    (tmp_path / "JPEGImages" / "b.jpg").unlink()
    with pytest.raises(UserError, match=r"Annotations/a\.xml.*b: .*d: "):
        read(tmp_path)
    assert [one.id for one in read(tmp_path, on_defect="skip").images] == ["c"]


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


def box(**sides) -> str:
    return "<bndbox>" + "".join(f"<{tag}>{value}</{tag}>" for tag, value in sides.items()) + "</bndbox>"


SIDES = {"xmin": 30, "ymin": 20, "xmax": 50, "ymax": 60}
TURNED = "<attributes><attribute><name>rotation</name><value>90.0</value></attribute></attributes>"


@pytest.mark.parametrize(
    ("inner", "corners", "said"),
    [
        (box(xmin=" 10.5 ", ymin="1e1", xmax="40", ymax="32"), [10.5, 10, 40, 32], None),
        (box(ymax=60, xmax=50, ymin=20, xmin=30), [30, 20, 50, 60], None),
        (box(xmin="1_0", ymin=1, xmax=20, ymax=20), None, "without four numbers"),
        (box(xmin="10,5", ymin=1, xmax=20, ymax=20), None, "without four numbers"),
        (box(**SIDES) + box(**SIDES), None, "several boxes"),
        (
            "<bndbox><xmin>1</xmin><xmin>2</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox>",
            None,
            "several boxes",
        ),
        (box(**SIDES) + TURNED, [20, 30, 60, 50], "turned by an angle"),
        (box(**SIDES) + TURNED.replace("90.0", "0.0"), [30, 20, 50, 60], None),
        (
            "<robndbox><cx>40</cx><cy>40</cy><w>20</w><h>40</h><angle>1.5707963</angle></robndbox>",
            [20, 30, 60, 50],
            "turned",
        ),
        (
            "<polygon><x1>1</x1><y1>2</y1><x2>30</x2><y2>4</y2><x3>5</x3><y3>40</y3></polygon>",
            [1, 2, 30, 40],
            "polygon",
        ),
        ("<polygon><pt><x>1</x><y>2</y></pt><pt><x>30</x><y>40</y></pt></polygon>", [1, 2, 30, 40], "polygon"),
        ("<polygon><x1>1</x1><y1>2</y1><x2>30</x2></polygon>", None, "without four numbers"),
        ("<point><x>1</x><y>2</y></point>", None, "without four numbers"),
    ],
)
def test_the_box_of_an_object_is_what_is_written(tmp_path, inner, corners, said):
    page(tmp_path, "a", f"<object><name>cat</name>{inner}</object>")
    listing(tmp_path, "train", "a\n")
    dataset = read(tmp_path)
    found = dataset.images[0].boxes
    np.testing.assert_allclose(found, [corners] if corners else np.zeros((0, 4)), atol=1e-4)
    assert [said in defect.what for defect in dataset.defects] == ([True] if said else [])


@pytest.mark.parametrize(("word", "crowd"), [("0", False), ("1", True), ("false", False), ("True", True), ("", False)])
def test_difficult_is_read_as_written(tmp_path, word, crowd):
    page(tmp_path, "a", thing("dog", difficult=word))
    listing(tmp_path, "train", "a\n")
    assert read(tmp_path).images[0].crowd.tolist() == [crowd]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (thing("dog", difficult="perhaps"), "expected 0 or 1 in <difficult>, found 'perhaps'"),
        (thing("dog</name><name>cat"), "expected one <name>, found several"),
    ],
)
def test_what_cannot_be_understood_is_refused_by_name(tmp_path, text, why):
    page(tmp_path, "a", text)
    listing(tmp_path, "train", "a\n")
    with pytest.raises(UserError, match=rf"Annotations/a\.xml: object 1: {why}"):
        read(tmp_path)


@pytest.mark.parametrize(
    "size", [("0", "0"), ("", "64"), ("wide", "64"), ("9" * 5000, "64"), ("1e300", "64"), ("nan", "64")]
)
def test_sizes_that_are_none_are_those_of_the_image(tmp_path, size):
    page(tmp_path, "a", f"<size><width>{size[0]}</width><height>{size[1]}</height></size>", thing("dog"))
    listing(tmp_path, "train", "a\n")
    np.testing.assert_array_equal(read(tmp_path).images[0].boxes, [[10, 12, 40, 32]])


def test_images_of_one_name_are_chosen_by_the_filename_in_the_xml_or_refused(tmp_path):
    page(tmp_path, "a", thing("dog"))
    Image.new("RGB", (96, 64)).save(tmp_path / "JPEGImages" / "a.png")
    listing(tmp_path, "train", "a\n")
    with pytest.raises(UserError, match=r"expected one image of this name, found a\.jpg and a\.png"):
        read(tmp_path)
    page(tmp_path, "a", "<filename>a.png</filename>", thing("dog"))
    assert read(tmp_path).images[0].file.name == "a.png"


def test_names_of_a_class_list_are_not_given_twice(tmp_path):
    page(tmp_path, "a", thing("dog"))
    listing(tmp_path, "train", "a\n")
    (tmp_path / "classes.txt").write_text("dog\ncat\ndog\n")
    with pytest.raises(UserError, match=r"classes\.txt: expected classes with different names, found 'dog' for 0, 2"):
        read(tmp_path)


@pytest.mark.parametrize("line", ["../secret", "/etc/passwd", "..\\secret", "JPEGImages/../../secret"])
def test_a_list_leads_nowhere_else(tmp_path, line):
    Image.new("RGB", (96, 64)).save(tmp_path / "secret.jpg")
    (tmp_path / "secret.xml").write_text(f"<annotation>{thing('dog')}</annotation>")
    page(tmp_path / "set", "a", thing("dog"))
    listing(tmp_path / "set", "train", f"a\n{line}\n")
    with pytest.raises(UserError, match="there is no XML of this name"):
        read(tmp_path / "set")


def test_a_list_names_a_image_once_however_it_is_written(tmp_path):
    page(tmp_path, "a", thing("dog"))
    page(tmp_path, "b.1", thing("dog"))
    listing(tmp_path, "train", "a\na.jpg\n./JPEGImages/a.jpg\nVOC2007/JPEGImages/a.jpg\nb.1\n")
    dataset = read(tmp_path)
    assert [one.id for one in dataset.images] == ["a", "b.1"]
    assert "1 × listed more than once; read once" in dataset.summary()


def test_objects_that_are_not_read_are_named(tmp_path):
    page(tmp_path, "a", thing("dog"), thing("cat").replace("object>", "Object>"), f"<objects>{thing('cat')}</objects>")
    listing(tmp_path, "train", "a\n")
    dataset = read(tmp_path)
    assert dataset.classes == ("dog",)
    assert [(one.file, one.what.rpartition("; ")[2]) for one in dataset.defects] == [
        ("Annotations/a.xml: <Object>", "ignored"),
        ("Annotations/a.xml: <objects>", "ignored"),
    ]


def test_a_list_of_a_split_is_one_whatever_is_in_it(tmp_path):
    page(tmp_path, "a", thing("dog"))
    listing(tmp_path, "train", "a  -1\n")
    assert splits(tmp_path) == ("train",)
    with pytest.raises(UserError, match="a  -1: listed, but there is no XML"):
        read(tmp_path)


def test_a_damaged_image_is_named_and_not_its_annotations(tmp_path):
    page(tmp_path, "a", thing("dog"))
    listing(tmp_path, "train", "a\n")
    file = tmp_path / "JPEGImages" / "a.jpg"
    file.write_bytes(b"\xff\xd8\xff")
    with pytest.raises(UserError, match=re.escape(f"found {file}: expected a whole image") + ".*--on-defect skip"):
        read(tmp_path)


@pytest.mark.parametrize("name", ["<name/>", "", "<name>  </name>"])
def test_a_set_in_which_no_object_has_a_name_has_no_classes(tmp_path, name):
    for stem, split in (("a", "train"), ("b", "val")):
        page(tmp_path, stem, thing("dog").replace("<name>dog</name>", name))
        listing(tmp_path, split, f"{stem}\n")
    health = inspect(tmp_path)
    assert [one.classes for one in health.splits] == [(), ()]
    assert health.fatal == ("train: no objects to learn", "val: no objects to score")
    assert "1 × object without a name; dropped" in health.render()
    with pytest.raises(UserError, match="expected classes in train, found none"):
        assign_stats(str(tmp_path), "atss-tiny")
