"""Small images of assignments: squares in the colors of objects, dashed boxes for objects that none learns."""

from io import BytesIO

import numpy as np
import torch
from PIL import Image

from ladle.testing.scenes import grid_priors
from ladle.types import Assignment, GroundTruth
from ladle.visual.palette import color
from ladle.visual.plans import assignment_thumbnail


def drawn(index, positive, boxes, most=60_000):
    priors = grid_priors(96, 96, (8, 16))
    truth = GroundTruth.pad([torch.tensor(boxes)], [torch.zeros(len(boxes), dtype=torch.long)])
    plan = Assignment.hard(index, positive, ~positive)
    data = assignment_thumbnail(torch.full((3, 96, 96), 255, dtype=torch.uint8), truth, priors, plan, most)
    return data, np.asarray(Image.open(BytesIO(data)).convert("RGB")).astype(int)


def near(pixels, number):
    """Where an image has about the color of an object."""
    wanted = np.array([int(color(number)[start : start + 2], 16) for start in (1, 3, 5)])
    return np.abs(pixels - wanted).sum(-1) < 200


def test_positives_are_squares_in_the_color_of_their_object():
    index, positive = torch.zeros(1, 180, dtype=torch.long), torch.zeros(1, 180, dtype=torch.bool)
    positive[0, 12 * 5 + 5] = positive[0, 12 * 10 + 2] = True  # at (40, 40) and (16, 80)
    index[0, 12 * 10 + 2] = 1
    data, pixels = drawn(index, positive, [[60.0, 4.0, 90.0, 30.0], [60.0, 60.0, 90.0, 90.0]])
    assert pixels.shape == (480, 480, 3)
    assert len(data) <= 60_000
    for number, (x, y) in enumerate([(40, 40), (16, 80)]):
        around = (slice(5 * y - 8, 5 * y + 8), slice(5 * x - 8, 5 * x + 8))
        assert near(pixels, number)[around].any()
        assert not near(pixels, 1 - number)[around].any()


def test_objects_without_a_positive_are_dashed():
    index, positive = torch.zeros(1, 180, dtype=torch.long), torch.zeros(1, 180, dtype=torch.bool)
    positive[0, 0] = True
    _, pixels = drawn(index, positive, [[20.0, 20.0, 80.0, 50.0], [20.0, 60.0, 80.0, 90.0]])
    top = [near(pixels, number)[5 * y - 2 : 5 * y + 3, 110:390].any(0).mean() for number, y in enumerate((20, 60))]
    assert top[0] > 0.95
    assert 0.3 < top[1] < 0.8
