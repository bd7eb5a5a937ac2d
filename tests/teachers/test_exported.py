"""Files of ``ladle export`` are fed and read as they say; that they teach what their detector does is tested there."""

import pytest
import torch

from ladle.errors import UserError
from ladle.teachers.exported import open_exported
from ladle.teachers.uri import parse_uri
from tests.teachers.batches import batch_of

SAYS = {
    "classes": ["cat", "dog"],
    "images": "uint8",
    "input_size": [32, 32],
    "batch": 2,
    "pad_value": 114,
    "pad_multiple": 32,
    "mean": [0, 0, 0],
    "std": [1, 1, 1],
    "strides": [8, 16],
    "priors_per_location": 0,
    "nms": True,
}


def answering(outputs, **says):
    """A file that gives the same outputs for any two images, and what it was given."""
    given = []

    def run(images, sizes):
        given.append((images, sizes))
        return tuple(one.expand(len(images), *one.shape[1:]) for one in outputs)

    return open_exported(parse_uri("pt2:file.pt2"), SAYS | says, run, lambda device: None), given


def test_small_images_are_padded_and_a_batch_is_filled_up():
    boxes, scores, labels = (
        torch.tensor([[[1.0, 2, 9, 8], [0, 0, 0, 0]]]),
        torch.tensor([[0.5, 0]]),
        torch.tensor([[1, -1]]),
    )
    teacher, given = answering((boxes, scores, labels))
    images = torch.randint(0, 256, (3, 3, 24, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    found = teacher.find(batch_of(images, [[24, 32], [24, 20], [16, 16]]))
    (first, sizes), (second, again) = given
    assert torch.equal(first[:, :, :24], images[:2])
    assert first[:, :, 24:].unique().tolist() == [114]
    assert torch.equal(second[0], second[1])
    assert (sizes.tolist(), again.tolist()) == ([[24, 32], [24, 20]], [[16, 16]] * 2)
    assert torch.equal(found.boxes, boxes.expand(3, -1, -1))
    assert torch.allclose(found.logits[0].sigmoid(), torch.tensor([[1e-4, 0.5], [1e-4, 1e-4]]))


def test_images_that_are_too_large_are_resized_and_boxes_come_back():
    outputs = torch.tensor([[[1.0, 2, 9, 8]]]), torch.tensor([[0.5]]), torch.tensor([[0]])
    teacher, given = answering(outputs, batch=None, images="float")
    images = torch.full((1, 3, 64, 32), 51, dtype=torch.uint8)
    found = teacher.find(batch_of(images, [[64, 32]]))
    ((fed, sizes),) = given
    assert (fed.shape, sizes.tolist()) == ((1, 3, 32, 32), [[32, 16]])
    assert torch.allclose(fed[..., :16], torch.tensor(0.2))
    assert torch.allclose(fed[..., 16:], torch.tensor(114 / 255))
    assert found.boxes.tolist() == [[[2, 4, 18, 16]]]


def test_a_box_of_each_class_is_a_prediction_of_that_class():
    boxes = torch.tensor([[[[0.0, 0, 8, 8], [16, 16, 30, 30]], [[0, 16, 8, 30], [20, 0, 30, 8]]]])
    scores = torch.tensor([[[0.9, 0.8], [0.001, 0.7]]])
    teacher, _ = answering((boxes, scores), nms=False, batch=None)
    found = teacher.find(batch_of(torch.zeros(1, 3, 32, 32), [[32, 32]]))
    assert found.boxes[0].tolist() == [[0, 0, 8, 8], [16, 16, 30, 30], [20, 0, 30, 8]]
    assert found.logits[0].argmax(-1).tolist() == [0, 1, 1]
    assert found.logits[0].sigmoid().amax(-1).tolist() == pytest.approx([0.9, 0.8, 0.7])


def test_what_a_file_says_of_itself_is_checked():
    for wrong, named in ((SAYS | {"images": "bgr"}, "images"), ({"classes": ["cat"]}, "expected the key images")):
        with pytest.raises(UserError, match=rf"{named}.*; write it again by `ladle export`"):
            open_exported(parse_uri("pt2:file.pt2"), wrong, lambda images, sizes: (), lambda device: None)
