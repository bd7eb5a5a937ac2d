"""Images in few arrays: the same records as a list of them, and no annotation is lost where it is packed."""

import json
import pickle

import numpy as np
import pytest

from ladle.data import read
from ladle.data.coco_packing import packed, unpacked
from ladle.data.packed import PackedImages, Texts
from ladle.data.scenes import write_coco
from ladle.recipes.console import shown_progress

PLAIN = {"id": 7, "image_id": 2**40, "category_id": 3, "bbox": [1, 2.5, 3e-5, 4], "iscrowd": 1}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_coco(folder, train=5, val=1, size=64)
    return read(folder, "train").images


def test_images_are_a_sequence(images):
    assert isinstance(images, PackedImages)
    every = list(images)
    assert len(images) == len(every) == 5
    assert [one.id for one in every] == [images[place].id for place in range(5)]
    assert images[-1].file == every[4].file
    assert [one.id for one in images[1:3]] == [every[1].id, every[2].id]
    with pytest.raises(IndexError):
        images[5]


def test_all_boxes_lie_in_one_array_that_a_copy_keeps(images):
    assert all(np.shares_memory(one.boxes, images.boxes) for one in images if len(one.boxes))
    assert np.array_equal(np.concatenate([one.boxes for one in images]), images.boxes)
    copy = pickle.loads(pickle.dumps(images))
    assert [(a.id, a.file, a.height) for a in copy] == [(b.id, b.file, b.height) for b in images]
    assert all(np.array_equal(a.boxes, b.boxes) for a, b in zip(copy, images, strict=True))


def test_texts_of_any_bytes():
    texts = ["ä.jpg", "", "\udcff", "日本"]
    assert [Texts.of(texts)[place] for place in range(4)] == texts


def test_a_plain_annotation_takes_few_bytes_and_loses_nothing_that_is_read():
    assert isinstance(packed(PLAIN | {"area": 9, "segmentation": [[1, 2, 3]]}), bytes)
    assert unpacked(packed(PLAIN)) == PLAIN


@pytest.mark.parametrize(
    "change",
    [
        {"id": "7"},
        {"id": 2**70},
        {"iscrowd": True},
        {"bbox": [1, 2, 3]},
        {"bbox": [1, 2, 3, "4"]},
        {"bbox": [1, 2, 3, 10**400]},
        {"bbox": None},
        {"ignore": 1},
        {"attributes": {"rotation": 5}},
    ],
)
def test_any_other_annotation_stays_as_it_is(change):
    assert packed(PLAIN | change) == PLAIN | change
    assert packed(json.loads("{}")) == {}


def test_progress_is_shown_every_few_seconds(capsys):
    with shown_progress(seconds=0.0) as show:
        show("train: headers", 1200, 120_000)
    with shown_progress(seconds=60.0) as show:
        show("train: headers", 1, 2)
    assert capsys.readouterr().err == "train: headers: 1,200 of 120,000\n"


def test_every_image_is_counted(tmp_path):
    write_coco(tmp_path, train=3, val=1, size=64)
    counted = []
    read(tmp_path, "train", decode=True, progress=lambda *one: counted.append(one))
    assert counted[:3] == [("headers", number, 3) for number in (1, 2, 3)]
    assert sorted(counted[3:]) == [("images decoded", number, 3) for number in (1, 2, 3)]
