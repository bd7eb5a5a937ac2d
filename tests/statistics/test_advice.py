"""Advice follows from the numbers and names them."""

from dataclasses import replace

import pytest

from ladle.statistics import Group, Level, Statistics, advice

LEVELS = (Level(8.0, 4000, 600, 0, 20, 10, 0, 90, 80), Level(16.0, 1000, 400, 0, 5, 5, 0, 20, 20))
GOOD = Statistics(
    images=10,
    objects=100,
    without=0,
    mean_positives=10.0,
    quantiles=(2, 4, 6, 9, 12, 15, 20),
    histogram=(0, 0, 100),
    mean_affinity=10.0,
    by_size=(Group("small", 60, 0, 8.0),),
    by_class=(Group("cat", 50, 0, 10.0), Group("dog", 50, 0, 10.0)),
    by_level=(Group("8", 80, 0, 10.0), Group("16", 20, 0, 10.0)),
    by_aspect=(Group("up to 1.5", 100, 0, 10.0),),
    levels=LEVELS,
    holding=0,
    side_without=None,
    imgsz=320,
)


def test_where_nothing_stands_out_one_sentence_says_so():
    (line,) = advice(GOOD)
    assert line.startswith("Nothing stands out: 0 of 100 (0.0 %) objects have no positive")
    assert "9" in line


def test_objects_between_the_priors_ask_for_larger_images():
    (line,) = advice(replace(GOOD, without=20, holding=4, side_without=4.0))
    assert line.startswith("Larger images or a smaller stride: 16 of 20 (80.0 %)")
    assert "4 pixels at --imgsz 320, the finest stride 8 (--imgsz 640 would make it 8)" in line


def test_objects_that_hold_priors_ask_for_another_assigner():
    (line,) = advice(replace(GOOD, without=20, holding=15, side_without=30.0))
    assert line.startswith("Another assigner: 15 of 20 (75.0 %)")


def test_a_class_that_is_left_out_is_named():
    groups = (Group("cat", 50, 18, 10.0), Group("dog", 50, 2, 10.0))
    lines = advice(replace(GOOD, without=20, holding=20, by_class=groups))
    assert not any("of the class" in line for line in lines), "less than twice the share of all objects"
    groups = (Group("cat", 20, 18, 10.0), Group("dog", 80, 2, 10.0))
    lines = advice(replace(GOOD, without=20, holding=20, by_class=groups))
    assert any("objects of the class cat: 18 of 20 (90.0 %) have no positive" in line for line in lines)


def test_few_positives_and_crowded_images_are_told():
    few = replace(GOOD, quantiles=(0, 1, 1, 2, 3, 4, 5))
    assert [line.partition(":")[0] for line in advice(few)] == ["More positives"]
    crowded = replace(GOOD, levels=(replace(LEVELS[0], contested=300), LEVELS[1]))
    (line,) = advice(crowded)
    assert line.startswith("Crowded images: 305 of 1000 (30.5 %)")


@pytest.mark.parametrize(
    ("positive", "sentence"),
    [
        (
            (950, 50),
            "One level learns nearly everything: 950 of 1000 (95.0 %) positives are on stride 8; larger images",
        ),
        (
            (50, 950),
            "One level learns nearly everything: 950 of 1000 (95.0 %) positives are on stride 16; smaller images",
        ),
    ],
)
def test_a_level_that_learns_nearly_everything_is_told(positive, sentence):
    levels = tuple(replace(level, positive=count) for level, count in zip(LEVELS, positive))
    (line,) = advice(replace(GOOD, levels=levels))
    assert line.startswith(sentence)


def test_idle_levels_are_told():
    levels = (*LEVELS, replace(LEVELS[1], stride=32.0, positive=0))
    (line,) = advice(replace(GOOD, levels=levels))
    assert line.startswith("Idle levels: of 1000 positives none is on stride 32")
