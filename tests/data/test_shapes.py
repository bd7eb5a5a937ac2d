import json
import math

import numpy as np
import pytest

from ladle.data.coco_boxes import corners_of
from ladle.data.shapes import around_mask, around_polygons, hull, turned

SQUARE = [10, 20, 40, 20, 40, 60, 10, 60]


def packed(counts: list[int]) -> str:
    """COCO's packed counts, straight from their description: five bits a character, differences from the fourth on."""
    text = ""
    for place, count in enumerate(counts):
        value, more = count - (counts[place - 2] if place > 2 else 0), True
        while more:
            bits, value = value & 0x1F, value >> 5
            more = value != (-1 if bits & 0x10 else 0)
            text += chr(48 + (bits | (0x20 if more else 0)))
    return text


def counts_of(mask: np.ndarray) -> list[int]:
    flat = mask.flatten(order="F")
    edges = np.flatnonzero(np.diff(flat)) + 1
    return ([0] if flat[0] else []) + np.diff([0, *edges, flat.size]).tolist()


@pytest.mark.parametrize("seed", range(20))
def test_the_box_of_a_mask_is_that_of_its_pixels(seed):
    rng = np.random.default_rng(seed)
    height, width = rng.integers(1, 70, 2).tolist()
    mask = (rng.random((height, width)) < rng.choice([0.002, 0.02, 0.5])).astype(int)
    mask[rng.integers(height) :, rng.integers(width)] = 1
    down, across = np.nonzero(mask)
    expected = across.min(), down.min(), across.max() + 1, down.max() + 1
    size = [height, width]
    for counts in (counts_of(mask), packed(counts_of(mask)), [str(count) for count in counts_of(mask)]):
        assert around_mask({"size": size, "counts": counts}, None) == expected
    assert around_mask({"size": size, "counts": packed(counts_of(mask))}, (height + 1, width)) is None


@pytest.mark.parametrize(
    "mask",
    [
        {},
        {"size": [3, 3], "counts": [9]},  # no pixel
        {"size": [3, 3], "counts": [1, 2]},  # does not fill the frame
        {"size": [3, 3], "counts": [1, -1, 9]},
        {"size": [3, 3], "counts": [1, None]},
        {"size": [3, 3], "counts": "04~é"},
        {"size": [3, 3], "counts": "o" * 90},
        {"size": [3, 3], "counts": ""},
        {"size": [0, 3], "counts": [0]},
        {"size": [10**9, 10**9], "counts": [10**18]},
        {"size": "3x3", "counts": [4, 5]},
        {"counts": [4, 5]},
    ],
)
def test_a_broken_mask_has_no_box(mask):
    assert around_mask(mask, None) is None


@pytest.mark.parametrize(
    "shape",
    [
        [SQUARE],
        SQUARE,
        [str(value) for value in SQUARE],
        json.dumps([SQUARE]),
        [[10, 20, 12, 20, 12, 22], [38, 58, 40, 58, 40, 60]],
        [[[10, 20], [40, 20], [40, 60]]],
        [[10, 20], [40, 60]],
    ],
)
def test_polygons_of_every_writing_have_the_box_of_their_points(shape):
    assert around_polygons(shape) == (10, 20, 40, 60)


@pytest.mark.parametrize(
    "shape",
    [
        [],
        [[]],
        None,
        "x",
        [[1, 2, 3]],
        [1, 2, 3],
        [[1, 2, 3], [4, 5, 6]],
        [[1, 2, math.nan, 4]],
        [[1, 2]],
        [[[[[[1, 2]]]]]],
    ],
)
def test_what_is_no_polygon_has_no_box(shape):
    assert around_polygons(shape) is None


def test_hulls_and_turned_boxes_are_right():
    assert hull([0.5, 0.1, 0.9, 0.5, 0.5, 0.9, 0.1, 0.5]) == (0.1, 0.1, 0.9, 0.9)
    np.testing.assert_allclose(turned((10, 20, 30, 60), math.pi / 2), (0, 30, 40, 50))
    np.testing.assert_allclose(turned((-1, -1, 1, 1), math.pi / 4), [-math.sqrt(2)] * 2 + [math.sqrt(2)] * 2)


@pytest.mark.parametrize(
    ("annotation", "corners", "said"),
    [
        ({"bbox": [1, 2, 3, 4]}, (1, 2, 4, 6), None),
        ({"bbox": ["1", "2", "3", "4"]}, (1, 2, 4, 6), "text"),
        ({"bbox": "[1, 2, 3, 4]"}, (1, 2, 4, 6), "text"),
        ({"bbox": "1234"}, None, "not four numbers"),
        ({"bbox": {"1": 0, "2": 0, "3": 0, "4": 0}}, None, "not four numbers"),
        ({"bbox": [1, 2, 3, True]}, None, "not four numbers"),
        ({"bbox": [1, 2, 3, 4, 30]}, None, "not four numbers"),
        ({"bbox": [], "segmentation": [SQUARE]}, (10, 20, 40, 60), "taken from the polygon"),
        ({"segmentation": {"size": [2, 2], "counts": [1, 1, 2]}}, (0, 1, 1, 2), "taken from the mask"),
        ({"segmentation": {"size": [2, 3], "counts": [1, 1, 4]}}, None, "the mask is none that can be read"),
        ({"segmentation": [[1, 2, 3]]}, None, "the polygon is none that can be read"),
        ({"bbox": None}, None, "missing"),
        ({"bbox": [10, 20, 20, 40], "attributes": {"rotation": 90}}, (0, 30, 40, 50), "turned"),
        ({"bbox": [10, 20, 20, 40], "attributes": {"rotation": 0.0}}, (10, 20, 30, 60), None),
    ],
)
def test_the_box_of_an_annotation_is_never_another(annotation, corners, said):
    found, complaint = corners_of(annotation, (2, 2))
    assert found == (None if corners is None else pytest.approx(corners))
    assert (complaint is None) if said is None else (said in complaint)
