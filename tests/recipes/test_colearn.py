"""Two detectors are trained together, in one process and in two."""

import csv
import hashlib
import json
from dataclasses import replace
from pathlib import Path

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
from ladle.recipes import colearn, val
from ladle.recipes.jobs import Job
from tests.recipes.test_train import stop_after
from tests.recipes.tiny import RUN, make_teacher, same_tensors, same_weights
from tests.visual.test_html import read

pytestmark = pytest.mark.slow  # each of them trains two students

PAIR = ("paa-tiny", "paa+cop-mini")


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pairs")
    return colearn(data, *PAIR, replace(RUN, epochs=2, name="one", project=str(folder)))


def test_both_are_saved_scored_and_drawn(run, data):
    folder = run.first.folder
    for name, one, model in zip(("first", "second"), run, PAIR):
        assert one.weights == folder / "weights" / f"{name}-best.safetensors"
        assert load_detector(one.weights).spec.name == model
        assert (folder / "plots" / name / "confusion.png").is_file()
        assert val(data, str(one.weights), batch=4, out=str(folder / "val"), device="cpu").ap == one.evaluation.ap


def test_the_report_is_about_both(run):
    texts = read(run.first.folder / "report.html").texts
    assert [one for one in texts if one.startswith("Details")] == ["Details of one, first", "Details of one, second"]
    for one, model in zip(run, PAIR):
        assert any(text.startswith(f"{model} reaches {100 * one.evaluation.ap:.1f} AP") for text in texts)


def test_the_results_contain_both_students_and_the_share_of_the_judges(run):
    rows = list(csv.DictReader((run.first.folder / "results.csv").read_text().splitlines()))
    assert len(rows) == 2
    assert {"first/ap", "second/ap", "loss/first/class", "loss/second/box", "second_judges/level_1"} <= set(rows[0])
    assert all(0 <= float(row["second_judges/level_1"]) <= 1 for row in rows)


def test_the_command_line_trains_the_same_weights_and_keeps_its_flags(run, data, tmp_path):
    flags = ["--epochs", "2", "--batch", "4", "--imgsz", "64", "--device", "cpu", "--quiet", "--name", "one"]
    line = ["colearn", "--data", data, "--first", PAIR[0], "--second", PAIR[1], f"--project={tmp_path}", *flags]
    assert main(line) == 0
    folder = tmp_path / "colearn" / "one"
    for name, one in zip(("first", "second"), run):
        assert same_weights(folder / "weights" / f"{name}-best.safetensors", one.weights)
    kept = yaml.safe_load((folder / "config.yaml").read_text())
    assert (kept["first"], kept["second"], kept["surer"]) == (*PAIR, "spread")
    assert "teacher" not in kept


def test_a_stopped_run_goes_on_bit_for_bit(run, data, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        stop_after(patch, 1)
        with pytest.raises(KeyboardInterrupt):
            colearn(data, *PAIR, replace(RUN, epochs=2, name="cut", project=str(tmp_path)))
    again = colearn(resume=str(tmp_path / "colearn" / "cut"))
    for one, other in zip(again, run):
        assert same_weights(one.folder / "weights" / one.weights.name, other.weights)


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    """A detector for the initial weights, trained for an epoch."""
    return make_teacher(data, tmp_path_factory.mktemp("trained"), PAIR[0])


def test_the_first_can_start_as_a_whole_trained_detector(data, trained, tmp_path, monkeypatch):
    begun, fit = [], engine.fit

    def watched(fabric, objective, *rest):
        first, second = objective.students.values()
        begun.extend({name: value.clone() for name, value in one.state_dict().items()} for one in (first, second))
        return fit(fabric, objective, *rest)

    monkeypatch.setattr(engine, "fit", watched)
    left = colearn(data, *PAIR, replace(RUN, project=str(tmp_path)), first_weights=trained)
    torch.manual_seed(RUN.seed)
    _, untrained = (detector_spec(name, CLASSES, imgsz=64).build() for name in PAIR)
    assert same_tensors(begun[0], load_detector(trained).state_dict())
    assert same_tensors(begun[1], untrained.state_dict())
    recorded = json.loads((left.first.folder / "first_weights.json").read_text())
    assert recorded == {"file": trained, "sha256": hashlib.sha256(Path(trained).read_bytes()).hexdigest()}


def test_first_weights_that_are_another_detector_are_refused_in_a_sentence(data, trained, tmp_path):
    def refused(first=PAIR[0], file=trained, **changes):
        run = replace(RUN, project=str(tmp_path / "none"), **changes)
        with pytest.raises(UserError) as error:
            colearn(data, first, PAIR[1], run, first_weights=str(file))
        assert not (tmp_path / "none").exists()
        return str(error.value)

    assert "expected a paa-mini, found a paa-tiny with another backbone and head" in refused("paa-mini")
    assert "found a paa-tiny with another backbone;" in refused(norm="group")
    assert "found a paa-tiny with another neck;" in refused(neck_norm="batch")
    assert "--first-weights" in refused(file=tmp_path / "nothing.safetensors")
    for classes, message in ((CLASSES[1:], "does not know 'disc'"), ((*CLASSES, "cup"), "also knows 'cup'")):
        save_detector(detector_spec(PAIR[0], classes).build(), tmp_path / "other.safetensors")
        assert message in refused(file=tmp_path / "other.safetensors")


def test_another_file_under_the_same_name_is_refused_only_while_it_is_needed(data, tmp_path):
    file, folder = tmp_path / "first.safetensors", tmp_path / "run"
    file.write_bytes(b"one")
    found = hashlib.sha256(b"one").hexdigest()
    job = Job("colearn", data, PAIR[0], str(folder), RUN, second=PAIR[1], first_weights=str(file))
    replace(job, first_weights_sha256=found).write()
    assert Job.read(str(folder), "colearn").first_weights_sha256 == found
    file.write_bytes(b"another")
    with pytest.raises(UserError, match=r"first weights .* is not the file this run began with"):
        Job.read(str(folder), "colearn").check_origins()
    file.unlink()
    (folder / "resume.pt").touch()
    assert Job.read(str(folder), "colearn").starts_from is None
    Job.read(str(folder), "colearn").check_origins()


def test_selection_and_distillation_of_two_students_can_be_chosen(run, data, tmp_path, capsys):
    def weights(name, **flags):
        shown = replace(RUN, epochs=2, name=name, project=str(tmp_path), quiet=False)
        return colearn(data, *PAIR, shown, **flags).first.weights

    assert not same_weights(weights("fisher", surer="fisher"), run.first.weights)
    capsys.readouterr()
    assert not same_weights(weights("soft", method="soft+pkd", weight="soft=0.1"), run.first.weights)
    printed = capsys.readouterr().out
    assert "assigner  PAA, judged by the more certain of the two (spread)" in printed
    assert "teaches   first/soft_class: 6 class scores at every prior (weight 0.1)" in printed
    assert "first/pkd: correlation of channels, maps of stride 8, 16, 32, 1 x 1 convolutions from 48 to 64" in printed
    assert "teaches   second/soft_class" in printed


def test_two_processes_train_as_one_with_the_whole_batch(data, tmp_path):
    """Group normalization has statistics per image, so two ranks with two images equal one with four."""

    def train(name, devices):
        run = replace(RUN, batch=4 // devices, devices=devices, norm="group", name=name, project=str(tmp_path), lr=1e-3)
        return colearn(data, *PAIR, run)

    alone, together = train("alone", 1), train("together", 2)
    for one, other in zip(alone, together):
        expected, found = load_file(one.weights), load_file(other.weights)
        assert all(torch.allclose(found[name], expected[name], atol=2e-4) for name in expected)
