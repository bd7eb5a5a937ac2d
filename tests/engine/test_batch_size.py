"""The largest batch is found by whole steps; a lack of memory ends the search and nothing else does."""

import pytest
import torch

from ladle.device import fits_memory
from ladle.engine import launch, one_process
from ladle.engine.batch_size import grow, largest_batch

from .toy import SETTINGS, Toy, ToyLoader

CPU = torch.device("cpu")


class Small(Toy):
    """A toy on a device that has memory for six images, whichever error tells so."""

    error = torch.OutOfMemoryError("CUDA out of memory")

    def __init__(self):
        super().__init__()
        self.tried = []

    def forward(self, batch):
        self.tried.append(len(batch.ids))
        if len(batch.ids) > 6:
            raise self.error
        return super().forward(batch)


def batch_of(count):
    return next(iter(ToyLoader(images=count, batch=count)))


def found(toy, most=64):
    fabric = one_process(1, "cpu")
    return largest_batch(fabric, toy, batch_of, SETTINGS, most)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("x"), RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED")])
def test_a_lack_of_memory_ends_the_search(error):
    toy = Small()
    toy.error = error
    assert found(toy) == 4
    assert toy.tried == [1, 1, 2, 2, 4, 4, 8]


def test_any_other_error_is_raised():
    toy = Small()
    toy.error = RuntimeError("a fault of the program")
    with pytest.raises(RuntimeError, match="a fault of the program"):
        found(toy)


def test_no_more_images_are_tried_than_there_are():
    toy = Small()
    assert found(toy, most=3) == 2
    assert max(toy.tried) == 2


@pytest.mark.parametrize(("room", "expected"), [(0, 0), (1, 1), (7, 4), (8, 8), (11, 8), (12, 12), (15, 12), (100, 96)])
def test_powers_of_two_and_what_lies_halfway(room, expected):
    assert grow(lambda count: count <= room, most=4096) == expected


def test_a_run_after_the_search_is_bit_for_bit_that_without_it(tmp_path):
    from .test_processes import train_ranks, weights

    launch(1, "cpu", train_ranks, tmp_path / "without")
    found(Small())
    launch(1, "cpu", train_ranks, tmp_path / "with")
    one, other = weights(tmp_path / "without"), weights(tmp_path / "with")
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_work_that_fits():
    assert fits_memory(lambda: None, CPU)
