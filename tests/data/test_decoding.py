"""Images are decoded side by side as far as a budget of memory allows."""

from collections import Counter
from pathlib import Path
from threading import Barrier, Lock

import numpy as np
import pytest
from PIL import Image

from ladle.data import decoding
from ladle.data.dataset import DetectionDataset, ImageInfo
from ladle.data.decoding import bounded, values_of

COST = 10 * 10 * 12
"""Bytes that an image of 10 x 10 is taken for."""


def at_once(budget, sizes):
    """The threads that work on images of each size, with the most of them at the same time."""
    lock, now, most = Lock(), Counter(), Counter()

    def work(place):
        with lock:
            now[sizes[place]] += 1
            most[sizes[place]] = max(most[sizes[place]], now.total())
        sum(range(20_000))
        with lock:
            now[sizes[place]] -= 1
        return place

    assert bounded(work, sizes, budget) == list(range(len(sizes)))
    return most


@pytest.mark.parametrize(("held", "threads"), [(0, 1), (1, 1), (2, 2), (3, 2), (5, 4), (1000, 12)])
def test_no_more_is_decoded_at_once_than_the_budget_holds_on_any_machine(monkeypatch, held, threads):
    monkeypatch.setattr(decoding, "cores", lambda: 8)
    pools = []
    real = decoding.ThreadPoolExecutor
    monkeypatch.setattr(decoding, "ThreadPoolExecutor", lambda count: pools.append(count) or real(count))
    assert at_once(held * COST, [(10, 10)] * 40)[10, 10] <= threads
    assert pools == ([threads] if threads > 1 else [])


def test_small_images_are_decoded_side_by_side():
    together = Barrier(2)  # breaks after its time if the two never meet
    assert bounded(lambda place: together.wait(20) >= 0, [(10, 10)] * 2, 2 * COST) == [True, True]


def test_a_large_image_is_decoded_alone_and_leaves_small_ones_their_threads():
    sizes = [(10, 10)] * 10 + [(100, 100)] + [(10, 10)] * 10 + [(10, 1000)]
    most = at_once(4 * COST, sizes)
    assert most[100, 100] == most[10, 1000] == 1
    assert most[10, 10] <= 4


def test_a_mistake_is_raised_and_nothing_to_do_is_nothing():
    def work(place):
        if place % 2:
            raise ValueError("odd")
        return place

    for budget in (COST, 4 * COST):
        with pytest.raises(ValueError, match="odd"):
            bounded(work, [(10, 10)] * 8, budget)
    assert bounded(abs, [], COST) == []


def dataset(folder, *values):
    images = []
    for number, value in enumerate(values):
        file = folder / f"{number}.png"
        Image.fromarray(np.array([[7, value]], dtype=np.uint16)).save(file)
        nothing = np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros(0, np.bool_)
        images.append(ImageInfo(number, file, 1, 2, *nothing, deep=value > 0))
    return DetectionDataset(tuple(images), ("a",), (1,), (), Path(folder))


def test_the_values_of_all_deep_images_are_searched(tmp_path):
    (tmp_path / "more").mkdir()
    first, second = dataset(tmp_path, 900, 20, 300), dataset(tmp_path / "more", 3, 4000)
    assert values_of([first, second]) == (3, 4000)
    assert values_of([first]) == (7, 900)
    assert values_of([dataset(tmp_path, 0, 0)]) is None, "no image of 16 bits, and none is opened"


def test_damaged_images_are_passed_over(tmp_path):
    split = dataset(tmp_path, 900, 4000)
    split.images[1].file.write_bytes(b"no image")
    assert values_of([split]) == (7, 900)
    split.images[0].file.unlink()
    assert values_of([split]) is None


def test_nothing_more_is_decoded_once_all_bits_are_used(tmp_path, monkeypatch):
    split = dataset(tmp_path, 60_000, 900, 900)
    split.images[2].file.write_bytes(b"no image")
    seen = []
    monkeypatch.setattr(decoding, "_BLOCK", 1)
    monkeypatch.setattr(decoding, "extremes", lambda file: seen.append(file) or (0, 60_000))
    assert values_of([split]) == (0, 60_000)
    assert seen == [split.images[0].file]
