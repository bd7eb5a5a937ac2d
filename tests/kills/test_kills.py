"""A small part of the campaign of kills: a run that is killed leaves what one leaves that was not."""

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest

from ladle.recipes import training
from tests.kills.campaign import Kill, begin, prepare, trial


def begin_process(folder):
    """Begin a process in which nothing is drawn, which takes most of the time."""
    training.draw_history = lambda *_: None
    training.Evaluator.draw = lambda *_: None
    prepare(folder)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """How to kill a run, and the number of its file operations.

    The runs are forked from a new process: from one whose threads have computed gradients they could not.
    """
    folder = tmp_path_factory.mktemp("kills")
    new = get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=new, initializer=begin_process, initargs=(folder,)) as pool:
        whole, _, operations = pool.submit(begin, "cached", folder).result()
        yield lambda *kills: pool.submit(trial, "cached", folder, whole, kills).result(), operations


@pytest.mark.slow
@pytest.mark.parametrize(("share", "size"), [(0.3, 100), (0.6, 50_000), (1.0, None)])
def test_a_run_that_dies_at_a_file_operation_or_in_a_file_goes_on_as_if_it_had_not(place, share, size):
    kill, operations = place
    assert kill(Kill(operation=round(share * operations), size=size)) == "same"


@pytest.mark.slow
def test_a_run_that_dies_again_and_again_goes_on_as_if_it_had_not(place):
    kill, operations = place
    assert kill(Kill(operation=operations // 2), Kill(operation=9), Kill(operation=operations // 3)) == "same"
