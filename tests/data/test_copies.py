"""Images in several splits are found by what is in them, and little is read to find them."""

from pathlib import Path

import numpy as np

from ladle.data import copies
from ladle.data.copies import shared
from ladle.data.dataset import DetectionDataset, ImageInfo


def split(*files):
    nothing = np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros(0, np.bool_)
    images = tuple(ImageInfo(number, file, 1, 1, *nothing) for number, file in enumerate(files))
    return DetectionDataset(images, ("a",), (1,), (), Path())


def written(folder, **contents):
    folder.mkdir(exist_ok=True)
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return [folder / name for name in contents]


def test_copies_are_found_under_any_name_in_the_order_of_the_first_split(tmp_path):
    train = written(tmp_path / "train", a=b"one", b=b"two", c=b"long" * 5000, d=b"only here")
    val = written(tmp_path / "val", x=b"long" * 5000, y=b"new", z=b"one")
    found = shared({"train": split(*train), "val": split(*val)})
    assert found == [{"train": train[0], "val": val[2]}, {"train": train[2], "val": val[0]}]
    assert [list(one) for one in found] == [["train", "val"]] * 2


def test_a_difference_in_the_middle_is_a_difference(tmp_path):
    (train,) = written(tmp_path / "train", a=b"x" * 20_000)
    (val,) = written(tmp_path / "val", a=b"x" * 10_000 + b"y" + b"x" * 9_999)
    assert shared({"train": split(train), "val": split(val)}) == []


def test_copies_within_one_split_are_none_of_its_business(tmp_path):
    train = written(tmp_path / "train", a=b"one", b=b"one")
    val = written(tmp_path / "val", a=b"two")
    assert shared({"train": split(*train), "val": split(*val)}) == []
    assert shared({"train": split(*train)}) == []
    assert shared({}) == []


def test_three_splits_share_one(tmp_path):
    files = {name: written(tmp_path / name, a=b"one")[0] for name in ("train", "val", "test")}
    assert shared({name: split(file) for name, file in files.items()}) == [files]


def test_only_files_of_the_same_size_are_opened(tmp_path, monkeypatch):
    opened = []
    keep = copies.open_regular
    monkeypatch.setattr(copies, "open_regular", lambda file: opened.append(file.name) or keep(file))
    train = written(tmp_path / "train", a=b"1", b=b"22", c=b"333", same=b"4444")
    val = written(tmp_path / "val", d=b"55555", e=b"xx")
    assert len(shared({"train": split(*train), "val": split(*val, train[3])})) == 1
    assert sorted(opened) == ["b", "e"], "the same file needs no look at all"
