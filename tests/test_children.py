"""Children end with their parent, and their parent is informed how they ended."""

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from ladle import children
from ladle.children import run_ranks, run_tasks
from ladle.errors import UserError
from tests.ranks import fail, fail_after, take_part, tell


def processes(folder):
    # A file that is there may still be empty.
    return [int(text) for file in sorted(folder.glob("*.pid")) if (text := file.read_text())]


def is_there(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # A process that has ended but was not asked about yet still has a number.
    stat = Path("/proc") / str(pid) / "stat"
    return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] != "Z"


def gone_soon(pids, seconds=20.0):
    until = time.monotonic() + seconds
    while any(map(is_there, pids)) and time.monotonic() < until:
        time.sleep(0.05)
    return not any(map(is_there, pids))


def test_rank_0_answers_for_all(tmp_path):
    assert run_ranks(2, partial(tell, tmp_path)) == (0, "2", "127.0.0.1")
    assert len(set(processes(tmp_path))) == 2
    assert gone_soon(processes(tmp_path))


def test_tasks_end_in_any_order_and_only_some_run_at_the_same_time(tmp_path):
    tasks = [partial(take_part, tmp_path, name, after) for name, after in (("a", "-c"), ("b", None), ("c", None))]
    first, *others = run_tasks(tasks, at_once=2)
    assert first == (1, "b")
    assert sorted(others) == [(0, "a"), (2, "c")], "the first ends right after the third: both may be found at once"
    events = (tmp_path / "events").read_text().split()
    assert events.index("+c") > events.index("-b"), "the third begins when one has ended"
    assert len(set(processes(tmp_path))) == 3
    assert gone_soon(processes(tmp_path))


def test_a_task_that_fails_ends_the_others(tmp_path):
    tasks = [partial(take_part, tmp_path, "a", "never"), partial(fail_after, tmp_path, "+a")]
    with pytest.raises(UserError, match=r"^a\.jpg: expected an image, found none$"):
        list(run_tasks(tasks, at_once=2))
    assert len(processes(tmp_path)) == 1
    assert gone_soon(processes(tmp_path))


def test_tasks_end_when_no_more_results_are_wanted(tmp_path):
    found = run_tasks([partial(take_part, tmp_path, "a", "+b"), partial(take_part, tmp_path, "b", "never")], at_once=2)
    assert next(found) == (0, "a")
    found.close()
    assert len(processes(tmp_path)) == 2
    assert gone_soon(processes(tmp_path))


@pytest.mark.parametrize(
    ("how", "error", "message"),
    [
        ("killed", UserError, r"process 2 of 2 was ended by the signal SIGKILL, .* --batch .* --resume"),
        ("exits", UserError, r"process 2 of 2 ended with code 3"),
        ("full disk", OSError, r"No space left on device: 'resume.pt'"),
        ("mistake", UserError, r"^a\.jpg: expected an image, found none$"),
        ("mistake first", UserError, r"^a\.jpg: expected an image, found none$"),
    ],
)
def test_where_one_fails_all_end_and_the_cause_is_raised(tmp_path, monkeypatch, how, error, message):
    monkeypatch.setattr(children, "_GRACE", 0.5)
    with pytest.raises(error, match=message):
        run_ranks(2, partial(fail, tmp_path, how))
    assert len(processes(tmp_path)) == 2
    assert gone_soon(processes(tmp_path))


def local():
    return lambda: 5


def test_a_task_that_cannot_be_pickled_is_an_error_before_anything_is_started():
    with pytest.raises((AttributeError, TypeError), match="local"):
        run_ranks(2, local())


PARENT = """
import sys
from functools import partial
from pathlib import Path
from ladle.children import run_ranks, run_tasks
from tests.ranks import tell_and_wait
run_ranks(2, partial(tell_and_wait, Path(sys.argv[1])))
"""


@pytest.mark.parametrize("how", ["SIGKILL", "SIGTERM", "SIGINT", "SIGINT to all"])
def test_where_the_parent_ends_so_do_they(tmp_path, how):
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path)],
        cwd=Path(__file__).parents[1],
        stderr=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    while len(processes(tmp_path)) < 2:
        assert parent.poll() is None
        time.sleep(0.05)
    pids = processes(tmp_path)
    if how == "SIGINT to all":
        os.killpg(parent.pid, signal.SIGINT)
    else:
        os.kill(parent.pid, getattr(signal, how))
    _, message = parent.communicate(timeout=30)
    assert parent.returncode == -getattr(signal, how.split()[0])
    assert gone_soon(pids)
    # Of the three only the parent may have something to say.
    assert message.count(b"Traceback") == ("SIGINT" in how)
