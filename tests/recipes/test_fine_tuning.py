"""A run that starts from a trained detector, given in place of the name of a student."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from safetensors.torch import load_file

from ladle import engine
from ladle.cli.main import main
from ladle.data.scenes import CLASSES
from ladle.detectors import load_detector, save_detector
from ladle.errors import UserError
from ladle.families import detector_spec
from ladle.recipes import colearn, distill, train
from ladle.recipes.jobs import Job
from ladle.recipes.parts import parts_of
from ladle.recipes.setup import build_objective, resolve
from ladle.recipes.summary import _about_classes
from tests.recipes.tiny import FLAGS, RUN, same_tensors, same_weights

NEW = ("rabbit", *CLASSES[1:])


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """A detector that knows all classes of the data but one, and one more; its images have another mean."""
    torch.manual_seed(3)
    spec = replace(detector_spec("atss-tiny", NEW, imgsz=64), mean=(0.1, 0.2, 0.3), std=(0.5, 0.5, 0.5))
    file = tmp_path_factory.mktemp("start") / "start.safetensors"
    save_detector(spec.build(), file)
    return str(file)


def begun_with(monkeypatch):
    """The weights of the students of every run, before the first step."""
    begun, fit = [], engine.fit

    def watched(fabric, objective, *rest):
        begun.append(
            {key: value.clone() for one in objective.students.values() for key, value in one.state_dict().items()}
        )
        return fit(fabric, objective, *rest)

    monkeypatch.setattr(engine, "fit", watched)
    return begun


def check_begin(state, start):
    """The weights of the file, but for those of the class that it does not know."""
    given = load_file(start)
    rows = [key for key in state if "class_conv" in key]
    assert len(rows) == 2
    assert all(torch.equal(state[key], given[key]) for key in given if key not in rows)
    for key in rows:
        assert torch.equal(state[key][1:], given[key][1:])
    assert not torch.equal(state[rows[0]][:1], given[rows[0]][:1])


@pytest.fixture(scope="module")
def tuned(data, start, tmp_path_factory):
    """A run from that detector, and what it began with."""
    patch = pytest.MonkeyPatch()
    begun = begun_with(patch)
    done = train(data, start, replace(RUN, project=str(tmp_path_factory.mktemp("runs"))))
    patch.undo()
    return done, begun[0]


def test_a_student_begins_with_the_weights_and_the_architecture_of_the_file(data, start):
    job = Job("train", data, start, run=RUN)
    parts = parts_of(job)
    setup = resolve(job, parts, CLASSES, tuple(range(len(CLASSES))))
    students = {name: spec.build() for name, spec in setup.specs.items()}
    build_objective(job, setup, students, parts=parts)
    check_begin(students["student"].state_dict(), start)
    assert (setup.specs["student"].name, setup.specs["student"].mean) == ("atss-tiny", (0.1, 0.2, 0.3))


@pytest.mark.slow
def test_a_run_begins_with_the_weights_and_the_architecture_of_the_file(tuned, start):
    done, begun = tuned
    check_begin(begun, start)
    spec = load_detector(done.weights).spec
    assert (spec.name, spec.classes, spec.mean) == ("atss-tiny", CLASSES, (0.1, 0.2, 0.3))
    assert done.folder.name == "atss-tiny"


@pytest.mark.slow
def test_the_folder_keeps_the_file_and_says_where_it_was(tuned, start):
    folder = tuned[0].folder
    assert (folder / "initial.safetensors").read_bytes() == Path(start).read_bytes()
    assert yaml.safe_load((folder / "config.yaml").read_text())["model"] == start


@pytest.mark.slow
def test_a_run_goes_on_without_the_file(data, start, teacher, tmp_path):
    """It is needed neither after an epoch nor before the end of the first."""
    moved = tmp_path / "moved.safetensors"
    moved.write_bytes(Path(start).read_bytes())
    run = replace(RUN, project=str(tmp_path), epochs=2)

    folder = tmp_path / "train" / "atss-tiny"

    def stop(*_):
        (folder / "weights").mkdir()
        raise KeyboardInterrupt

    folder.mkdir(parents=True)
    # As another run leaves it that was killed before it began.
    (folder / "initial.safetensors").write_bytes(Path(teacher).read_bytes())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "one_process", lambda *_: None)
        patch.setattr(engine, "launch", stop)
        with pytest.raises(KeyboardInterrupt):
            train(data, str(moved), run)
    assert (folder / "config.yaml").is_file()
    moved.unlink()
    resumed = train(resume=str(folder))
    whole = train(data, start, replace(run, name="whole"))
    assert same_weights(resumed.weights.with_name("last.safetensors"), whole.weights.with_name("last.safetensors"))
    longer = train(resume=str(resumed.folder), run=replace(RUN, epochs=3))
    assert json.loads((longer.folder / "metrics.jsonl").read_text().splitlines()[-1])["epoch"] == 3


def test_the_lines_before_a_run_tell_which_classes_are_new_and_which_are_left_out(data, start):
    ready = SimpleNamespace(job=Job("train", data, start), resumed=False, images=SimpleNamespace(classes=CLASSES))
    assert _about_classes(ready) == [
        f"classes it does not know, whose scores start at random: {CLASSES[0]}",
        "classes it knows that the data do not have, which are left out: rabbit",
    ]
    ready.resumed = True
    assert _about_classes(ready) == []


@pytest.mark.slow
def test_students_of_a_teacher_and_of_each_other_start_from_a_file_too(data, teacher, start, tmp_path, monkeypatch):
    begun = begun_with(monkeypatch)
    run = replace(RUN, project=str(tmp_path))
    done = distill(data, start, teacher, "soft", run, allow_weak_teacher=True)
    check_begin(begun[0], start)
    assert done.folder.name == "atss-tiny-soft"
    both = colearn(data, teacher, "paa-tiny", run)
    given = load_file(teacher)
    first, second = (load_file(one.weights) for one in both)
    assert first.keys() == second.keys() == given.keys()
    assert not same_tensors(first, given)
    assert (both.first.folder / "initial.safetensors").read_bytes() == Path(teacher).read_bytes()


@pytest.mark.slow
def test_assistants_are_named_and_the_last_student_starts_from_the_file(data, teacher, tmp_path, monkeypatch):
    begun = begun_with(monkeypatch)
    run = replace(RUN, project=str(tmp_path))
    distill(data, teacher, teacher, "soft", run, allow_weak_teacher=True, assistants="mini")
    assert len(begun) == 2
    assert same_tensors(begun[1], load_file(teacher))


def test_what_cannot_be_is_refused_before_there_is_a_run(data, start, teacher, tmp_path, capsys):
    folder = tmp_path / "run"
    (folder / "weights").mkdir(parents=True)
    (folder / "weights" / "best.safetensors").write_bytes(Path(start).read_bytes())
    (folder / "x.safetensors").mkdir()
    common = f"--data {data} {FLAGS} --project {tmp_path / 'none'}"
    for words, part in {
        f"train --model {start} --norm group": f"{start} sets the initial weights and the normalization of layers",
        f"train --model {start} --pretrained": "leave out pretrained",
        f"train --model {tmp_path}/no.safetensors": f"{tmp_path}/no.safetensors: there is no such file",
        f"train --model {folder}/x.safetensors": "x.safetensors: this is a folder; expected a detector saved by ladle",
        f"colearn --first {teacher} --second paa-tiny --first-weights {teacher}": "--first " + teacher,
        f"distill --student {start} --teacher {folder} --method lad": (
            f"--teacher {folder}: this is the folder of a run, whose weights are {folder / 'weights/best.safetensors'}"
        ),
    }.items():
        assert main([*words.split(), *common.split()]) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        assert part in said
    assert not (tmp_path / "none").exists()


def test_python_says_what_a_spec_may_not_be_given_with(data, start, tmp_path):
    with pytest.raises(UserError, match="atss-tiny is given as a spec, which sets the initial weights"):
        train(data, load_detector(start).spec, replace(RUN, norm="group", project=str(tmp_path)))
