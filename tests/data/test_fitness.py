"""Obstacles to training, and notes on the data before it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ladle.data.dataset import DetectionDataset, ImageInfo
from ladle.data.depth import ALL_VALUES
from ladle.data.fitness import differences, notes, obstacles, range_of


def split(*sides, classes=("cat", "dog"), ids=None, crowd=False, deep=0, said=()):
    """One image of 640 x 640 for each side of a square object, without one for 0; the first so many are deep."""
    images = []
    for number, side in enumerate(sides):
        boxes = np.array([[0, 0, side, side]] if side else [], np.float32).reshape(-1, 4)
        labels, ignored = np.zeros(len(boxes), np.int64), np.full(len(boxes), crowd)
        images.append(ImageInfo(number, Path("a"), 640, 640, boxes, labels, ignored, deep=number < deep))
    return DetectionDataset(tuple(images), classes, ids or tuple(range(len(classes))), (), Path(), said)


def test_sound_splits_have_no_obstacle_and_no_difference():
    splits = {"train": split(50, 0), "val": split(50)}
    assert obstacles(splits, 640) == []
    assert differences(splits) == []
    assert obstacles({}, 640) == differences({}) == []


def test_both_splits_need_objects_and_ignored_regions_are_none():
    splits = {"train": split(50, crowd=True), "val": split(0, 0), "test": split(50)}
    assert obstacles(splits, 640) == ["train: no objects to learn", "val: no objects to score"]


def test_a_class_that_cannot_be_learnt_is_an_obstacle_one_that_is_not_scored_is_none():
    train, val = split(50, classes=("cat", "dog")), split(50, classes=("cat", "gnu", "dog"))
    assert obstacles({"train": train, "val": val}, 640) == [
        "train and val: expected the same classes, found 'gnu' in val alone"
    ]
    assert obstacles({"train": val, "val": train}, 640) == []
    assert differences({"train": val, "val": train}) == [
        "val does not list 'gnu', which train does, and says nothing about it"
    ]


@pytest.mark.parametrize(
    "other",
    [{"classes": ("dog", "cat")}, {"ids": (1, 2)}],
)
def test_another_order_and_other_ids_are_noted_and_matched_by_name(other):
    splits = {"train": split(50), "val": split(50, **other)}
    assert obstacles(splits, 640) == []
    assert differences(splits) == ["train and val number their classes differently; they are matched by name"]


def test_training_stops_where_no_object_is_left_at_its_size():
    train = split(20, 19.9)
    assert obstacles({"train": train, "val": split(50)}, 32) == []
    (sentence,) = obstacles({"train": train, "val": split(50)}, 16)
    assert sentence.startswith("train: every object has a side under 1 pixel at --imgsz 16")
    assert "--imgsz 288" in sentence
    assert obstacles({"train": split(50), "val": train}, 16) == [], "evaluation keeps them"


def test_small_objects_are_counted_in_words():
    assert notes(split(50, 9, 8, said=("a note",)), 640, None) == ["a note"]
    assert notes(split(50, 9, 7), 640, None) == ["1 of 3 objects have a side under 8 pixels at --imgsz 640"]
    assert notes(split(50, 9, 7), 64, None) == [
        "3 of 3 objects have a side under 8 pixels at --imgsz 64, 2 of them under 1 pixel, which training leaves out"
    ]


def test_images_of_sixteen_bits_are_counted_with_the_range_they_are_read_by():
    data = split(50, 50, 50, deep=2)
    assert notes(data, 640, (0, 4095)) == [
        "2 of 3 images have 16 bits a channel: values up to 0 become black, from 4095 on white (--value-range 0,4095)"
    ]
    assert notes(data, 640, None) == ["2 of 3 images have 16 bits a channel"]
    assert notes(replace(data, images=data.images[2:]), 640, (0, 4095)) == []


def test_the_range_of_a_data_set_and_the_sentence_about_it():
    assert range_of(None) == (ALL_VALUES, "")
    assert range_of((8, 4088)) == (
        (0, 4095),
        "the values of 16 bits lie between 8 and 4088, so that they are read with --value-range 0,4095",
    )
    found, sentence = range_of((0, 50_000))
    assert found == ALL_VALUES
    assert "use all 16 bits" in sentence
