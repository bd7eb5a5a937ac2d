import numpy as np
import pytest
import torch

from ladle.boxes import pairwise_coverage
from ladle.data.windows import coverage, first_useful, placed


def rectangles(count, seed):
    low = 100 * torch.rand(count, 2, generator=torch.Generator().manual_seed(seed))
    return torch.cat([low, low + 50 * torch.rand(count, 2, generator=torch.Generator().manual_seed(seed + 1))], dim=1)


def test_coverage_is_that_of_pairs_of_boxes():
    boxes, windows = torch.cat([rectangles(20, 0), torch.tensor([[3.0, 4, 3, 9]])]), rectangles(10, 7)
    shares = coverage(boxes.numpy(), windows.numpy())
    assert torch.equal(torch.from_numpy(shares), pairwise_coverage(boxes, windows))
    assert 0 < (shares > 0).mean() < 1


def test_windows_have_their_share_and_aspect_and_stay_inside():
    share, places = np.array([1, 0.5, 0.5], np.float32), np.array([0.3, 0, 1], np.float32)
    windows = placed((100, 200), 2.0, share, places, places)
    assert windows.tolist() == [[0, 0, 200, 100], [0, 0, 100, 50], [100, 50, 200, 100]]
    assert placed((100, 200), 1.0, share, places, places).tolist() == [
        [30, 0, 130, 100],
        [0, 0, 50, 50],
        [150, 50, 200, 100],
    ]


@pytest.mark.parametrize(("box", "chosen"), [([0, 0, 10, 10], 1), ([90, 90, 99, 99], 2), ([40, 40, 45, 45], None)])
def test_the_first_window_that_shows_a_box_is_chosen(box, chosen):
    windows = np.array([[50, 0, 80, 30], [0, 0, 30, 30], [0, 80, 100, 100]], np.float32)
    assert first_useful(np.array([box], np.float32), windows, 0.3) == chosen


def test_without_boxes_the_first_window_is_chosen():
    assert first_useful(np.zeros((0, 4), np.float32), np.zeros((3, 4), np.float32), 0.3) == 0
