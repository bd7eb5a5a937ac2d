"""Processes that load images: what happens where they, or those they load for, are ended."""

import multiprocessing
import os
import signal
import time
import warnings
from dataclasses import dataclass

import pytest
import torch

from ladle.data.loader import _tell_unless_left, lost_workers_told, make_loader
from ladle.data.samples import Sample
from ladle.data.scenes import Scenes
from ladle.errors import UserError
from tests.test_children import gone_soon


@dataclass(frozen=True)
class Deadly:
    """A source of one image that ends whoever loads it, as a system without memory does."""

    classes = ("a",)
    category_ids = (1,)

    def __len__(self) -> int:
        return 1

    def sample(self, index: int) -> Sample:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError


def test_a_worker_that_is_killed_is_one_sentence():
    @lost_workers_told()
    def load():
        return list(make_loader(Deadly(), 1, 64, workers=1))

    with pytest.raises(UserError, match=r"ended from outside, .* --workers .* --batch .* --resume"):
        load()


def test_other_errors_are_left_as_they_are():
    with pytest.raises(RuntimeError, match="shapes"), lost_workers_told():
        raise RuntimeError("shapes do not fit")


@pytest.fixture
def loading(tmp_path):
    """A process that loads with two workers, its number and theirs, once it has read two epochs."""
    lines = tmp_path / "lines"
    with warnings.catch_warnings(action="ignore"):  # that threads are not forked along, and none is needed
        child = os.fork()
    if child == 0:
        torch.set_num_threads(1)
        loader = make_loader(Scenes(6, size=64), 1, 64, workers=2)
        list(loader)
        pids = [process.pid for process in multiprocessing.active_children()]
        for pid in pids:
            os.kill(pid, signal.SIGINT)
        batches = len(list(loader))
        lines.with_suffix(".part").write_text(" ".join(map(str, [batches, *pids])))
        lines.with_suffix(".part").rename(lines)
        time.sleep(60)
        os._exit(1)
    until = time.monotonic() + 60
    while not lines.exists() and time.monotonic() < until:
        time.sleep(0.05)
    return child, *map(int, lines.read_text().split())


def test_workers_leave_ctrl_c_to_their_parent_and_end_with_it(loading):
    child, batches, *workers = loading
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert gone_soon(workers)
    assert (batches, len(workers)) == (6, 2)


@pytest.mark.parametrize("error", [ConnectionResetError(104, "reset"), BrokenPipeError(), EOFError()], ids=repr)
def test_a_loader_process_is_silent_where_the_program_has_hung_up(capsys, error):
    _tell_unless_left(type(error), error, None)
    assert capsys.readouterr().err == ""


def test_a_loader_process_shows_any_other_error(capsys):
    _tell_unless_left(ValueError, ValueError("what is this"), None)
    assert "ValueError: what is this" in capsys.readouterr().err
