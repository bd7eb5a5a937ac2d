"""Two detectors learn together, on one process and on two."""

import csv
from dataclasses import replace

import pytest
import torch
import yaml
from safetensors.torch import load_file

from ladle.cli.main import main
from ladle.detectors import load_detector
from ladle.recipes import colearn, val
from tests.recipes.test_train import stop_after
from tests.recipes.tiny import RUN, same_weights

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


def test_the_results_tell_of_both_and_of_who_judged(run):
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


def test_who_is_surer_and_what_they_imitate_can_be_chosen(run, data, tmp_path, capsys):
    def weights(name, **flags):
        shown = replace(RUN, epochs=2, name=name, project=str(tmp_path), quiet=False)
        return colearn(data, *PAIR, shown, **flags).first.weights

    assert not same_weights(weights("fisher", surer="fisher"), run.first.weights)
    capsys.readouterr()
    assert not same_weights(weights("soft", method="soft+pkd", weight="soft=0.1"), run.first.weights)
    printed = capsys.readouterr().out
    assert "assigner  PAA, judged by whoever is surer (spread)" in printed
    assert "teaches   first/soft_class: 6 class scores at every prior (weight 0.1)" in printed
    assert "first/pkd: correlation of channels, maps of stride 8, 16, 32, 1 x 1 convolutions from 48 to 64" in printed
    assert "teaches   second/soft_class" in printed


def test_two_processes_train_as_one_with_the_whole_batch(data, tmp_path):
    """Group normalisation, whose statistics are each picture's own; two ranks of two see what one of four sees."""

    def train(name, devices):
        run = replace(RUN, batch=4 // devices, devices=devices, norm="group", name=name, project=str(tmp_path), lr=1e-3)
        return colearn(data, *PAIR, run)

    alone, together = train("alone", 1), train("together", 2)
    for one, other in zip(alone, together):
        expected, found = load_file(one.weights), load_file(other.weights)
        assert all(torch.allclose(found[name], expected[name], atol=2e-4) for name in expected)
