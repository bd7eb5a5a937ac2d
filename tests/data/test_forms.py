import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ladle.data import read
from ladle.data.forms import check_form, within_first_pixel
from ladle.data.raw_images import RawSplit
from ladle.errors import UserError

RNG = np.random.default_rng(0)
LOW = RNG.uniform(0, 50, (40, 2))
CORNERS = np.concatenate([LOW, LOW + RNG.uniform(3, 40, (40, 2))], axis=1)
LIMIT = np.full((40, 2), 96.0)
NOTHING = np.zeros(40, dtype=np.bool_)


def raw_split(form):
    return RawSplit([], ("cat",), (1,), [], Path("train.json"), form=form)


def with_size(corners):
    return np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)


def with_center(corners):
    return np.concatenate([(corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]], axis=1)


def as_size(numbers):
    return np.concatenate([numbers[:, :2], numbers[:, :2] + numbers[:, 2:]], axis=1)


def as_center(numbers):
    return np.concatenate([numbers[:, :2] - numbers[:, 2:] / 2, numbers[:, :2] + numbers[:, 2:] / 2], axis=1)


@pytest.mark.parametrize(
    ("form", "misread", "meant"),
    [
        ("corner and size", as_size(CORNERS), "two corners"),
        ("center and size", as_center(CORNERS), "two corners"),
        ("corners", with_size(CORNERS), "a corner and two sides"),
        ("center and size", as_center(with_size(CORNERS)), "a corner and two sides"),
        ("corners", with_center(CORNERS), "a center and two sides"),
    ],
)
def test_numbers_in_another_form_are_refused_with_its_name(form, misread, meant):
    with pytest.raises(UserError, match=rf"train\.json: expected .*, found numbers that fit their images as .*{meant}"):
        check_form(raw_split(form), misread, LIMIT, NOTHING)


@pytest.mark.parametrize("form", ["corners", "corner and size", "center and size"])
def test_sound_boxes_sloppy_ones_and_few_of_them_pass(form):
    check_form(raw_split(form), CORNERS, LIMIT, NOTHING)
    check_form(raw_split(form), CORNERS[:0], LIMIT[:0], NOTHING[:0])
    check_form(raw_split(form), 3 * CORNERS, LIMIT, NOTHING)  # made for larger images: no form fits
    full = np.tile([[1.0, 1.0, 97.0, 97.0]], (40, 1))  # counted from 1, over the whole image
    check_form(raw_split(form), full, LIMIT, NOTHING)
    check_form(raw_split(form), as_size(CORNERS)[:3], LIMIT[:3], NOTHING[:3])


def test_fractions_are_distinguished_from_the_first_pixel():
    corners = np.array([[0.1, 0.2, 0.9, 0.95], [0, 0, 1, 1], [0, 0, 1, 1.5], [-0.1, 0, 0.5, 0.5], [0.5, 0.5, 0.5, 0.5]])
    assert within_first_pixel(corners, np.full((5, 2), 64.0)).tolist() == [True, False, False, False, True]
    assert not within_first_pixel(corners, np.full((5, 2), 2.0)).any()


def coco(folder, boxes):
    Image.new("RGB", (96, 96)).save(folder / "a.jpg")
    annotations = [{"id": n, "image_id": 1, "category_id": 1, "bbox": list(box)} for n, box in enumerate(boxes)]
    images = [{"id": 1, "file_name": "a.jpg", "width": 96, "height": 96}]
    document = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "cat"}]}
    (folder / "train.json").write_text(json.dumps(document))
    return folder


def test_a_file_in_fractions_is_refused_and_a_single_one_is_dropped_and_reported(tmp_path):
    with pytest.raises(UserError, match=r"2 of 3 between 0 and 1, which look like fractions.*multiply"):
        read(coco(tmp_path, [(0.1, 0.2, 0.3, 0.4), (0.5, 0.5, 0.4, 0.4), (10, 10, 20, 20)]))
    dataset = read(coco(tmp_path, [(0.1, 0.2, 0.3, 0.4), (30, 30, 20, 20), (10, 10, 20, 20)]))
    assert len(dataset.images[0].boxes) == 2
    assert "1 × box between 0 and 1, perhaps in fractions" in dataset.summary()


def test_corners_in_a_coco_file_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"two corners \(x1 y1 x2 y2\)"):
        read(coco(tmp_path, CORNERS.tolist()))
