"""Images become a teacher's input, and its boxes come back."""

import pytest
import torch
from torchvision.transforms.v2 import functional

from ladle.teachers import TeacherInput
from ladle.teachers.inputs import to_batch

IMAGES = torch.randint(0, 256, (2, 3, 64, 96), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_an_image_of_the_input_s_size_is_unchanged():
    same = TeacherInput(64, 96).images(IMAGES, torch.tensor([[64, 96]] * 2))
    assert torch.equal(same, IMAGES.float())
    from_floats = TeacherInput(64, 96).images(IMAGES / 255, torch.tensor([[64, 96]] * 2))
    assert torch.allclose(from_floats, IMAGES.float(), atol=1e-4)


@pytest.mark.parametrize("size", [(32, 32), (100, 130), (64, 48), (23, 200)])
def test_it_resizes_as_torchvision_does_with_antialiasing(size):
    wanted = functional.resize_image(IMAGES.float(), list(size), antialias=True)
    resized = TeacherInput(*size).images(IMAGES, torch.tensor([[64, 96]] * 2))
    assert torch.allclose(resized, wanted, atol=1e-2)


def test_each_image_is_resized_by_its_own_size_without_its_padding():
    sizes = torch.tensor([[64, 48], [32, 96]])
    both = TeacherInput(40, 40).images(IMAGES, sizes)
    for image, (height, width) in enumerate(sizes.tolist()):
        alone = IMAGES[image, :, :height, :width].float()
        assert torch.allclose(both[image], functional.resize_image(alone, [40, 40], antialias=True), atol=1e-2)


@pytest.mark.parametrize(("resize", "top"), [("letterbox", 10), ("corner", 0)])
def test_padding_keeps_the_proportions(resize, top):
    taken = TeacherInput(60, 60, resize=resize, pad=7.0)
    made = taken.images(IMAGES[:, :, :, :96], torch.tensor([[64, 96]] * 2))
    inner = functional.resize_image(IMAGES.float(), [40, 60], antialias=True)
    assert torch.allclose(made[:, :, top : top + 40], inner, atol=1e-2)
    assert torch.allclose(made[:, :, top + 40 :], torch.tensor(7.0))
    assert taken.frame(torch.tensor([[64, 96]])).tolist() == [[0.625, 0.625, 0.0, top]]


def test_channels_and_values():
    taken = TeacherInput(64, 96, mean=(1.0, 2.0, 3.0), std=(4.0, 5.0, 6.0), bgr=True)
    made = taken.images(IMAGES, torch.tensor([[64, 96]] * 2))
    red = IMAGES[:, 0].float()
    assert torch.allclose(made[:, 2], (red - 3) / 6, atol=1e-5)


def test_boxes_come_back():
    taken, sizes = TeacherInput(60, 60, resize="letterbox"), torch.tensor([[64, 96]])
    whole = torch.tensor([[[0.0, 10.0, 60.0, 50.0]]])
    assert torch.allclose(to_batch(whole, taken.frame(sizes)), torch.tensor([[[0.0, 0.0, 96.0, 64.0]]]), atol=1e-4)
