"""Weights of a trained detector in one whose classes are others."""

import pytest
import torch

from ladle.detectors import adopt_weights
from ladle.families import detector_spec

NAMES = [
    *("paa-tiny", "autoassign-tiny", "retinanet-tiny", "rtmdet-tiny", "yolox-tiny", "gfl-tiny"),
    *("tood+o2o-tiny", "fasterrcnn-tiny", "cascade-tiny"),
]


def pair(name, trained, student):
    """Two detectors with random weights, none of which is the same in both or where training starts."""
    made = []
    for seed, classes in enumerate((trained, student)):
        torch.manual_seed(seed)
        one = detector_spec(name, classes).build().eval().double()
        for value in one.state_dict().values():
            if value.is_floating_point():
                value.add_(0.01 * torch.rand_like(value))
        made.append(one)
    return made


def logits(detector, images):
    with torch.no_grad():
        outputs = detector(images)
    return [output.predictions for output in outputs]


@pytest.mark.parametrize("name", ["autoassign-tiny", "retinanet-tiny", "fasterrcnn-tiny", "cascade-tiny"])
def test_classes_in_another_order_are_scored_as_before(name):
    given, other = pair(name, ("a", "b", "c"), ("c", "a", "b"))
    assert adopt_weights(other, given) == ()
    images = torch.rand(1, 3, 64, 64, dtype=torch.float64)
    for one, two in zip(logits(given, images), logits(other, images), strict=True):
        order = [2, 0, 1] if one.logits.shape[-1] == 3 else [0]
        torch.testing.assert_close(one.logits[..., order], two.logits)
        torch.testing.assert_close(one.boxes, two.boxes)
        if one.class_boxes is not None:
            torch.testing.assert_close(one.class_boxes[:, :, order], two.class_boxes)


@pytest.mark.parametrize("name", NAMES)
def test_new_classes_keep_their_own_rows_and_lost_ones_go(name):
    given, other = pair(name, ("a", "b", "c"), ("c", "new"))
    before = {key: value.clone() for key, value in other.state_dict().items()}
    assert adopt_weights(other, given) == ("new",)
    states = given.state_dict(), other.state_dict()
    of_classes = [key for key in before if before[key].shape != states[0][key].shape]
    assert of_classes
    same = [key for key in before if key not in of_classes]
    assert all(torch.equal(states[0][key], states[1][key]) for key in same)
    for key in of_classes:
        theirs, now, first = states[0][key], states[1][key], before[key]
        # Heads of regions have rows for background before those of the classes.
        each = theirs.shape[0] // (4 if "class_score" in key or "box_deltas" in key else 3)
        background = each if theirs.shape[0] > 3 * each else 0
        assert torch.equal(now[:background], theirs[:background]), key
        if "retinanet" in name:
            assert torch.equal(now.unflatten(0, (-1, 2))[:, 0], theirs.unflatten(0, (-1, 3))[:, 2])
            assert torch.equal(now.unflatten(0, (-1, 2))[:, 1], first.unflatten(0, (-1, 2))[:, 1])
            continue
        assert torch.equal(now[background : background + each], theirs[background + 2 * each :]), key
        assert torch.equal(now[background + each :], first[background + each :]), key
