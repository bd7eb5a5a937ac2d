"""Small images: their marks are where they belong, and their files are small."""

from io import BytesIO

import numpy as np
import torch
from PIL import Image

from ladle.visual.lettering import labels_of
from ladle.visual.thumbnails import Mark, thumbnail

BLUE = np.array([0, 114, 178])


def opened(data):
    return np.asarray(Image.open(BytesIO(data)).convert("RGB")).astype(int)


def near(pixels, color, reach=60):
    return (np.abs(pixels - color).max(-1) < reach).nonzero()


def test_a_mark_is_drawn_at_its_share_of_the_image():
    image = torch.full((3, 100, 200), 255, dtype=torch.uint8)
    pixels = opened(thumbnail(image, [Mark((0.25, 0.5, 0.75, 1.0), "#0072b2")], 100_000))
    assert pixels.shape == (240, 480, 3)
    rows, columns = near(pixels, BLUE)
    assert abs(columns.min() - 120) <= 2
    assert abs(columns.max() - 359) <= 2
    assert abs(rows.min() - 119) <= 2
    assert rows.max() >= 236


def test_a_dashed_mark_has_gaps():
    image = torch.full((3, 100, 100), 255, dtype=torch.uint8)
    box = (0.1, 0.1, 0.9, 0.9)
    # Black, since JPEG keeps the light of small things but not their color.
    whole, dashed = (
        opened(thumbnail(image, [Mark(box, "#000000", None, on)], 100_000)).mean(-1) for on in (False, True)
    )
    whole, dashed = (255 - whole).sum(), (255 - dashed).sum()
    assert 0.3 * whole < dashed < 0.8 * whole


def test_corners_out_of_order_and_labels_at_the_border_are_drawn():
    (label,) = labels_of(["a long name of a class"])
    image = torch.zeros(3, 60, 60, dtype=torch.uint8)
    data = thumbnail(image, [Mark((1.2, 0.9, 0.8, -0.1), "#0072b2", label)], 100_000)
    assert len(near(opened(data), BLUE)[0]) > 1_000


def test_a_file_is_made_smaller_until_it_fits():
    noise = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 300, 400), dtype=np.uint8))
    sizes = {
        most: opened(data).shape[1] for most in (300_000, 20_000) if len(data := thumbnail(noise, [], most)) <= most
    }
    assert sizes[300_000] == 480
    assert sizes[20_000] < 320
    assert opened(thumbnail(noise, [], 1)).shape[1] == 96
