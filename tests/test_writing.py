"""A file is written whole or not at all: on a disk that is full, and by a process that dies in the middle."""

import os
import resource
import signal
from contextlib import contextmanager

import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image
from safetensors.torch import save, save_file

from ladle.engine.checkpoint import Checkpoint, TrainState, load_checkpoint, save_checkpoint
from ladle.files import append_line, is_partial, remove_partials, write_atomically


@contextmanager
def room_for(size):
    """As on a full disk no file can grow beyond ``size`` bytes: the system answers EFBIG instead of ENOSPC."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def checkpoint(value, size=20_000):
    return Checkpoint(TrainState(step=value), 1, {"weight": torch.full((size,), float(value))}, {}, None, [])


def plot(path):
    figure = Figure((3, 2))
    figure.add_subplot().plot([1, 2])
    figure.savefig(path)


WRITERS = {
    "a.yaml": lambda path: write_atomically(path, lambda part: part.write_text("x" * 30_000)),
    "resume.pt": lambda path: save_checkpoint(checkpoint(1), path),
    "a.safetensors": lambda path: write_atomically(path, lambda part: part.write_bytes(save({"a": torch.ones(9_000)}))),
    "plot.png": lambda path: write_atomically(path, plot),
    "noise.png": lambda path: write_atomically(path, Image.effect_noise((200, 200), 99).save),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_is_an_error_with_the_files_name_and_leaves_all_as_it_was(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(b"old")
    for size in (0, 1, 700, 5_000):
        with room_for(size), pytest.raises(OSError, match="File too large") as error:
            WRITERS[name](path)
        assert error.value.filename == str(path)
        assert [(one.name, one.read_bytes()) for one in tmp_path.iterdir()] == [(name, b"old")]
    WRITERS[name](path)
    assert path.stat().st_size > 5_000


@pytest.mark.parametrize("name", [name for name in WRITERS if name != "plot.png"])
def test_a_process_that_dies_in_the_middle_of_a_file_leaves_the_old_one(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(b"old")
    for size in (1, 700, 5_000):
        process = os.fork()
        if process == 0:
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # now the system kills instead
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            with room_for(size):
                WRITERS[name](path)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == -signal.SIGXFSZ
        assert path.read_bytes() == b"old"
    assert len([one for one in tmp_path.iterdir() if is_partial(one)]) == 3
    remove_partials(tmp_path)
    assert [one.name for one in tmp_path.iterdir()] == [name]


def test_a_library_that_tells_of_a_full_disk_in_words_is_understood(tmp_path):
    with room_for(700), pytest.raises(OSError, match="File too large") as error:
        write_atomically(tmp_path / "a.safetensors", lambda part: save_file({"a": torch.ones(9_000)}, part))
    assert error.value.filename == str(tmp_path / "a.safetensors")


def test_whatever_a_writer_raises_the_old_file_stays(tmp_path):
    path = tmp_path / "results.csv"
    path.write_text("old")
    for error in (ValueError("no number"), KeyboardInterrupt(), OSError("without a number")):

        def fail(temporary, error=error):
            temporary.write_text("half")
            raise error

        with pytest.raises(type(error)) as raised:
            write_atomically(path, fail)
        assert raised.value is error
        assert [(one.name, one.read_text()) for one in tmp_path.iterdir()] == [("results.csv", "old")]


def test_the_temporary_has_the_suffix_and_a_short_name(tmp_path):
    path, seen = tmp_path / ("x" * 250 + ".csv"), []
    write_atomically(path, lambda part: seen.append(part) or part.write_text("new"))
    assert path.read_text() == "new"
    assert seen[0].suffix == ".csv"
    assert len(seen[0].name) < 50


def test_what_holds_the_same_already_is_left_alone(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("same")
    before = path.stat()
    write_atomically(path, lambda part: part.write_text("same"), only_changes=True)
    assert os.path.samestat(path.stat(), before)
    write_atomically(path, lambda part: part.write_text("other"), only_changes=True)
    assert [(one.name, one.read_text()) for one in tmp_path.iterdir()] == [("config.yaml", "other")]


def test_a_line_is_appended_whole_or_not_at_all(tmp_path):
    path = tmp_path / "metrics.jsonl"
    append_line(path, "first", sync=True)
    for size in (6, 7, 11):
        with room_for(size), pytest.raises(OSError, match="File too large") as error:
            append_line(path, "second line")
        assert error.value.filename == str(path)
        assert path.read_text() == "first\n"
    append_line(path, "second line")
    assert path.read_text() == "first\nsecond line\n"


def test_killed_at_any_byte_a_resume_file_is_the_old_or_the_new_one(tmp_path):
    path = tmp_path / "resume.pt"
    save_checkpoint(checkpoint(1), path)
    whole = path.stat().st_size
    for number, size in enumerate([*range(1, whole, whole // 4), whole + 1], start=2):
        process = os.fork()
        if process == 0:
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
            with room_for(size):
                save_checkpoint(checkpoint(number), path)
            os._exit(0)
        died = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) != 0
        left = load_checkpoint(path)
        assert left.state.step == (1 if died else number)
        assert (left.objective["weight"] == left.state.step).all()
        assert died == (size <= whole)
