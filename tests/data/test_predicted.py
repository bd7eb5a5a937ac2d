"""Predicted boxes follow an image through every view, and change nothing else in it."""

import pytest
import torch

from ladle.data.loader import collate, view
from ladle.data.predicted import WithPredictions, predicted_of, without_predictions
from ladle.data.scenes import split_scenes
from ladle.data.transforms import Augmentation


@pytest.fixture(scope="module")
def sources():
    """Scenes, and the same with their own objects as predictions."""
    plain, _ = split_scenes(train=6, val=1, size=64)
    each = [plain.sample(index) for index in range(len(plain))]
    rows, end = {}, 0
    for sample in each:
        rows[sample.id] = (end, end + len(sample.boxes))
        end += len(sample.boxes)
    return plain, WithPredictions(plain, torch.cat([sample.boxes for sample in each]), rows)


def views(source, augmentation, seed):
    return view(source, seed % len(source), 96, augmentation, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("augmentation", [None, Augmentation(flip=1.0, crop=1.0), Augmentation(mosaic=1.0, flip=0.5)])
def test_they_are_moved_as_the_objects_are_and_leave_the_rest_as_it_is(sources, augmentation):
    plain, with_them = sources
    for seed in range(12):
        one, other = (views(source, augmentation, seed) for source in (plain, with_them))
        real, found = without_predictions(other), predicted_of([other])
        assert torch.equal(one.image, real.image)
        assert torch.equal(one.boxes, real.boxes)
        assert torch.equal(one.labels, real.labels)
        assert torch.equal(one.crowd, real.crowd)
        # A crop drops objects that it cuts to less than 0.3; their predictions keep the part inside.
        boxes = [box.tolist() for box in found.boxes[0]]
        assert all(box.tolist() in boxes for box, crowd in zip(one.boxes, one.crowd) if not crowd)


def test_a_batch_carries_them_with_their_numbers(sources):
    plain, with_them = sources
    batch = collate([with_them.sample(2), with_them.sample(4)])
    assert torch.equal(batch.truth.boxes, collate([plain.sample(2), plain.sample(4)]).truth.boxes)
    for image, index in enumerate((2, 4)):
        first, end = with_them.rows[plain.sample(index).id]
        assert batch.predicted.labels[image, : end - first].tolist() == list(range(first, end))
        assert torch.equal(batch.predicted.boxes[image, : end - first], with_them.boxes[first:end])
    assert collate([plain.sample(0)]).predicted is None
