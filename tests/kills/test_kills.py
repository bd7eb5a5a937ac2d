"""A small part of the campaign of kills: a run that is killed leaves what one leaves that was not."""

import pytest

from ladle.recipes import training
from tests.kills.campaign import Kill, begin, prepare, trial


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """How to kill a run, and the number of its file operations; nothing is drawn, which takes most of the time."""
    folder = tmp_path_factory.mktemp("kills")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setattr(training, "draw_history", lambda *_: None)
        patch.setattr(training.Evaluator, "draw", lambda *_: None)
        prepare(folder)
        whole, _, operations = begin("cached", folder)
        yield lambda *kills: trial("cached", folder, whole, kills), operations


@pytest.mark.slow
@pytest.mark.parametrize(("share", "size"), [(0.3, 100), (0.6, 50_000), (1.0, None)])
def test_a_run_that_dies_at_a_file_operation_or_in_a_file_goes_on_as_if_it_had_not(place, share, size):
    kill, operations = place
    assert kill(Kill(operation=round(share * operations), size=size)) == "same"


@pytest.mark.slow
def test_a_run_that_dies_again_and_again_goes_on_as_if_it_had_not(place):
    kill, operations = place
    assert kill(Kill(operation=operations // 2), Kill(operation=9), Kill(operation=operations // 3)) == "same"
