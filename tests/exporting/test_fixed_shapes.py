"""What is traced gives, before it is traced, what the detector gives."""

import pytest
import torch
from torchvision.ops import nms

from ladle.exporting import Exportable, Plan
from ladle.exporting.adapter import reference_output
from ladle.exporting.suppression import suppress
from tests.exporting.small import SIDE, batch_of, small_detector
from tests.families import DENSE, IN_STAGES


@pytest.mark.parametrize("dynamic", ["batch", "sizes"])
@pytest.mark.parametrize("name", DENSE)
def test_raw_boxes_and_scores_are_those_of_the_detector(name, dynamic):
    detector, batch = small_detector(f"{name}-tiny"), batch_of(3)
    with torch.no_grad():
        boxes, scores = Exportable(detector, Plan(nms=False, dynamic=dynamic, side=SIDE))(batch.images, batch.sizes)
        expected = reference_output(detector, batch.images, batch.sizes)
    torch.testing.assert_close(boxes, expected.boxes)
    torch.testing.assert_close(scores, expected.scores)


@pytest.mark.parametrize("name", [*DENSE, *IN_STAGES])
def test_detections_are_those_of_the_detector_padded_with_zeros(name):
    detector, batch = small_detector(f"{name}-tiny").keep(40), batch_of(3)
    with torch.no_grad():
        boxes, scores, labels = Exportable(detector, Plan(side=SIDE))(batch.images, batch.sizes)
    assert boxes.shape == (3, 40, 4)
    for row, expected in enumerate(detector.detect(batch)):
        count = len(expected.scores)
        stretch = (batch.originals / batch.sizes).flip(-1).repeat(1, 2)[row]
        torch.testing.assert_close(boxes[row, :count] * stretch, expected.boxes)
        torch.testing.assert_close(scores[row, :count], expected.scores)
        assert torch.equal(labels[row, :count], expected.labels)
        assert (scores[row, count:] == 0).all()
        assert (labels[row, count:] == -1).all()


def test_each_group_is_suppressed_by_itself():
    torch.manual_seed(0)
    low = 50 * torch.rand(2, 30, 2)
    boxes, scores = torch.cat([low, low + 5 + 20 * torch.rand(2, 30, 2)], dim=-1), torch.rand(2, 3, 30)
    scores[0, 1, :10] = 0
    stays = suppress(boxes, scores, 0.3)
    for row in range(2):
        for group in range(3):
            kept = nms(boxes[row], scores[row, group], 0.3)
            expected = torch.zeros(30, dtype=torch.bool)
            expected[kept] = True
            assert torch.equal(stays[row, group], expected & (scores[row, group] > 0))
