import errno
import os
import pickle

import pytest
import torch

from ladle.data.shared_images import SharedImages
from ladle.errors import UserError

SIZES = [(4, 6), (1, 1), (33, 7)]


def image(size, seed=0):
    return torch.randint(0, 256, (3, *size), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def test_images_are_kept_apart_and_returned_as_stored():
    images = SharedImages(SIZES)
    stored = [image(size, seed) for seed, size in enumerate(SIZES)]
    for index in (2, 0):
        images.put(index, stored[index])
    assert images.get(1) is None
    images.put(1, stored[1].permute(1, 2, 0).contiguous().permute(2, 0, 1))
    assert all(torch.equal(images.get(index), stored[index]) for index in range(3))
    images.get(0).zero_()
    assert torch.equal(images.get(0), stored[0])


def test_a_forked_process_sees_and_adds_images():
    images = SharedImages(SIZES)
    images.put(0, image(SIZES[0]))
    child = os.fork()
    if child == 0:
        images.put(2, images.get(0)[:, :1, :1].expand(3, *SIZES[2]))
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert torch.equal(images.get(2)[:, 5, 5], images.get(0)[:, 0, 0])


def test_a_pickled_copy_starts_empty():
    images = SharedImages(SIZES)
    images.put(1, image(SIZES[1]))
    copy = pickle.loads(pickle.dumps(images))
    assert copy.get(1) is None
    copy.put(1, image(SIZES[1], seed=5))
    assert torch.equal(images.get(1), image(SIZES[1]))


def test_a_full_folder_is_one_sentence(monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    images = SharedImages(SIZES)
    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(UserError, match="--cache: expected room .* No space left on device: set TMPDIR"):
        images.put(0, image(SIZES[0]))
    assert images.get(0) is None
