"""Features cut out of a pyramid are torchvision's, forward and backward, also at borders and outside."""

import pytest
import torch
from torchvision.ops import MultiScaleRoIAlign

from ladle.detectors.roi_align import _by_operator, _levels, roi_align

STRIDES = (4, 8, 16, 32)
SIZE = (256, 320)


def case(seed=0, channels=6):
    generator = torch.Generator().manual_seed(seed)
    maps = [torch.randn(2, channels, SIZE[0] // s, SIZE[1] // s, generator=generator) for s in STRIDES]
    low = torch.rand(2, 40, 2, generator=generator) * torch.tensor([340.0, 280.0]) - 10
    side = torch.exp(torch.rand(2, 40, 2, generator=generator) * 5 + 1)
    boxes = torch.cat([low, low + side], dim=-1)
    # The whole image, beyond each border, at a corner, a point, and far outside.
    boxes[0, :6] = torch.tensor(
        [
            [0.0, 0, 320, 256],
            [-90, -80, 420, 400],
            [310, 246, 320, 256],
            [100, 100, 100, 100],
            [-90, -90, -60, -60],
            [400, 300, 500, 600],
        ]
    )
    return [m.requires_grad_() for m in maps], boxes


def theirs(maps, boxes, cells):
    align = MultiScaleRoIAlign([str(n) for n in range(4)], cells, 2)
    return align({str(n): m for n, m in enumerate(maps)}, list(boxes), [SIZE, SIZE])


@pytest.mark.parametrize("cells", [7, 5])
def test_the_product_is_torchvisions_operator(cells):
    maps, boxes = case()
    assert len(_levels(boxes, STRIDES).unique()) == 4
    found, expected = roi_align(maps, STRIDES, boxes, cells), theirs(maps, boxes, cells)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=2e-5)
    pull = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1))
    ours = torch.autograd.grad((found * pull).sum(), maps)
    wanted = torch.autograd.grad((expected * pull).sum(), maps)
    for mine, other in zip(ours, wanted, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=2e-4)


def test_where_the_operator_serves_it_gives_the_same():
    maps, boxes = case()
    found = _by_operator(maps, STRIDES, boxes, _levels(boxes, STRIDES), 7)
    torch.testing.assert_close(found, theirs(maps, boxes, 7), rtol=1e-4, atol=2e-5)


def test_boxes_of_no_size_and_no_boxes_are_taken():
    maps, boxes = case()
    assert roi_align(maps, STRIDES, torch.zeros_like(boxes), 7).isfinite().all()
    assert roi_align(maps, STRIDES, boxes[:, :0], 7).shape == (0, 6, 7, 7)


def test_under_half_precision_the_sums_are_those_of_single_precision():
    maps, boxes = case()
    half = [m.detach().bfloat16().requires_grad_() for m in maps]
    with torch.autocast("cpu", torch.bfloat16):
        found = roi_align(half, STRIDES, boxes, 5)
    expected = roi_align([m.detach().float() for m in half], STRIDES, boxes, 5)
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)
    found.sum().backward()
    assert all(m.grad.isfinite().all() for m in half)
