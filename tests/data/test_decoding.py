"""Images are decoded side by side as far as a budget of memory allows."""

from pathlib import Path
from threading import Barrier, Lock

import numpy as np
import pytest
from PIL import Image

from ladle.data import decoding
from ladle.data.catalogue import Catalogue, Picture
from ladle.data.decoding import bounded, values_of

COST = 10 * 10 * 14
"""Bytes that an image of 10 x 10 is taken for."""


def most_at_once(budget, sizes):
    """The most images in work at the same time, and the most bytes."""
    lock, now, most = Lock(), [], [0, 0]

    def work(place):
        with lock:
            now.append(sizes[place][0] * sizes[place][1] * 14)
            most[0], most[1] = max(most[0], len(now)), max(most[1], sum(now))
        sum(range(20_000))
        with lock:
            now.remove(sizes[place][0] * sizes[place][1] * 14)
        return place

    assert bounded(work, sizes, budget) == list(range(len(sizes)))
    return tuple(most)


def test_no_more_is_decoded_at_once_than_the_budget_holds():
    assert most_at_once(2 * COST, [(10, 10)] * 40)[0] <= 2
    assert most_at_once(COST, [(10, 10)] * 40)[0] == 1


def test_small_images_are_decoded_side_by_side():
    together = Barrier(2)  # breaks after its time if the two never meet
    assert bounded(lambda place: together.wait(20) >= 0, [(10, 10)] * 2, 2 * COST) == [True, True]


def test_an_image_above_the_budget_is_decoded_alone():
    sizes = [(10, 10)] * 10 + [(100, 100)] + [(10, 10)] * 10
    assert most_at_once(3 * COST, sizes)[1] <= 100 * COST


def test_what_fails_gives_its_memory_back():
    def work(place):
        if place % 2:
            raise ValueError("odd")
        return place

    with pytest.raises(ValueError, match="odd"):
        bounded(work, [(10, 10)] * 8, COST)
    assert bounded(abs, [(10, 10)] * 3, COST) == [0, 1, 2]
    assert bounded(abs, [], COST) == []


def catalogue(folder, *values):
    pictures = []
    for number, value in enumerate(values):
        file = folder / f"{number}.png"
        Image.fromarray(np.array([[7, value]], dtype=np.uint16)).save(file)
        nothing = np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros(0, np.bool_)
        pictures.append(Picture(number, file, 1, 2, *nothing, deep=value > 0))
    return Catalogue(tuple(pictures), ("a",), (1,), (), Path(folder))


def test_the_values_of_all_deep_images_are_looked_through(tmp_path):
    (tmp_path / "more").mkdir()
    first, second = catalogue(tmp_path, 900, 20, 300), catalogue(tmp_path / "more", 3, 4000)
    assert values_of([first, second]) == (3, 4000)
    assert values_of([first]) == (7, 900)
    assert values_of([catalogue(tmp_path, 0, 0)]) is None, "no image of 16 bits, and none is opened"


def test_damaged_images_are_passed_over(tmp_path):
    split = catalogue(tmp_path, 900, 4000)
    split.pictures[1].file.write_bytes(b"no image")
    assert values_of([split]) == (7, 900)
    split.pictures[0].file.unlink()
    assert values_of([split]) is None


def test_nothing_more_is_decoded_once_all_bits_are_used(tmp_path, monkeypatch):
    split = catalogue(tmp_path, 60_000, 900, 900)
    split.pictures[2].file.write_bytes(b"no image")
    seen = []
    monkeypatch.setattr(decoding, "_BLOCK", 1)
    monkeypatch.setattr(decoding, "extremes", lambda file: seen.append(file) or (0, 60_000))
    assert values_of([split]) == (0, 60_000)
    assert seen == [split.pictures[0].file]
