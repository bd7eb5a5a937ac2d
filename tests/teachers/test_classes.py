"""Classes are matched by map, name, spelling and synonym, or refused."""

import pytest
import torch

from ladle.errors import UserError
from ladle.teachers import COCO_CLASSES, match_classes


def test_coco_has_its_80_classes_in_order():
    assert len(set(COCO_CLASSES)) == len(COCO_CLASSES) == 80
    assert [COCO_CLASSES[number] for number in (0, 4, 47, 79)] == ["person", "airplane", "apple", "toothbrush"]


def test_each_way_of_matching():
    table = match_classes(COCO_CLASSES, ["dog", "TV", "aeroplane", "lorry", "unicorn"], {"lorry": "truck"})
    assert table.matched == ("dog", "tv", "airplane", "truck", None)
    assert table.by == ("name", "spelling", "synonym", "map", "–")
    assert table.missing == ("unicorn",)
    assert table.summary() == (
        "4 of the student's 5 classes are known to the teacher: TV = tv (spelling), aeroplane = airplane (synonym), "
        "lorry = truck (map); not 'unicorn'"
    )
    assert (
        match_classes(["b", "a"], ["a", "b"]).summary()
        == "2 of the student's 2 classes are known to the teacher by name"
    )


def test_all_voc_classes_are_coco_s():
    voc = "aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike person pottedplant"
    assert match_classes(COCO_CLASSES, [*voc.split(), "sheep", "sofa", "train", "tvmonitor"]).missing == ()


def test_columns_follow_the_student_and_unknown_classes_are_background():
    table = match_classes(["a", "b", "c"], ["c", "x", "a"])
    assert table.columns_of(torch.tensor([1.0, 2.0, 3.0]), -9.0).tolist() == [3.0, -9.0, 1.0]


@pytest.mark.parametrize(
    ("ours", "mapping", "named"),
    [
        (
            ["unicorn"],
            None,
            r"the teacher knows none of the student's classes unicorn.*by \?class_map=names.yaml behind",
        ),
        (["dog"], {"cat": "dog"}, "class_map names the student's 'cat', which does not exist"),
        (["dog"], {"dog": "unicorn"}, "class_map names the teacher's 'unicorn'"),
    ],
)
def test_what_cannot_be_matched_is_refused(ours, mapping, named):
    with pytest.raises(UserError, match=named):
        match_classes(COCO_CLASSES, ours, mapping)


@pytest.mark.parametrize(
    ("theirs", "ours", "columns", "by"),
    [
        (["person"], ["pedestrian", "people", "car"], None, None),
        (["person", "car"], ["pedestrian", "people", "car"], (-1, -1, 1), ("ambiguous", "ambiguous", "name")),
        (["person"], ["pedestrian", "person"], (-1, 0), ("ambiguous", "name")),
        (["person"], ["pedestrian", "Person"], (-1, 0), ("ambiguous", "spelling")),
        (["hot dog", "dog"], ["hot-dog", "HotDog", "dog"], (-1, -1, 1), ("ambiguous", "ambiguous", "name")),
        (["person", "people"], ["pedestrian", "people"], (0, 1), ("synonym", "name")),
    ],
)
def test_a_class_of_the_teacher_is_not_guessed_for_several_of_the_student_s(theirs, ours, columns, by):
    if columns is None:
        with pytest.raises(UserError, match="knows none"):
            match_classes(theirs, ours)
        return
    table = match_classes(theirs, ours)
    assert (table.columns, table.by) == (columns, by)
    for summary, mapping in (
        (table.summary(), "?class_map=names.yaml behind the teacher"),
        (table.summary("--class-map"), "--class-map"),
    ):
        assert summary.endswith(f"name the right one by {mapping}") == ("ambiguous" in by)


def test_a_map_may_give_a_class_to_several():
    table = match_classes(["truck"], ["lorry", "van", "Truck"], {"lorry": "truck", "van": "truck"})
    assert (table.columns, table.by) == ((0, 0, -1), ("map", "map", "ambiguous"))
