import math
from dataclasses import replace

import pytest
import torch

from ladle.boxes import pairwise_coverage
from ladle.data.loader import view
from ladle.data.samples import Sample, crop, fit, flip, recolor, resize, warp
from ladle.data.scenes import Scenes
from ladle.data.transforms import (
    GREY,
    Affine,
    Augmentation,
    ColorJitter,
    DropSmall,
    RandomCrop,
    RandomFlip,
    Resize,
    ScaleJitter,
    mixed,
    mosaic,
)
from ladle.errors import UserError

COLOURS = torch.tensor([[250, 10, 10], [10, 250, 10], [10, 10, 250], [250, 250, 10]], dtype=torch.uint8)


def random(seed=0):
    return torch.Generator().manual_seed(seed)


def painted(seed=0, height=120, width=160, ground=100):
    """Four boxes, each filled with the color of its label, far from one another."""
    rand = torch.rand(4, 4, generator=random(seed))
    corner = torch.tensor([[0, 0], [1, 0], [0, 1], [1, 1]]) * torch.tensor([width // 2, height // 2])
    low = (corner + rand[:, :2] * 15 + 4).round()
    boxes = torch.cat([low, (low + 10 + rand[:, 2:] * 25).round()], dim=1)
    image = torch.full((3, height, width), ground, dtype=torch.uint8)
    for (x0, y0, x1, y1), color in zip(boxes.long().tolist(), COLOURS, strict=True):
        image[:, y0:y1, x0:x1] = color[:, None, None]
    return Sample(image, boxes, torch.arange(4), torch.tensor([False, False, False, True]), "a.png", (height, width))


def single(height, width, box):
    image = torch.zeros(3, height, width, dtype=torch.uint8)
    return Sample(image, torch.tensor([box]), torch.tensor([0]), torch.tensor([False]), 1, (height, width))


def extent(image, color, tolerance=60):
    """The box around the pixels of roughly that color, None without any."""
    near = (image.int() - color[:, None, None].int()).abs().amax(0) < tolerance
    if not near.any():
        return None
    rows, columns = near.any(1).nonzero().squeeze(1), near.any(0).nonzero().squeeze(1)
    return torch.stack([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]).float()


def assert_boxes_follow_pixels(sample, slack=2.0):
    assert sample.boxes.dtype == torch.float32
    assert len(sample.boxes) == len(sample.labels) == len(sample.crowd)
    assert (sample.boxes >= 0).all()
    assert (sample.boxes[:, 2] <= sample.size[1]).all()
    assert (sample.boxes[:, 3] <= sample.size[0]).all()
    for box, label in zip(sample.boxes, sample.labels, strict=True):
        seen = extent(sample.image, COLOURS[label])
        assert seen is not None
        assert (seen - box).abs().max() <= slack


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("imgsz", [64, 100, 300, (96, 128), (100, 110)])
def test_boxes_follow_pixels_when_resized(seed, imgsz):
    assert_boxes_follow_pixels(Resize(imgsz)(painted(seed)))


@pytest.mark.parametrize("seed", range(10))
def test_boxes_follow_pixels_when_flipped(seed):
    sample = painted(seed)
    mirrored = flip(sample)
    assert_boxes_follow_pixels(mirrored, slack=0.0)
    assert torch.equal(flip(mirrored).image, sample.image)
    assert torch.equal(flip(mirrored).boxes, sample.boxes)


@pytest.mark.parametrize("seed", range(20))
def test_boxes_follow_pixels_when_cropped(seed):
    sample = painted(seed)
    cropped = RandomCrop(1.0, share=(0.3, 0.9))(sample, random(seed))
    assert_boxes_follow_pixels(cropped, slack=0.0)
    assert torch.equal(cropped.crowd, cropped.labels == 3)


@pytest.mark.parametrize("seed", range(20))
def test_mosaic_keeps_labels_and_crowd_flags_with_their_boxes(seed):
    samples = [painted(seed * 4 + i, *size) for i, size in enumerate([(120, 160), (160, 120), (90, 200), (100, 100)])]
    joined = mosaic(samples, 128, random(seed))
    assert joined.size == joined.original == (128, 128)
    assert torch.equal(joined.crowd, joined.labels == 3)
    for box, label in zip(joined.boxes, joined.labels, strict=True):
        left, top, right, bottom = box.round().long().tolist()
        inside = joined.image[:, top:bottom, left:right].flatten(1)
        share = ((inside.int() - COLOURS[label][:, None].int()).abs().amax(0) < 60).float().mean()
        assert share > 0.5


def test_mosaic_fills_every_pixel_and_shows_an_object_of_every_sample():
    samples = [painted(i, ground=0) for i in range(4)]
    for seed in range(10):
        joined = mosaic(samples, 96, random(seed))
        x, y = (96 * (0.3 + 0.4 * torch.rand(2, generator=random(seed)))).round()
        centers = (joined.boxes[:, :2] + joined.boxes[:, 2:]) / 2
        corner = (centers[:, 0] > x).long() + 2 * (centers[:, 1] > y).long()
        assert corner.unique().tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("seed", range(10))
def test_the_whole_chain_keeps_boxes_on_their_pixels(seed):
    generator = random(seed)
    sample = painted(seed)
    for transform in Augmentation(flip=0.5, jitter=0.1, crop=0.5).transforms(200):
        sample = transform(sample, generator)
    assert max(sample.size) == 200
    assert_boxes_follow_pixels(sample, slack=4.0)


def test_boxes_map_back_by_original_over_size():
    sample = painted(3)
    for imgsz in (77, 640, (50, 60)):
        small = Resize(imgsz)(sample)
        y, x = (disk / now for disk, now in zip(small.original, small.size, strict=True))
        assert torch.allclose(small.boxes * torch.tensor([x, y, x, y]), sample.boxes, atol=1e-3)


@pytest.mark.parametrize(("height", "width"), [(4000, 6), (6, 4000), (1, 1), (1, 300)])
@pytest.mark.parametrize("imgsz", [64, (32, 48)])
def test_no_side_ever_becomes_empty(height, width, imgsz):
    sample = single(height, width, [0.0, 0.0, float(width), float(height)])
    everything = Augmentation(flip=1.0, jitter=0.5, crop=1.0).transforms(imgsz)
    for seed in range(5):
        view = sample
        for transform in everything:
            view = transform(view, random(seed))
            assert min(view.size) >= 1
            assert min(view.original) >= 1
        joined = mosaic([sample] * 4, 33, random(seed))
        assert joined.size == (33, 33)


def test_fit_keeps_the_ratio_within_half_a_pixel():
    assert fit((480, 640), 320) == (240, 320)
    assert fit((480, 640), (800, 1333)) == (800, 1067)
    assert fit((400, 1200), (800, 1333)) == (444, 1333)
    assert fit((4000, 6), 640) == (640, 1)


def test_crop_drops_by_visible_share_but_keeps_a_crowd_of_which_anything_remains():
    sample = single(100, 100, [0.0, 0.0, 10.0, 10.0])
    assert len(crop(sample, (7, 0, 100, 100)).boxes) == 1
    assert len(crop(sample, (8, 0, 100, 100)).boxes) == 0
    crowd = Sample(sample.image, sample.boxes, sample.labels, torch.tensor([True]), 1, sample.original)
    assert crop(crowd, (8, 0, 100, 100)).boxes.tolist() == [[0.0, 0.0, 2.0, 10.0]]
    assert len(crop(crowd, (10, 0, 100, 100)).boxes) == 0


def test_random_crop_never_loses_all_objects_unless_allowed():
    sample = single(200, 200, [3.0, 190.0, 8.0, 198.0])
    careful, careless = RandomCrop(1.0, share=(0.2, 0.4)), RandomCrop(1.0, share=(0.2, 0.4), may_empty=True)
    assert all(len(careful(sample, random(seed)).boxes) == 1 for seed in range(50))
    assert any(len(careless(sample, random(seed)).boxes) == 0 for seed in range(50))


def test_random_crop_cuts_empty_images_too():
    empty = crop(painted(), (0, 0, 3, 3))
    assert len(empty.boxes) == 0
    blank = Sample(painted().image, empty.boxes, empty.labels, empty.crowd, 0, (120, 160))
    assert min(RandomCrop(1.0, share=(0.3, 0.5))(blank, random()).size) < 70


def test_crop_windows_reach_all_corners():
    corners = torch.tensor([[0.0, 0, 15, 15], [145, 0, 160, 15], [0, 105, 15, 120], [145, 105, 160, 120]])
    image = torch.zeros(3, 120, 160, dtype=torch.uint8)
    sample = Sample(image, corners, torch.arange(4), torch.zeros(4, dtype=torch.bool), 0, (120, 160))
    seen = torch.cat([RandomCrop(1.0, may_empty=True)(sample, random(seed)).labels for seed in range(100)])
    assert seen.bincount(minlength=4).min() > 3


def test_small_boxes_are_dropped_after_the_transform():
    tiny = resize(single(100, 100, [10.0, 10.0, 18.0, 60.0]), 10, 10)
    assert len(DropSmall()(tiny).boxes) == 0
    assert len(DropSmall(0.5)(tiny).boxes) == 1


def test_recoloring_by_nothing_changes_nothing():
    sample = painted()
    assert torch.equal(recolor(sample, 1.0, 1.0, 1.0, 0.0).image, sample.image)
    assert ColorJitter(0.0)(sample, random()) is sample


def test_recoloring_changes_each_property_as_named():
    image = torch.randint(60, 160, (3, 40, 40), generator=random(), dtype=torch.uint8)
    sample = Sample(image, torch.zeros(0, 4), torch.zeros(0).long(), torch.zeros(0).bool(), 0, (40, 40))
    mean, spread = image.float().mean().item(), image.float().std().item()
    assert recolor(sample, 1.2, 1.0, 1.0, 0.0).image.float().mean().item() == pytest.approx(1.2 * mean, abs=0.6)
    flatter = recolor(sample, 1.0, 0.5, 1.0, 0.0).image.float()
    assert flatter.std().item() == pytest.approx(spread / 2, abs=0.6)
    assert flatter.mean().item() == pytest.approx(mean, abs=1.1)  # torchvision cuts fractions of a byte off
    grey = recolor(sample, 1.0, 1.0, 0.0, 0.0).image.int()
    assert (grey.amax(0) - grey.amin(0)).max() <= 1
    turned = recolor(sample, 1.0, 1.0, 1.0, 1 / 3).image
    assert (turned.int() - image.roll(1, 0).int()).abs().max() <= 1


def test_the_same_generator_gives_the_same_view_and_another_gives_another():
    changes = Augmentation(flip=0.5, jitter=0.3, crop=0.5).transforms(96)

    def view(seed):
        generator, sample = random(seed), painted()
        for transform in changes:
            sample = transform(sample, generator)
        return sample.image

    assert torch.equal(view(1), view(1))
    assert len({view(seed).float().mean().item() for seed in range(20)}) == 20


def test_transforms_leave_their_input_and_the_global_generator_alone():
    sample, state = painted(), torch.get_rng_state()
    image, boxes = sample.image.clone(), sample.boxes.clone()
    for transform in Augmentation(flip=1.0, jitter=0.4, crop=1.0).transforms(64):
        transform(sample, random())
    mosaic([sample] * 4, 64, random())
    assert torch.equal(sample.image, image)
    assert torch.equal(sample.boxes, boxes)
    assert torch.equal(torch.get_rng_state(), state)


def test_every_transform_draws_the_same_amount_at_any_rate():
    for low, high in (
        (RandomFlip(0.0), RandomFlip(1.0)),
        (RandomCrop(0.0), RandomCrop(1.0)),
        (ColorJitter(0.0), ColorJitter(0.5)),
    ):
        first, second = random(), random()
        low(painted(), first)
        high(painted(), second)
        assert torch.equal(first.get_state(), second.get_state())


def test_visible_share_is_measured_against_the_uncut_box():
    for seed in range(20):
        sample = painted(seed)
        window = torch.tensor([[20.0, 20.0, 100.0, 80.0]])
        cut = crop(sample, (20, 20, 100, 80))
        learnable = (pairwise_coverage(sample.boxes, window).squeeze(1) >= 0.3) & ~sample.crowd
        assert torch.equal(cut.labels[~cut.crowd], sample.labels[learnable])


def test_impossible_rates_are_refused():
    with pytest.raises(UserError, match="mosaic lies between 0 and 1"):
        Augmentation(mosaic=1.5)
    with pytest.raises(ValueError, match="4 samples, not 3"):
        mosaic([painted()] * 3, 64, random())


@pytest.mark.parametrize("seed", range(8))
def test_boxes_follow_pixels_when_the_scale_changes(seed):
    sample = painted(seed)
    scaled = ScaleJitter(0.8, least_visible=1.0)(sample, random(seed))
    factor = 1 + 0.8 * (2 * float(torch.rand(3, generator=random(seed))[0]) - 1)
    assert scaled.size == (min(120, round(factor * 120)), min(160, round(factor * 160)))
    whole = ~scaled.crowd
    kept = Sample(scaled.image, scaled.boxes[whole], scaled.labels[whole], scaled.crowd[whole], 0, scaled.original)
    if factor < 1:
        assert len(kept.boxes) == 3
    assert_boxes_follow_pixels(kept, slack=3.0)
    stretch = torch.tensor([side / part for side, part in zip(scaled.original, scaled.size, strict=True)])
    torch.testing.assert_close(stretch, torch.full((2,), 1 / factor), rtol=0.02, atol=0)


def test_no_jitter_leaves_the_scale():
    sample = painted()
    assert ScaleJitter(0.0)(sample, random()) is sample


def test_mixed_images_are_their_mean_with_the_objects_of_both():
    first, second = painted(0, 120, 160, ground=100), painted(1, 120, 80, ground=60)
    both = mixed(first, second)
    assert both.size == first.size
    assert (both.id, both.original) == (first.id, first.original)
    assert torch.equal(both.boxes, torch.cat([first.boxes, second.boxes]))
    assert torch.equal(both.labels, torch.cat([first.labels, second.labels]))
    assert torch.equal(both.crowd, torch.cat([first.crowd, second.crowd]))
    assert both.image[:, 0, 0].tolist() == [80] * 3
    assert both.image[:, 0, 120].tolist() == [107] * 3, "grey where only the first image is"


def test_an_image_of_another_shape_is_fitted_into_the_first():
    first, second = single(60, 100, [0.0, 0, 10, 10]), single(120, 100, [20.0, 40, 100, 120])
    assert mixed(first, second).boxes.tolist() == [[0, 0, 10, 10], [10, 20, 50, 60]]


def test_images_are_joined_in_the_first_epochs_only():
    strong = Augmentation(mosaic=0.5, mixup=0.3, joined=4)
    assert [strong.at(epoch).mosaic for epoch in (0, 3, 4, 9)] == [0.5, 0.5, 0.0, 0.0]
    assert [strong.at(epoch).mixup for epoch in (0, 3, 4, 9)] == [0.3, 0.3, 0.0, 0.0]
    assert Augmentation(mosaic=0.5).at(10**6).mosaic == 0.5


# ------------------------------------------------------------------------------------------------ rotation and shear


def test_a_quarter_turn_moves_pixels_and_boxes():
    sample = painted(2, 120, 120)
    turned = warp(sample, ((0.0, -1.0), (1.0, 0.0)), GREY)
    assert torch.equal(turned.image, sample.image.rot90(-1, (1, 2)))
    x1, y1, x2, y2 = sample.boxes.unbind(1)
    torch.testing.assert_close(turned.boxes, torch.stack([120 - y2, x1, 120 - y1, x2], 1))
    assert torch.equal(turned.labels, sample.labels)


def test_a_box_becomes_the_box_of_its_moved_corners():
    sample = single(100, 100, [40.0, 40.0, 60.0, 60.0])
    root = 0.5**0.5
    eighth = warp(sample, ((root, -root), (root, root)), GREY)
    far = 10 / root
    torch.testing.assert_close(eighth.boxes[0], torch.tensor([50 - far, 50 - far, 50 + far, 50 + far]))
    sheared = warp(sample, ((1.0, 0.5), (0.0, 1.0)), GREY)
    assert sheared.boxes.tolist() == [[35.0, 40.0, 65.0, 60.0]]


def test_pixels_without_a_source_are_grey_and_boxes_end_at_the_border():
    sample = replace(single(40, 80, [0.0, 0.0, 20.0, 20.0]), image=torch.full((3, 40, 80), 250, dtype=torch.uint8))
    turned = warp(sample, ((0.0, -1.0), (1.0, 0.0)), GREY)
    assert turned.size == (40, 80)
    assert turned.original == sample.original
    assert (turned.image[:, :, :20] == GREY).all()
    assert (turned.image[:, :, 20:60] == 250).all()
    assert len(turned.boxes) == 0, "it is outside"
    below = replace(sample, boxes=torch.tensor([[0.0, 0.0, 30.0, 20.0], [0.0, 0.0, 24.0, 20.0]]))
    below = replace(below, labels=torch.tensor([0, 1]), crowd=torch.tensor([False, False]))
    kept = warp(below, ((0.0, -1.0), (1.0, 0.0)), GREY)
    assert kept.labels.tolist() == [0], "10 of 30 rows are visible, of the other 4 of 24"
    assert kept.boxes.tolist() == [[40.0, 0.0, 60.0, 10.0]]


@pytest.mark.parametrize("seed", range(8))
def test_boxes_cover_their_pixels_when_an_image_is_turned_and_sheared(seed):
    sample = painted(seed)
    moved = Affine(20, 10, least_visible=1.0)(sample, random(seed))
    assert not torch.equal(moved.image, sample.image)
    for box, label in zip(moved.boxes, moved.labels, strict=True):
        seen = extent(moved.image, COLOURS[label])
        assert (seen[:2] >= box[:2].floor() - 1).all()
        assert (seen[2:] <= box[2:].ceil() + 1).all()
        if label != 3:
            assert ((seen[2:] - seen[:2]) >= 0.7 * (box[2:] - box[:2]) - 3).all()


def test_the_matrix_is_a_rotation_after_two_shears():
    """The corners of a large box tell the whole matrix."""
    turn, right, down = (2 * torch.rand(3, generator=random(3)) - 1).tolist()
    angle, x, y = (math.radians(one) for one in (30 * turn, 20 * right, 20 * down))
    rotation = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    shears = torch.tensor([[1, math.tan(x)], [0, 1]]) @ torch.tensor([[1, 0], [math.tan(y), 1]])
    corners = torch.tensor([[-10.0, -20], [10, -20], [10, 20], [-10, 20]]) @ (rotation @ shears).T + 100
    moved = Affine(30, 20)(single(200, 200, [90.0, 80.0, 110.0, 120.0]), random(3))
    torch.testing.assert_close(moved.boxes[0], torch.cat([corners.amin(0), corners.amax(0)]))


def test_without_rotation_and_shear_a_view_has_the_same_other_changes():
    sample = painted()
    assert Affine(0, 0)(sample, random()) is sample
    plain, turned = Augmentation(mosaic=0.5, mixup=0.5), Augmentation(mosaic=0.5, mixup=0.5, rotate=10, shear=5)
    source = Scenes(4, seed=0, size=96)
    for seed in range(4):
        first, second = random(seed), random(seed)
        before, after = view(source, seed, 96, plain, first), view(source, seed, 96, turned, second)
        assert not torch.equal(before.image, after.image)
        assert torch.equal(first.get_state(), second.get_state())


def test_angles_beyond_their_limits_are_refused():
    for field, most in (("rotate", 180), ("shear", 60)):
        Augmentation(**{field: most})
        with pytest.raises(UserError, match=f"augmentation {field} is 0 to {most} degrees, found {most + 1}"):
            Augmentation(**{field: most + 1})
