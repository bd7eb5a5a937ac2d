"""How large objects are once their image has the size that the detector sees."""

from pathlib import Path

import numpy as np
import pytest
import torch

from ladle.data.dataset import DetectionDataset, ImageInfo
from ladle.data.samples import Sample
from ladle.data.shrinking import Shrunk, shrunk, sufficient
from ladle.data.transforms import Augmentation


def sized(height, width, *sides, crowd=0):
    boxes = np.array([[1, 1, 1 + w, 1 + h] for w, h in sides], np.float32).reshape(-1, 4)
    ignored = np.arange(len(sides)) < crowd
    return ImageInfo(0, Path("a.png"), height, width, boxes, np.zeros(len(sides), np.int64), ignored)


def split(*images):
    return DetectionDataset(images, ("a",), (1,), (), Path())


@pytest.mark.parametrize(
    ("imgsz", "expected"),
    [(64, Shrunk(3, 3, 2)), (100, Shrunk(3, 2, 0)), (1000, Shrunk(3, 0, 0)), (2000, Shrunk(3, 0, 0))],
)
def test_the_shorter_side_at_the_size_of_training_counts(imgsz, expected):
    # At 64 of 1000 pixels sides of 10, 15 and 100 are 0.64, 0.96 and 6.4 long; at 100 they are 1, 1.5 and 10.
    sides = [(10, 300), (300, 15), (100, 100)]
    assert shrunk(split(sized(500, 1000, *sides)), imgsz) == expected


def test_crowds_do_not_count_and_splits_may_be_empty():
    assert shrunk(split(sized(100, 100, (2, 2), (50, 50), crowd=1)), 100) == Shrunk(1, 0, 0)
    assert shrunk(split(sized(100, 100)), 100) == Shrunk(0, 0, 0)
    assert shrunk(split(), 100) == Shrunk(0, 0, 0)


def test_small_images_grow():
    assert shrunk(split(sized(20, 20, (3, 3))), 64) == Shrunk(1, 0, 0)
    assert shrunk(split(sized(20, 20, (2, 3))), 64) == Shrunk(1, 1, 0)


def test_what_is_lost_is_what_a_view_without_crops_leaves_out():
    sides = [(float(w), 40.0) for w in range(1, 40)]
    one = sized(900, 1500, *sides)
    image = torch.zeros(3, 900, 1500, dtype=torch.uint8)
    labels, crowd = torch.from_numpy(one.labels), torch.from_numpy(one.crowd)
    sample = Sample(image, torch.from_numpy(one.boxes), labels, crowd, 0, (900, 1500))
    for transform in Augmentation(0, 0, 0, 0).transforms(96):
        sample = transform(sample, torch.Generator())
    sizes = shrunk(split(one), 96)
    assert len(sample.boxes) == sizes.objects - sizes.lost == 24


@pytest.mark.parametrize(("sides", "expected"), [([20, 20, 20], 800), ([10, 30, 50], 544), ([16], 1024)])
def test_a_size_is_named_that_shows_half_of_the_objects(sides, expected):
    train = split(sized(2000, 1000, *((side, side) for side in sides)))
    imgsz = sufficient(train, 64)
    assert imgsz == expected
    assert shrunk(train, imgsz).tiny <= len(sides) / 2
    assert shrunk(train, imgsz - 32).tiny > len(sides) / 2
