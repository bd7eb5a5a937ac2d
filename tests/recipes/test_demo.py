"""The demo's teacher matches its student, and the demo writes drawings."""

import re
import sys

import pytest

from ladle.data.scenes import CLASSES, split_scenes
from ladle.data.sources import Splits
from ladle.detectors import load_detector
from ladle.errors import UserError
from ladle.families import network_info
from ladle.networks import prior_mismatches
from ladle.recipes import demo, sources
from ladle.recipes.demo import STUDENT, teacher_file
from ladle.recipes.jobs import Job
from ladle.recipes.options import Run
from ladle.recipes.outputs import free_folder
from ladle.recipes.parts import parts_of
from ladle.recipes.preflight import load_teacher
from ladle.recipes.scoring import Evaluator
from ladle.recipes.setup import resolve
from ladle.teachers import FrozenDetector

demos = sys.modules["ladle.recipes.demo"]  # its name in the package is that of the function


@pytest.mark.parametrize("method", ["lad", "solad"])
def test_the_packaged_teacher_matches_the_student_and_is_small(method):
    job = Job("distill", "scenes", STUDENT, method=method, teacher=str(teacher_file()))
    setup = resolve(job, parts_of(job), CLASSES, tuple(range(len(CLASSES))))
    plan = setup.plans["student"]
    assert (plan.aligned, plan.moved) == (True, False)
    teacher = load_teacher(str(teacher_file()), setup.specs["student"], plan)
    assert isinstance(teacher, FrozenDetector)
    assert teacher.detector.spec.classes == CLASSES
    assert prior_mismatches(network_info(setup.specs["student"]), teacher.info) == []
    assert teacher_file().stat().st_size < 10e6


@pytest.mark.slow
def test_the_packaged_teacher_finds_what_is_there():
    _, scenes = split_scenes(0, 24)
    assert Evaluator(scenes, 160, 8)(load_detector(teacher_file())).evaluation.ap > 0.2


@pytest.fixture
def in_this_process(monkeypatch):
    threads = []
    monkeypatch.setattr(demos.torch, "set_num_threads", threads.append)
    monkeypatch.setattr(demos, "run_tasks", lambda tasks, at_once: ((n, task()) for n, task in enumerate(tasks)))
    return threads


@pytest.fixture
def few_scenes(monkeypatch):
    monkeypatch.setattr(sources, "_TRAIN_SCENES", 16)
    monkeypatch.setattr(sources, "_VAL_SCENES", 16)


@pytest.mark.slow
@pytest.mark.usefixtures("few_scenes", "in_this_process")
def test_the_demo_compares_three_students_and_draws_them(tmp_path, capsys):
    out = tmp_path / "demo"
    trained = demo(out=str(out), epochs=1)
    assert list(trained) == ["plain", "LAD", "SoLAD"]
    assert [one.folder.relative_to(out).as_posix() for one in trained.values()] == [
        "train/plain",
        "distill/lad",
        "distill/solad",
    ]
    kinds = [f"{kind}-{n}.png" for kind in ("assignment", "predictions") for n in (3, 8, 21, 26)]
    assert sorted(path.name for path in out.glob("*.png")) == sorted([*kinds, "who-learns-what.png"])
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == f"who learns what: {out / 'who-learns-what.png'}", "the first line is an image"
    assert re.search(r"(\d+) positives if the untrained student judges, (\d+) if the teacher does; \d+ %", lines[1])
    assert all(str(out / name) in lines for name in kinds)
    table = next(n for n, line in enumerate(lines) if line.split()[:2] == ["method", "AP"])
    assert [line.split()[0] for line in lines[table + 2 : table + 5]] == ["plain", "LAD", "SoLAD"]
    assert f"the run of LAD: {out / 'distill/lad/report.html'}" in lines


@pytest.mark.slow
def test_a_quick_demo_trains_two_students_on_few_scenes(tmp_path, monkeypatch, in_this_process):
    asked = []

    def trained(data, *rest):
        asked.append((len(data.train), len(data.val), *rest))
        raise UserError("not here")

    monkeypatch.setattr(demos, "train", trained)
    monkeypatch.setattr(demos, "cores", lambda: 5)
    with pytest.raises(UserError, match="not here"):
        demo(out=str(tmp_path / "demo"), quick=True)
    [(train, val, student, run)] = asked
    assert (train, val, student, run.epochs, run.eval_every, run.name) == (96, 48, STUDENT, 2, 2, "plain")
    assert (tmp_path / "demo" / "who-learns-what.png").is_file()
    assert in_this_process == [2], "two at a time share five cores"


@pytest.mark.slow
def test_students_are_trained_at_the_same_time_and_told_in_their_order(tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(demos, "say", told.append)
    monkeypatch.setattr(demos, "cores", lambda: 2)
    data = Splits(*split_scenes(8, 4))
    budget = Run(epochs=1, batch=4, imgsz=32, device="cpu", quiet=True, eval_every=1)
    trained = demos._train(tmp_path, data, ("plain", "solad"), budget)
    assert list(trained) == ["plain", "SoLAD"]
    assert all(one.weights.is_file() and one.seconds > 0 for one in trained.values())
    assert told[0] == "training paa-tiny with 2 methods on the built-in scenes, 1 epochs each, 2 at a time"
    assert sorted(line.split()[0] for line in told[1:]) == ["SoLAD", "plain"]


def test_a_demo_never_writes_into_an_earlier_one(tmp_path):
    for name in ("demo", "demo-2", "demo-3"):
        assert free_folder(tmp_path / "a" / "demo") == tmp_path / "a" / name


@pytest.mark.parametrize("out", ["", ".", "/", "a/..", "~/demo"])
def test_a_demo_needs_a_folder_to_make(out):
    with pytest.raises(UserError, match="^--out .*expected the path of a (new )?folder"):
        demo(out)
