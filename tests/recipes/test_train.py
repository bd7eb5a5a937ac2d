"""A run writes all its files, is reproducible, and can be resumed."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file

from ladle.cli.main import main
from ladle.detectors import load_detector
from ladle.engine import loop
from ladle.errors import UserError
from ladle.recipes import Run, train, val
from ladle.recipes.jobs import Job
from ladle.recipes.scoring import Evaluator
from tests.recipes.tiny import FLAGS, RUN, same_weights


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return train(data, "paa-tiny", replace(RUN, epochs=2, name="one", project=str(folder)))


def test_a_run_leaves_its_files(run):
    files = {str(path.relative_to(run.folder)) for path in run.folder.rglob("*") if path.is_file()}
    assert {
        "config.yaml",
        "data.json",
        "metrics.jsonl",
        "report.html",
        "card.md",
        "report.json",
        "results.csv",
        "resume.pt",
        "plots/history.png",
        "plots/precision_recall.png",
        "plots/confusion.png",
        *(f"plots/assigned-{number}.jpg" for number in (1, 2, 3, 4)),
        "weights/best.safetensors",
        "weights/last.safetensors",
    } == files
    assert run.folder.parts[-2:] == ("train", "one")
    assert run.weights == run.folder / "weights" / "best.safetensors"
    assert run.seconds > 0


def test_results_hold_one_row_an_epoch(run):
    rows = list(csv.DictReader((run.folder / "results.csv").read_text().splitlines()))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert max(float(row["ap"]) for row in rows) == pytest.approx(run.evaluation.ap, rel=1e-3)
    assert all(json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines())


def test_the_config_is_the_job(run, data):
    job = Job.read(str(run.folder), "train")
    assert (job.data, job.student, job.method, job.teacher) == (data, "paa-tiny", "plain", None)
    assert job.run == replace(RUN, epochs=2, name="one", project=str(run.folder.parents[1]))


def test_the_saved_detector_is_the_one_that_was_scored(run, data, tmp_path):
    again = val(data, str(run.weights), batch=4, out=str(tmp_path), device="cpu")
    assert again.ap == run.evaluation.ap
    spec = load_detector(run.weights).spec
    assert (spec.name, spec.imgsz) == ("paa-tiny", 64)


@pytest.mark.parametrize(
    ("aps", "evaluated"), [((0.1, 0.2), 2), ((0.2, 0.1), 3)], ids=["last-is-best", "first-is-best"]
)
def test_best_weights_are_evaluated_once_if_they_are_the_last(data, tmp_path, monkeypatch, aps, evaluated):
    seen, evaluate = [], Evaluator.__call__

    def scripted(self, detector):
        score = evaluate(self, detector)
        ap = (*aps, max(aps))[len(seen)]
        seen.append(ap)
        return score._replace(evaluation=replace(score.evaluation, ap=ap))

    monkeypatch.setattr(Evaluator, "__call__", scripted)
    done = train(data, "paa-tiny", replace(RUN, epochs=2, project=str(tmp_path)))
    assert (len(seen), done.evaluation.ap) == (evaluated, max(aps))


@pytest.mark.slow
def test_the_same_seed_gives_the_same_weights(run, data, tmp_path):
    again = train(data, "paa-tiny", replace(RUN, epochs=2, project=str(tmp_path)))
    assert same_weights(again.weights, run.weights)


@pytest.mark.slow
def test_another_seed_gives_other_weights(run, data, tmp_path):
    other = train(data, "paa-tiny", replace(RUN, epochs=2, seed=1, project=str(tmp_path)))
    assert not same_weights(other.weights, run.weights)


@pytest.mark.slow
def test_the_command_line_trains_the_same_weights(run, data, tmp_path):
    assert (
        main(["train", "--data", data, "--model", "paa-tiny", *FLAGS.split(), f"project={tmp_path}", "epochs=2"]) == 0
    )
    assert same_weights(tmp_path / "train" / "paa-tiny" / "weights" / "best.safetensors", run.weights)


@pytest.mark.slow
def test_runs_without_a_name_are_numbered(data, tmp_path):
    runs = [train(data, "paa-tiny", replace(RUN, project=str(tmp_path))) for _ in range(2)]
    assert [run.folder.name for run in runs] == ["paa-tiny", "paa-tiny-2"]


def stop_after(monkeypatch, epoch):
    """As if the user pressed Ctrl-C right after an epoch was saved."""
    keep = loop.save

    def save(run, state, best, save_student):
        keep(run, state, best, save_student)
        if state.epoch == epoch:
            raise KeyboardInterrupt

    monkeypatch.setattr(loop, "save", save)


@pytest.mark.slow
def test_a_stopped_run_goes_on_bit_for_bit(run, data, tmp_path, monkeypatch):
    flags = ["--data", data, "--model", "paa-tiny", *FLAGS.split(), "--epochs=2", "--name=cut", f"--project={tmp_path}"]
    with monkeypatch.context() as patch:
        stop_after(patch, 1)
        assert main(["train", *flags]) == 130
    cut = tmp_path / "train" / "cut"
    assert not same_weights(cut / "weights" / "last.safetensors", run.folder / "weights" / "last.safetensors")
    assert main(["train", "--resume", str(cut)]) == 0
    for name in ("last", "best"):
        assert same_weights(cut / "weights" / f"{name}.safetensors", run.folder / "weights" / f"{name}.safetensors")
    assert len((cut / "results.csv").read_text().splitlines()) == 3


@pytest.mark.slow
def test_a_finished_run_that_is_resumed_stays_as_it_is(run):
    before = {path: path.read_bytes() for path in run.folder.rglob("*.safetensors")}
    again = train(resume=str(run.folder))
    assert again.evaluation.ap == run.evaluation.ap
    assert {path: path.read_bytes() for path in before} == before


def test_a_name_that_is_taken_is_refused_with_both_ways_out(run, data):
    with pytest.raises(UserError, match=r"--resume .*--name"):
        train(data, "paa-tiny", replace(RUN, name="one", project=str(run.folder.parents[1])))


def test_a_run_is_resumed_by_its_own_verb(run, tmp_path):
    with pytest.raises(UserError, match="ladle train"):
        Job.read(str(run.folder), "distill")
    with pytest.raises(UserError, match="expected a run folder"):
        train(resume=str(tmp_path))


@pytest.mark.parametrize("text", ["", "[1, 2]", "verb: train", "{", "run: 3", "\x07"])
def test_a_config_that_is_none_is_refused_by_name(tmp_path, text):
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(UserError, match=r"config\.yaml"):
        Job.read(str(tmp_path), "train")


def test_a_config_of_another_version_is_refused(run, tmp_path):
    values = yaml.safe_load((run.folder / "config.yaml").read_text())
    values["gears"] = 5
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(UserError, match="gears"):
        Job.read(str(tmp_path), "train")


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"imgsz": 10}, "--imgsz"),
        ({"imgsz": -64}, "--imgsz"),
        ({"batch": 0}, "--batch"),
        ({"epochs": 0}, "--epochs"),
        ({"workers": -1}, "--workers"),
        ({"flip": 3.0}, "flip"),
        ({"pretrained": True}, "--pretrained"),
        ({"backbone_weights": "nowhere.pth"}, "nowhere.pth"),
        ({"ema": 2.0}, "--ema"),
        ({"devices": 0}, "--device"),
        ({"lr": 0.0}, "--lr"),
        ({"lr": -1.0}, "--lr"),
        ({"weight_decay": -0.1}, "--weight-decay"),
        ({"warmup": -1}, "--warmup"),
        ({"multiscale": 2.0}, "--multiscale"),
        ({"multiscale": 0.3}, "--multiscale 0.3: .* there are not two: expected 0.50 or more"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_settings_that_make_no_sense_are_refused(data, tmp_path, changed, named):
    with pytest.raises(UserError, match=named):
        train(data, "paa-tiny", replace(RUN, project=str(tmp_path), **changed))
    assert list(tmp_path.iterdir()) == [], "a refused run leaves no file that blocks the corrected one"


@pytest.mark.slow
def test_a_run_stopped_in_its_first_epoch_begins_again(data, tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("ladle.objectives.TrainingStep.forward", stop)
        with pytest.raises(KeyboardInterrupt):
            train(data, "paa-tiny", replace(RUN, project=str(tmp_path), name="stopped"))
    folder = tmp_path / "train" / "stopped"
    assert (folder / "config.yaml").exists()
    assert not (folder / "resume.pt").exists()
    assert train(resume=str(folder)).weights.exists()


def test_nothing_to_train_on_is_refused(tmp_path):
    with pytest.raises(UserError, match="--data"):
        train()
    with pytest.raises(UserError, match="nowhere"):
        train(str(tmp_path / "nowhere"), "paa-tiny", Run(project=str(tmp_path)))
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_detector_is_refused_with_a_hint(data, tmp_path):
    with pytest.raises(UserError, match="did you mean paa-tiny"):
        train(data, "paatiny", Run(project=str(tmp_path)))
    assert list(tmp_path.iterdir()) == []


def test_the_weights_on_disk_are_the_students_alone(run):
    tensors = load_file(run.weights)
    assert set(tensors) == set(load_detector(run.weights).state_dict())
    assert Path(run.weights).stat().st_size < 5e6


@pytest.mark.slow
@pytest.mark.parametrize("student", ["paa-tiny", "rtmdet-n", "yolox-n", "gfl+lite-tiny"])
def test_two_devices_lose_what_one_does_with_the_doubled_batch(data, tmp_path, student):
    group = replace(RUN, norm="group", neck_norm="group", epochs=2, project=str(tmp_path))
    train(data, student, replace(group, batch=2, devices=2, name="two"))
    train(data, student, replace(group, batch=4, devices=1, name="one"))
    two, one = (
        list(csv.DictReader((tmp_path / "train" / name / "results.csv").read_text().splitlines()))
        for name in ("two", "one")
    )
    assert len(one) == len(two) == 2
    for ours, theirs in zip(two, one):
        names = [name for name in theirs if name.startswith("loss")]
        assert names[:3] == ["loss", "loss/class", "loss/box"]
        for name in names:
            assert float(ours[name]) == pytest.approx(float(theirs[name]), rel=1e-4)
