"""A run folder is made by one process, locked while it runs, unlocked when it dies, removed if training never began."""

import errno
import fcntl
import os
import re
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from ladle import locks
from ladle.cli.main import main
from ladle.errors import UserError
from ladle.recipes import Run
from ladle.recipes.console import warn
from ladle.recipes.folders import CONFIG, held_folder, joined_folder, new_folder

MANY = 8


def begin(folder):
    """Write the files of a run that has begun training."""
    (folder / "weights").mkdir(parents=True)
    (folder / CONFIG).touch()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "is empty"),
        (" ", "is empty"),
        (".", "is no name"),
        ("..", "is no name"),
        ("a/b", "separator"),
        ("a\\b", "separator"),
        ("/a", "separator"),
        ("a/..", "separator"),
        ("a ", "space"),
        (" a", "space"),
        ("a.", "dot"),
        ("a\n", "cannot be printed"),
        ("a\0", "cannot be printed"),
        ("\x1b[31m", "cannot be printed"),
        ("\udcff", "cannot be printed"),
        ("\u202e", "cannot be printed"),
        ("NUL", "reserved"),
        ("com1.txt", "reserved"),
        ("x" * 201, "longer than 200 bytes"),
        ("猫" * 67, "longer than 200 bytes"),
    ],
)
def test_what_is_no_name_of_a_folder_is_refused(name, message):
    with pytest.raises(UserError, match=f"^--name .*{message}.*: expected the name of one folder") as error:
        Run(name=name)
    assert str(error.value).isprintable()


@pytest.mark.parametrize("name", ["first try", "lr=0.1", "猫" * 60, "-x", ".hidden", "console", "a.b", "x" * 200])
def test_any_other_name_is_taken(name, tmp_path):
    with new_folder(str(tmp_path), "train", Run(name=name).name, "label") as folder:
        assert Path(folder) == tmp_path / "train" / name


@pytest.mark.parametrize(
    "project", ["", " ", "a/ /b", "runs\n", "a\0b", "x" * 201, "runs/con", "a /b", "\udcff/a", "~/runs"]
)
def test_what_is_no_path_of_a_folder_is_refused(project):
    with pytest.raises(UserError, match="^--project .*: expected the path of a folder, such as runs$"):
        Run(project=project)


@pytest.mark.parametrize("project", [".", "..", "../runs", "a/b", "/a/./b/", "my runs", "C:\\runs"])
def test_any_other_project_is_taken(project):
    assert Run(project=project).project == project


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


stopped_by = pytest.raises
"""A block that ends with an error of this kind."""


def at_once(task):
    """What ``task`` returns, or the error it raises, in as many threads, all started at the same moment."""
    start, done = threading.Barrier(MANY), threading.Barrier(MANY)

    def take_part(_):
        start.wait()
        try:
            with task() as folder:
                done.wait()
                return folder
        except UserError as error:
            done.wait()
            return error

    with ThreadPoolExecutor(MANY) as pool:
        return list(pool.map(take_part, range(MANY)))


def test_of_runs_of_one_name_that_start_together_exactly_one_goes_on(tmp_path):
    for name in ("a", "b", "c"):
        got = at_once(lambda name=name: new_folder(str(tmp_path), "train", name, "label"))
        refused = [str(one) for one in got if isinstance(one, UserError)]
        assert len(refused) == MANY - 1
        assert all("already holds a run: go on with --resume" in one for one in refused)
    assert [path for path in tmp_path.rglob("*") if path != tmp_path / "train"] == []


def test_runs_without_a_name_that_start_together_have_folders_of_their_own(tmp_path):
    got = at_once(lambda: new_folder(str(tmp_path), "train", None, "paa-tiny"))
    names = ["paa-tiny", *(f"paa-tiny-{number}" for number in range(2, MANY + 1))]
    assert sorted(got) == sorted(str(tmp_path / "train" / name) for name in names)


def test_of_processes_that_resume_together_exactly_one_goes_on(tmp_path):
    begin(tmp_path)

    def resume():
        return held_folder(tmp_path)

    got = at_once(resume)
    refused = [str(one) for one in got if one is not None]
    assert len(refused) == MANY - 1
    holder = re.compile(rf"(process {os.getpid()} on \S+|another process), or one that it started, is still at work")
    assert all(holder.search(one) for one in refused)
    with held_folder(tmp_path):
        pass


def test_a_label_becomes_a_name(tmp_path):
    with new_folder(str(tmp_path), "train", None, "a/../b c*" + "x" * 300) as folder:
        assert folder == str(tmp_path / "train" / ("a-..-b-c-" + "x" * 191))


@pytest.mark.parametrize("error", [UserError, KeyboardInterrupt, SystemExit, RuntimeError])
def test_what_fails_before_training_leaves_nothing_not_even_the_project(tmp_path, error):
    with stopped_by(error), new_folder(str(tmp_path / "a" / "b"), "train", None, "x") as folder:
        (Path(folder) / CONFIG).touch()
        raise error
    assert list(tmp_path.iterdir()) == []


def test_what_fails_after_training_began_stays(tmp_path):
    with stopped_by(KeyboardInterrupt), new_folder(str(tmp_path), "train", "x", "x"):
        begin(tmp_path / "train" / "x")
        (tmp_path / "train" / "x" / ".0.partial.pt").touch()
        raise KeyboardInterrupt
    assert names_in(tmp_path / "train" / "x") == [CONFIG, "weights"]
    with pytest.raises(UserError, match="already holds a run"), new_folder(str(tmp_path), "train", "x", "x"):
        pass


def test_what_a_process_left_that_was_killed_before_it_began_is_taken_over(tmp_path):
    folder = tmp_path / "train" / "x"
    folder.mkdir(parents=True)
    for name in (".lock", "teacher.json", "data.json", ".1234.partial.yaml"):
        (folder / name).touch()
    with new_folder(str(tmp_path), "train", "x", "x") as taken:
        assert taken == str(folder)
        assert not (folder / ".1234.partial.yaml").exists()


def test_a_folder_of_other_things_is_left_alone(tmp_path):
    (tmp_path / "train" / "x").mkdir(parents=True)
    (tmp_path / "train" / "x" / "results.csv").write_text("mine")
    (tmp_path / "train" / "y").write_text("a file")
    (tmp_path / "train" / "z").symlink_to("nowhere")
    for name in "xyz":
        with pytest.raises(UserError, match="is there already and holds no run"):
            new_folder(str(tmp_path), "train", name, "").__enter__()
        with new_folder(str(tmp_path), "train", None, name) as folder:
            assert folder == str(tmp_path / "train" / f"{name}-2")
    assert names_in(tmp_path / "train" / "x") == ["results.csv"]


def child(task):
    """A forked process that does ``task`` and then waits to be killed; returns when the task is done."""
    reader, writer = os.pipe()
    process = os.fork()
    if process == 0:
        with suppress(BaseException):
            task()
            os.write(writer, b"x")
            signal.pause()
        os._exit(1)
    os.close(writer)
    assert os.read(reader, 1) == b"x"
    os.close(reader)
    return process


def kill(process):
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)


def test_the_lock_of_a_killed_process_is_free(tmp_path):
    begin(tmp_path)
    (tmp_path / "weights" / ".1.partial.safetensors").touch()
    holder = child(lambda: locks.lock(tmp_path, warn))
    with pytest.raises(UserError, match=f"process {holder} on .* is still at work"), held_folder(tmp_path):
        pass
    kill(holder)
    with held_folder(tmp_path):
        assert names_in(tmp_path / "weights") == [], "partial files of a killed process are removed"
    assert names_in(tmp_path) == [CONFIG, "weights"]


def test_a_process_that_loads_images_does_not_keep_the_lock_of_its_parent(tmp_path):
    begin(tmp_path)
    file = locks.lock(tmp_path, warn)
    loader = child(lambda: None)
    locks.unshare(file)  # as if this process were killed
    with held_folder(tmp_path):
        pass
    kill(loader)


def test_a_process_that_joins_keeps_the_lock_until_it_ends(tmp_path):
    begin(tmp_path)
    file = locks.lock(tmp_path, warn)
    rank = child(lambda: locks.share(tmp_path))
    locks.unshare(file)
    with pytest.raises(UserError, match="or one that it started, is still at work"), held_folder(tmp_path):
        pass
    kill(rank)
    with held_folder(tmp_path), joined_folder(tmp_path):
        pass


def test_a_process_whose_run_was_taken_up_by_another_does_not_join(tmp_path):
    begin(tmp_path)
    with (tmp_path / ".lock").open("wb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="another process has resumed this run"), joined_folder(tmp_path):
            pass


def test_a_file_system_without_locks_gives_a_warning(tmp_path, monkeypatch, capsys):
    def refuse(file, shared):
        raise OSError(errno.ENOTSUP, "Operation not supported")

    monkeypatch.setattr(locks, "_acquire", refuse)
    begin(tmp_path)
    with held_folder(tmp_path), joined_folder(tmp_path):
        assert "this file system has no locks" in capsys.readouterr().err
    assert names_in(tmp_path) == [CONFIG, "weights"]


@pytest.mark.parametrize("project", ["file", "file/runs"])
def test_a_project_that_cannot_be_made_is_named_with_its_flag(tmp_path, project):
    (tmp_path / "file").touch()
    message = "expected a folder that can be made and written to, found .*/train: something that is not a folder is in"
    with (
        pytest.raises(UserError, match=f"^--project {tmp_path / project}: {message}"),
        new_folder(str(tmp_path / project), "train", None, "x"),
    ):
        pass


@pytest.mark.parametrize("words", [["--resume", "{}"], ["--resume={}", "--quiet"], ["resume={}"]])
def test_a_run_that_is_running_is_refused_before_anything_is_loaded(tmp_path, words, capsys, monkeypatch):
    holder = child(lambda: locks.lock(tmp_path, warn))
    monkeypatch.setitem(sys.modules, "ladle.recipes", None)  # importing it fails from now on
    try:
        assert main(["train", *(word.format(tmp_path) for word in words)]) == 2
    finally:
        kill(holder)
    assert f"{tmp_path}: process {holder} on " in capsys.readouterr().err
