"""Laws of placing final boxes at priors."""

import pytest
import torch

from ladle.boxes import pairwise_iou
from ladle.detectors import Anchors
from ladle.teachers import TeacherDetections, place
from ladle.teachers.detections import identity_frame
from ladle.teachers.foreign import predictions_at
from ladle.types import Batch, Grid, GroundTruth, Priors

CPU = torch.device("cpu")
PRIORS = Anchors((4.0,), offset=0.5).grid([(16, 16), (8, 8), (4, 4)], [8, 16, 32], None, CPU)


def random_found(seed, count=12, classes=3, images=2):
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(images, count, 2, generator=generator) * 96
    side = 2 + torch.rand(images, count, 2, generator=generator) ** 2 * 100
    scores = torch.rand(images, count, classes, generator=generator)
    return TeacherDetections.final(torch.cat([corner, corner + side], -1), scores)


def naive(found, priors):
    """The formula of the docstring, prior by prior."""
    boxes, scores = found.boxes, found.logits.sigmoid()
    overlap = pairwise_iou(priors.boxes.expand(len(boxes), -1, -1), boxes)
    out = torch.full((*overlap.shape[:2], scores.shape[-1]), 1e-4), priors.boxes.expand(len(boxes), -1, -1).clone()
    for image in range(len(boxes)):
        for p, (x, y) in enumerate(priors.centers[0].tolist()):
            best = 0.0
            for n, (x1, y1, x2, y2) in enumerate(boxes[image].tolist()):
                peak = overlap[image, :, n].max()
                inside = x1 < x < x2 and y1 < y < y2
                cover = float(overlap[image, p, n] / peak) if inside or overlap[image, p, n] == peak else 0.0
                if cover * float(scores[image, n].max()) > best:
                    best = cover * float(scores[image, n].max())
                    out[0][image, p] = (scores[image, n] * cover).clamp(1e-4, 1 - 1e-4)
                    out[1][image, p] = boxes[image, n]
    return out


def test_it_is_the_formula():
    found = random_found(0)
    scores, boxes = naive(found, PRIORS)
    predictions = place(found, PRIORS)
    assert torch.allclose(predictions.scores, scores, atol=1e-5)
    assert torch.equal(predictions.boxes, boxes)


def test_every_box_is_fully_expressed_at_some_prior_whatever_its_size():
    for side in (1.0, 6.0, 30.0, 120.0):
        box = torch.tensor([[[3.0, 3.0, 3.0 + side, 3.0 + side]]])
        predictions = place(TeacherDetections.final(box, torch.tensor([[[0.8]]])), PRIORS)
        assert torch.isclose(predictions.scores.max(), torch.tensor(0.8))
        assert torch.equal(predictions.boxes[0, predictions.scores[0, :, 0].argmax()], box[0, 0])


def test_boxes_shifted_by_a_stride_shift_the_predictions():
    inner = torch.tensor([[[20.0, 24.0, 52.0, 50.0], [40.0, 40.0, 44.0, 60.0]]])
    scores = torch.tensor([[[0.9], [0.6]]])
    first, second = (
        place(TeacherDetections.final(inner + shift, scores), Anchors(offset=0.5).grid([(20, 20)], [8], None, CPU))
        for shift in (0.0, 8.0)
    )
    one, other = (each.scores.view(20, 20) for each in (first, second))
    assert torch.equal(one[:-1, :-1], other[1:, 1:])


def test_without_boxes_all_is_background_at_the_priors_themselves():
    nothing = TeacherDetections.final(torch.zeros(2, 0, 4), torch.zeros(2, 0, 3))
    predictions = place(nothing, PRIORS)
    assert torch.allclose(predictions.scores, torch.full((2, 336, 3), 1e-4))
    assert torch.equal(predictions.boxes, PRIORS.boxes.expand(2, -1, -1))


def test_the_order_of_boxes_and_rows_of_background_change_nothing():
    found = random_found(1)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(2))
    shuffled = found.replaced(boxes=found.boxes[:, order], logits=found.logits[:, order])
    padded = TeacherDetections.final(
        torch.cat([found.boxes, torch.zeros(2, 3, 4)], 1), torch.cat([found.logits.sigmoid(), torch.zeros(2, 3, 3)], 1)
    )
    for other in (shuffled, padded):
        assert torch.allclose(place(found, PRIORS).scores, place(other, PRIORS).scores)
        assert torch.equal(place(found, PRIORS).boxes, place(other, PRIORS).boxes)


def test_only_the_boxes_with_the_highest_scores_are_placed():
    found = random_found(3, count=400, images=1)
    kept = found.logits.sigmoid().amax(-1).topk(300).indices[0]
    few = found.replaced(boxes=found.boxes[:, kept], logits=found.logits[:, kept])
    assert torch.equal(place(found, PRIORS).logits, place(few, PRIORS).logits)


def crowd(count, side=40):
    """A dense teacher of 640 pixels that finds ``count`` objects, each at all places in it, the first best."""
    grids = tuple(Grid(640 // stride, 640 // stride, float(stride), 0.5) for stride in (8, 16, 32))
    places = torch.cat(
        [Anchors(offset=0.5).grid([(g.height, g.width)], [int(g.stride)], None, CPU).centers[0] for g in grids]
    )
    boxes, logits = torch.zeros(1, len(places), 4), torch.full((1, len(places), 1), -9.0)
    objects = []
    for number in range(count):
        x, y = number % 12 * 52 + 4.0, number // 12 * 52 + 4.0
        box = torch.tensor([x, y, x + side, y + side])
        inside = ((places > box[:2]) & (places < box[2:])).all(1)
        boxes[0, inside] = box
        logits[0, inside] = torch.tensor(0.95 - 0.6 * number / count).logit()
        objects.append(box)
    return TeacherDetections(boxes, logits, identity_frame(boxes), grids=grids), torch.stack(objects)


@pytest.mark.parametrize("count", [10, 60, 100])
def test_a_dense_teacher_tells_proposals_every_object_of_a_crowd(count):
    found, objects = crowd(count)
    sizes = torch.tensor([[640, 640]])
    proposals = Priors(
        objects[None] + 1, torch.ones(count), torch.zeros(count).long(), torch.ones(1, count).bool(), (count,)
    )
    scores = predictions_at(found, proposals, sizes).scores
    expected = torch.tensor([0.95 - 0.6 * number / count for number in range(count)])
    torch.testing.assert_close(scores[0, :, 0], expected, rtol=1e-3, atol=0)
    nothing = GroundTruth.pad([torch.zeros(0, 4)], [torch.zeros(0, dtype=torch.long)])
    batch = Batch(torch.zeros(1, 3, 640, 640, dtype=torch.uint8), nothing, sizes, sizes, (0,))
    assert [len(one.scores) for one in found.detections(batch, most=300)] == [count]
    assert int((found.suppressed(sizes).logits.sigmoid() > 0.3).sum()) == count
