import os
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ladle.data.dataset import DetectionDataset, ImageInfo
from ladle.data.loader import DatasetSource, collate, default_workers, make_loader
from ladle.data.samples import Sample
from ladle.data.scenes import CLASSES, Scenes
from ladle.data.transforms import Augmentation
from ladle.errors import UserError

STRONG = Augmentation(flip=0.5, jitter=0.3, crop=0.5, mosaic=0.3)


def scenes(count=13):
    return Scenes(count, seed=2, size=64)


def training(source=None, batch=4, augmentation=STRONG, **settings):
    settings = {"seed": 5, "shuffle": True, "drop_last": True, **settings}
    return make_loader(source or scenes(), batch, 64, augmentation, **settings)


def epoch_of(loader, epoch):
    loader.set_epoch(epoch)
    return list(loader)


def views(batches):
    """Every view without its padding, in order: (id, pixels, boxes, labels, crowd)."""
    rows = []
    for batch in batches:
        for row, name in enumerate(batch.ids):
            height, width = batch.sizes[row].tolist()
            real = batch.truth.valid[row]
            truth = [getattr(batch.truth, part)[row][real] for part in ("boxes", "labels", "crowd")]
            rows.append((name, batch.images[row, :, :height, :width], *truth))
    return rows


def assert_same_views(first, second):
    assert [row[0] for row in first] == [row[0] for row in second]
    for ours, theirs in zip(first, second, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(ours[1:], theirs[1:], strict=True))


def complaint_of(loader):
    try:
        list(loader)
    except UserError as mistake:
        return str(mistake)
    return ""


@pytest.fixture
def folder(tmp_path):
    """Three images of different shapes on disk."""
    images = []
    for number, (height, width) in enumerate([(40, 80), (96, 60), (128, 128)]):
        pixels = np.full((height, width, 3), 40 * number, np.uint8)
        pixels[10:30, 20:50] = (250, 20, 20)
        file = tmp_path / f"{number}.png"
        Image.fromarray(pixels).save(file)
        boxes, labels = np.array([[20, 10, 50, 30]], np.float32), np.array([number], np.int64)
        images.append(ImageInfo(f"p{number}", file, height, width, boxes, labels, np.array([False])))
    return DetectionDataset(tuple(images), ("a", "b", "c"), (3, 7, 9), (), Path(tmp_path))


@pytest.mark.slow
def test_mixed_views_hold_the_objects_of_two_images_and_are_the_same_in_every_process():
    mixing = Augmentation(0.5, 0.2, 0.0, mosaic=0.3, mixup=1.0, scale=0.5, joined=1)
    alone, helped = (training(augmentation=mixing, workers=workers) for workers in (0, 2))
    assert_same_views(views(epoch_of(alone, 0)), views(epoch_of(helped, 0)))
    alone_again = views(epoch_of(alone, 0))
    later = views(epoch_of(alone, 1))
    assert_same_views(later, views(epoch_of(helped, 1)))
    plain = views(epoch_of(training(augmentation=Augmentation(0.5, 0.2, 0.0, scale=0.5)), 1))
    assert_same_views(later, plain)
    objects = [sum(len(row[2]) for row in rows) for rows in (alone_again, later)]
    assert objects[0] > 1.4 * objects[1]


@pytest.mark.slow
def test_views_do_not_depend_on_workers():
    alone, helped = training(workers=0), training(workers=2)
    for epoch in (0, 1):
        assert_same_views(views(epoch_of(alone, epoch)), views(epoch_of(helped, epoch)))


def test_a_resumed_run_sees_what_an_unbroken_one_sees():
    unbroken = training(multiscale=(32, 64, 96))
    for epoch in range(3):
        batches = epoch_of(unbroken, epoch)
    resumed = epoch_of(training(multiscale=(32, 64, 96)), 2)
    assert_same_views(views(batches), views(resumed))


def test_views_do_not_depend_on_the_place_in_a_batch():
    by_name = {row[0]: row for row in views(epoch_of(training(batch=4, drop_last=False), 1))}
    others = views(epoch_of(training(batch=1, drop_last=False, shuffle=False), 1))
    assert len(by_name) == len(others) == 13
    assert_same_views([by_name[row[0]] for row in others], others)


def test_epochs_and_seeds_differ_in_order_and_views():
    first, second = views(epoch_of(training(), 0)), views(epoch_of(training(), 1))
    other = views(epoch_of(training(seed=6), 0))
    assert [row[0] for row in first] != [row[0] for row in second]
    assert [row[0] for row in first] != [row[0] for row in other]
    pixels = {row[0]: row[1] for row in second}
    shared = [(row[1], pixels[row[0]]) for row in first if row[0] in pixels]
    assert sum(not (a.shape == b.shape and torch.equal(a, b)) for a, b in shared) > len(shared) / 2


def test_two_ranks_see_what_one_process_with_a_doubled_batch_sees():
    settings = {"multiscale": (32, 48, 64, 80)}
    whole = epoch_of(training(batch=4, **settings), 3)
    ranks = [epoch_of(training(batch=2, rank=rank, world=2, **settings), 3) for rank in (0, 1)]
    assert len(whole) == len(ranks[0]) == len(ranks[1]) == 3
    for together, *parts in zip(whole, *ranks, strict=True):
        assert_same_views(views([together]), views(parts))


def test_multiscale_changes_the_size_between_steps_and_never_within():
    batches = epoch_of(training(scenes(40), batch=4, multiscale=(32, 64, 96)), 0)
    sides = [batch.sizes.amax(1) for batch in batches]
    assert all((side == side[0]).all() for side in sides)
    assert {int(side[0]) for side in sides} == {32, 64, 96}


def test_training_drops_the_incomplete_batch_and_wraps_a_tiny_set():
    loader = training(scenes(13), batch=4)
    assert len(loader) == len(epoch_of(loader, 0)) == 3
    tiny = training(scenes(3), batch=4, world=2, rank=1)
    (batch,) = epoch_of(tiny, 0)
    assert len(tiny) == 1
    assert len(batch.ids) == 4
    assert set(batch.ids) == {0, 1, 2}


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("count", [1, 7, 12])
def test_validation_sees_every_image_once_over_all_ranks(world, count):
    seen = []
    for rank in range(world):
        loader = make_loader(scenes(count), 2, 32, rank=rank, world=world)
        batches = list(loader)
        assert len(batches) == len(loader)
        seen += [name for batch in batches for name in batch.ids]
    assert sorted(seen) == list(range(count))


def test_without_augmentation_every_object_is_kept_where_it_is():
    source = scenes(6)
    for name, image, boxes, labels, crowd in views(make_loader(source, 3, 64)):
        sample = source.sample(name)
        assert torch.equal(image, sample.image)
        assert torch.equal(boxes, sample.boxes)
        assert torch.equal(labels, sample.labels)
        assert torch.equal(crowd, sample.crowd)


def test_collate_pads_right_and_bottom_with_grey_to_a_multiple_of_32():
    samples = [
        Sample(
            torch.full((3, *size), 7, dtype=torch.uint8),
            torch.zeros(n, 4),
            torch.zeros(n).long(),
            torch.zeros(n).bool(),
            n,
            (9, 9),
        )
        for n, size in enumerate([(33, 20), (10, 64)])
    ]
    batch = collate(samples)
    assert batch.images.shape == (2, 3, 64, 64)
    assert batch.sizes.tolist() == [[33, 20], [10, 64]]
    assert batch.truth.valid.tolist() == [[False], [True]]
    assert (batch.images[0, :, :33, :20] == 7).all()
    assert (batch.images[0, :, 33:] == 114).all()
    assert (batch.images[0, :, :, 20:] == 114).all()
    assert collate(samples, least=100).images.shape == (2, 3, 128, 128)


def test_square_pads_every_batch_alike(folder):
    source = DatasetSource(folder)
    shapes = {tuple(b.images.shape[2:]) for b in make_loader(source, 1, 64, multiscale=(32, 64), square=True)}
    assert shapes == {(64, 64)}


@pytest.mark.parametrize("cache", [0, 48])
def test_boxes_on_disk_map_back_by_originals_over_sizes(folder, cache):
    (batch,) = make_loader(DatasetSource(folder, cache), 3, 64)
    scale = (batch.originals / batch.sizes).flip(1).repeat(1, 2)
    assert batch.ids == ("p0", "p1", "p2")
    assert batch.originals.tolist() == [[40, 80], [96, 60], [128, 128]]
    assert batch.truth.labels.squeeze(1).tolist() == [0, 1, 2]
    assert torch.allclose(batch.truth.boxes[:, 0] * scale, torch.tensor([20.0, 10, 50, 30]).expand(3, 4), atol=1e-3)


def test_a_cached_image_is_decoded_once_and_stays_small(folder):
    source = DatasetSource(folder, cache=32)
    first = source.sample(2)
    Path(folder.images[2].file).unlink()
    again = source.sample(2)
    assert torch.equal(again.image, first.image)
    assert torch.equal(again.boxes, first.boxes)
    assert first.boxes.tolist() == [[5.0, 2.5, 12.5, 7.5]]
    assert first.size == (32, 32)
    assert first.original == (128, 128)
    assert DatasetSource(folder, cache=4096).sample(0).size == (40, 80)


def test_workers_share_the_cached_images(folder):
    source = DatasetSource(folder, cache=48)
    with_workers = views(make_loader(source, 1, 64, workers=2))
    for image in folder.images:
        image.file.unlink()
    assert_same_views(with_workers, views(make_loader(source, 1, 64)))


def test_every_tensor_of_a_batch_is_pinned(monkeypatch):
    (batch,) = make_loader(scenes(2), 2, 64)
    pinned = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: pinned.append(tensor) or tensor.clone())
    copy, truth = batch.pin_memory(), batch.truth
    tensors = [batch.images, truth.boxes, truth.labels, truth.valid, truth.crowd, batch.sizes, batch.originals]
    assert {*map(id, pinned)} == {*map(id, tensors)}
    assert torch.equal(copy.truth.boxes, truth.boxes)
    assert copy.truth.boxes is not truth.boxes


def test_workers_are_chosen_by_device_and_cores(monkeypatch):
    chosen = {}
    for cores in (1, 2, 8, 64):
        monkeypatch.setattr("ladle.data.loader.cores", lambda cores=cores: cores)
        chosen[cores] = [default_workers(*case) for case in (("cpu",), ("cuda",), ("cuda", 4))]
    assert chosen == {1: [0, 0, 0], 2: [0, 1, 0], 8: [0, 7, 1], 64: [0, 16, 15]}


def test_sources_name_their_classes(folder):
    assert DatasetSource(folder).classes == ("a", "b", "c")
    assert DatasetSource(folder).category_ids == (3, 7, 9)
    assert scenes().classes == CLASSES


@pytest.mark.parametrize("workers", [0, 1])
def test_a_image_of_another_size_is_a_plain_sentence_even_from_a_worker(folder, workers):
    Image.new("RGB", (50, 70)).save(folder.images[1].file)
    complaint = complaint_of(make_loader(DatasetSource(folder), 3, 64, workers=workers))
    assert complaint.startswith(f"{folder.images[1].file} is 50x70 pixels, but")
    assert "60x96" in complaint
    assert "Traceback" not in complaint


def test_loading_is_silent_and_leaves_the_global_generator_alone():
    state = torch.get_rng_state()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loader = training(workers=(os.cpu_count() or 1) + 7)
        assert len(epoch_of(loader, 0)) == 3
        assert len(epoch_of(training(), 0)) == 3
    assert torch.equal(torch.get_rng_state(), state)


def test_impossible_settings_are_refused(folder):
    with pytest.raises(UserError, match="no images"):
        make_loader(scenes(0), 1, 64)
    with pytest.raises(UserError, match="--batch"):
        make_loader(scenes(), 0, 64)
    with pytest.raises(UserError, match="not 16: give a larger --imgsz"):
        make_loader(scenes(), 1, 64, multiscale=(16, 64))
    with pytest.raises(UserError, match="--workers"):
        make_loader(scenes(), 1, 64, workers=-1)
    with pytest.raises(UserError, match="cache"):
        DatasetSource(folder, cache=1)
    with pytest.raises(ValueError, match="ranks count from 0"):
        make_loader(scenes(), 1, 64, rank=2, world=2)
