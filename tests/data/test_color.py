import pytest
import torch
from torchvision.transforms.v2 import functional

from ladle.data.color import recolored

CHANGES = [
    (1.15, 1.1, 0.9, 0.03),
    (0.8, 1.2, 1.2, -0.05),
    (1.2, 0.8, 0.8, 0.05),
    (2.0, 2.0, 2.0, 0.25),
    (0.1, 1.9, 0.0, -0.25),
    (1.0, 1.0, 1.0, 1 / 3),
    (1.0, 1.0, 1.0, -0.5),
    (1.3, 1.0, 1.0, 0.0),
    (1.0, 0.4, 1.0, 0.0),
    (1.0, 1.0, 1.7, 0.0),
]


def random_image(height=64, width=96):
    return torch.randint(0, 256, (3, height, width), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def reference(image, brightness, contrast, saturation, hue):
    """The same by torchvision on a float image, in gray levels."""
    image = functional.adjust_brightness(image.float() / 255, brightness)
    image = functional.adjust_saturation(functional.adjust_contrast(image, contrast), saturation)
    return functional.adjust_hue(image, hue) * 255


@pytest.mark.parametrize("changes", CHANGES, ids=str)
def test_the_result_is_that_of_torchvision_on_floats_to_a_gray_level(changes):
    image = random_image()
    assert (recolored(image, *changes).float() - reference(image, *changes)).abs().max() < 0.75


@pytest.mark.parametrize("level", [0, 114, 255])
def test_gray_stays_gray(level):
    image = torch.full((3, 5, 7), level, dtype=torch.uint8)
    assert torch.equal(recolored(image, 1.0, 1.5, 0.3, 0.2), image)
    assert recolored(image, 0.5, 0.7, 1.9, -0.1).unique().tolist() == [(level + 1) // 2]


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 300), (333, 1)])
def test_any_shape_and_any_strides_are_recolored(height, width):
    image = random_image(height, width)
    turned = recolored(image, 1.1, 0.9, 1.2, 0.1)
    assert (turned.float() - reference(image, 1.1, 0.9, 1.2, 0.1)).abs().max() < 0.75
    assert torch.equal(recolored(image.permute(1, 2, 0).contiguous().permute(2, 0, 1), 1.1, 0.9, 1.2, 0.1), turned)


def test_the_number_of_threads_changes_no_pixel():
    image, threads = random_image(301, 403), torch.get_num_threads()
    try:
        views = []
        for count in (1, 3):
            torch.set_num_threads(count)
            views.append(recolored(image, 1.13, 1.17, 0.87, 0.04))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(*views)


def test_the_mean_of_a_large_image_stays_exact():
    image = torch.full((3, 1000, 1500), 201, dtype=torch.uint8)
    assert torch.equal(recolored(image, 1.0, 0.0, 1.0, 0.0), image)
