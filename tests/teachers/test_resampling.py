"""Laws of re-sampling dense predictions from a teacher's grids to a student's."""

import math
from dataclasses import replace
from itertools import product

import pytest
import torch

from ladle.boxes import decode_distances
from ladle.detectors import Anchors
from ladle.teachers import TeacherDetections, place, resample
from ladle.teachers.detections import identity_frame
from ladle.types import Predictions

CPU = torch.device("cpu")
SHAPES, STRIDES = [(8, 12), (4, 6), (2, 3)], [8, 16, 32]


def grid(shapes=SHAPES, strides=STRIDES, offset=0.5, scales=(8.0,)):
    return Anchors(scales, offset=offset).grid(shapes, strides, None, CPU)


def found_at(priors, seed=0, images=2, bins=5, each=None):
    """Random predictions at the places of ``priors``, whose boxes are those of their distributions."""
    generator = torch.Generator().manual_seed(seed)
    count = priors.boxes.shape[1]
    edges = torch.randn(images, count, 4, bins, generator=generator) * 2
    distances = edges.softmax(-1) @ torch.arange(float(bins)) * priors.stride[:, None]
    boxes = decode_distances(priors.centers, distances)
    logits = torch.randn(images, count, 3, generator=generator) * 3
    quality = torch.randn(images, count, generator=generator)
    return TeacherDetections(boxes, logits, identity_frame(boxes), quality, edges, priors.grids)


def test_equal_grids_are_the_identity_bit_for_bit():
    priors = grid()
    found = found_at(priors)
    same = resample(found, priors)
    assert torch.equal(same.logits, found.logits)
    assert torch.equal(same.boxes, found.boxes)
    assert torch.equal(same.quality, found.quality)
    assert torch.allclose(same.edges.softmax(-1), found.edges.softmax(-1), atol=1e-6)


def test_other_anchors_at_the_same_places_are_the_identity_too():
    found = found_at(grid(scales=(8.0,)))
    assert torch.equal(resample(found, grid(scales=(4.0,))).logits, found.logits)


def test_levels_that_only_the_student_has_take_the_nearest_one():
    found = found_at(grid())
    priors = grid([*SHAPES, (1, 2)], [*STRIDES, 64])
    moved = resample(found, priors)
    assert torch.equal(moved.logits[:, : found.logits.shape[1]], found.logits)
    # The center of the first cell of stride 64 is at 32 pixels: between the first four cells of stride 32.
    four = found.logits[:, -6:].unflatten(1, (2, 3))[:, :, :2]
    assert torch.allclose(moved.logits[:, -2], four.mean((1, 2)))


def test_a_teacher_moved_by_a_stride_shifts_its_predictions():
    priors = grid([(8, 12)], [8])
    found = found_at(priors)
    moved = resample(found.replaced(frame=torch.tensor([[1.0, 1.0, 8.0, 0.0]]).expand(2, 4)), priors)
    before, after = (each.logits.unflatten(1, (8, 12)) for each in (found, moved))
    assert torch.equal(after[:, :, :-1], before[:, :, 1:])


def test_half_a_cell_beside_the_places_logits_are_the_mean_of_the_neighbors():
    found = found_at(grid([(8, 12)], [8], offset=0.5))
    moved = resample(found, grid([(8, 12)], [8], offset=0.0))
    cells = found.logits.unflatten(1, (8, 12))
    four = (cells[:, 1:, 1:] + cells[:, :-1, 1:] + cells[:, 1:, :-1] + cells[:, :-1, :-1]) / 4
    assert torch.allclose(moved.logits.unflatten(1, (8, 12))[:, 1:, 1:], four, atol=1e-6)


def test_boxes_of_two_objects_are_not_mixed():
    boxes = torch.tensor([[[0.0, 0.0, 10.0, 10.0], [50.0, 0.0, 60.0, 10.0]]])
    teacher = grid([(1, 2)], [16])
    found = TeacherDetections(boxes, torch.tensor([[[2.0], [1.0]]]), identity_frame(boxes), grids=teacher.grids)
    between = replace(grid([(1, 1)], [16]), boxes=torch.tensor([[[8.0, 0.0, 24.0, 16.0]]]))
    assert torch.equal(resample(found, between).boxes, boxes[:, :1])
    near = found.replaced(boxes=torch.tensor([[[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 20.0]]]))
    strong, weak = 2.0, 1.0
    weights = torch.tensor([strong, weak]).sigmoid() * torch.tensor([1.0, 0.5])
    lower = float((weights * torch.tensor([10.0, 20.0])).sum() / weights.sum())
    assert torch.allclose(resample(near, between).boxes, torch.tensor([[[0.0, 0.0, 10.0, lower]]]))


def test_distributions_keep_their_edge_where_strides_and_places_differ():
    teacher, student = grid([(4, 6)], [16]), grid([(8, 12)], [8])
    edges = torch.full((1, 24, 4, 17), -40.0)
    edges[..., 3] = 40.0  # every edge three strides of 16 pixels away
    boxes = decode_distances(teacher.centers, torch.full((1, 24, 4), 48.0))
    found = TeacherDetections(boxes, torch.zeros(1, 24, 1), identity_frame(boxes), None, edges, teacher.grids)
    moved = resample(found, student)
    distances = moved.edges.softmax(-1) @ torch.arange(17.0) * 8
    edge = decode_distances(student.centers, distances)
    # The edges are those of one of the four places around, 4 or 12 pixels from the prior.
    assert float((edge - moved.boxes).abs().max()) <= 16.0
    assert float((edge[..., 2] - edge[..., 0] - 96.0).abs().max()) < 1e-3


def test_a_resized_teacher_is_read_at_the_student_s_places():
    """A teacher that sees images at half the size: its stride of 8 is 16 pixels of the student."""
    teacher, student = grid([(4, 6)], [8]), grid([(4, 6)], [16])
    found = found_at(teacher, images=1)
    half = found.replaced(frame=torch.tensor([[0.5, 0.5, 0.0, 0.0]]))
    assert torch.equal(resample(half, student).logits, found.logits)


def test_each_image_has_its_own_frame():
    priors = grid([(8, 12)], [8])
    found = found_at(priors)
    frames = torch.tensor([[1.0, 1.0, 8.0, 0.0], [1.0, 1.0, 0.0, 16.0]])
    both = resample(found.replaced(frame=frames), priors)
    for image in (0, 1):
        alone = found.map(lambda tensor: tensor[image : image + 1]).replaced(frame=frames[image : image + 1])  # noqa: B023
        assert torch.equal(both.logits[image : image + 1], resample(alone, priors).logits)
        assert torch.equal(both.boxes[image : image + 1], resample(alone, priors).boxes)


def test_of_several_anchors_each_keeps_its_own_or_the_best_counts():
    several, one = grid([(2, 3)], [8], scales=(4.0, 8.0)), grid([(2, 3)], [8])
    found = found_at(several, images=1)
    assert torch.equal(resample(found, several).logits, found.logits)
    best = found.logits.unflatten(1, (6, 2)).amax(-1).argmax(-1, keepdim=True)
    wanted = found.logits.unflatten(1, (6, 2)).gather(2, best.unsqueeze(-1).expand(-1, -1, -1, 3)).squeeze(2)
    assert torch.equal(resample(found, one).logits, wanted)


def test_what_has_no_grid_is_refused():
    priors = grid()
    with pytest.raises(ValueError, match="placed"):
        resample(found_at(priors), replace(priors, grids=None))
    assert place(found_at(priors), replace(priors, grids=None)).logits.shape == (2, 126, 3)


def found_by_cells(found, student, frame, each):
    """The rule for levels without a counterpart, one place after the other: its prior, and the best of each prior."""
    best = {}
    starts = [0]
    for level in student.grids:
        starts.append(starts[-1] + level.height * level.width * level.each)
    scale, shift = frame[:2].tolist(), frame[2:].tolist()
    mean = (scale[0] * scale[1]) ** 0.5

    def apart(theirs, ours):
        return abs(math.log(theirs.stride / mean / ours.stride))

    counterparts = {min(found.grids, key=lambda one: apart(one, ours)) for ours in student.grids}
    place = 0
    for theirs in found.grids:
        number, ours = min(enumerate(student.grids), key=lambda one: apart(theirs, one[1]))
        for row, column, anchor in product(range(theirs.height), range(theirs.width), range(each)):
            x = ((column + theirs.offset) * theirs.stride - shift[0]) / scale[0]
            y = ((row + theirs.offset) * theirs.stride - shift[1]) / scale[1]
            at = round(x / ours.stride - ours.offset), round(y / ours.stride - ours.offset)
            if theirs not in counterparts and 0 <= at[0] < ours.width and 0 <= at[1] < ours.height:
                prior = starts[number] + (at[1] * ours.width + at[0]) * each + anchor
                score = float(found.logits[0, place].max())
                if prior not in best or score > best[prior][0]:
                    best[prior] = score, place
            place += 1
    return best


@pytest.mark.parametrize("each", [1, 2])
@pytest.mark.parametrize("strides", [[8], [16, 32], [32], [4], [64]])
def test_levels_that_only_the_teacher_has_reach_the_nearest_priors_of_the_nearest_level(strides, each):
    scales = (4.0, 8.0)[:each]
    shapes = [(128 // stride, 192 // stride) for stride in strides]
    teacher, student = grid([(16, 24), (8, 12), (4, 6)], scales=scales), grid(shapes, strides, scales=scales)
    # No center of a place lies between two priors.
    frame = torch.tensor([1.1, 1.07, 2.3, 1.9])
    found = found_at(teacher, images=1).replaced(frame=frame[None])
    moved = resample(found, student)
    expected = found_by_cells(found, student, frame, each)
    own = resample_alone(found, student, frame)
    for prior in range(student.boxes.shape[1]):
        score, place = expected.get(prior, (-math.inf, None))
        if score > float(own.logits[0, prior].max()):
            assert torch.equal(moved.logits[0, prior], found.logits[0, place])
            assert torch.equal(moved.boxes[0, prior], found.boxes[0, place])
            assert torch.equal(moved.quality[0, prior], found.quality[0, place])
        else:
            assert torch.equal(moved.logits[0, prior], own.logits[0, prior])
            assert torch.equal(moved.boxes[0, prior], own.boxes[0, prior])
    taken = sum(score > float(own.logits[0, prior].max()) for prior, (score, _) in expected.items())
    assert taken > 0


def resample_alone(found, student, frame):
    """Every level of the student from the teacher's nearest level alone."""
    parts, starts = [], [0]
    for level in found.grids:
        starts.append(starts[-1] + level.height * level.width * level.each)
    begin = 0
    for ours in student.grids:
        end = begin + ours.height * ours.width * ours.each
        mean = float(frame[0] * frame[1]) ** 0.5
        number = min(range(len(found.grids)), key=lambda n: abs(math.log(found.grids[n].stride / mean / ours.stride)))
        rows = slice(starts[number], starts[number + 1])
        level = TeacherDetections(
            found.boxes[:, rows],
            found.logits[:, rows],
            found.frame,
            found.quality[:, rows],
            found.edges[:, rows],
            (found.grids[number],),
        )
        here = replace(
            student,
            boxes=student.boxes[:, begin:end],
            stride=student.stride[begin:end],
            level=student.level[begin:end],
            valid=student.valid[:, begin:end],
            counts=(end - begin,),
            grids=(ours,),
        )
        parts.append(resample(level, here))
        begin = end
    return Predictions(
        *(torch.cat([getattr(part, name) for part in parts], dim=1) for name in ("logits", "boxes", "quality", "edges"))
    )
