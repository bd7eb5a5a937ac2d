"""A run is resumed where it was stopped: from another folder, for more epochs, and never silently with other data."""

import csv
import json
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from ladle import engine
from ladle.cli.main import main
from ladle.data.scenes import write_coco
from ladle.engine import loop
from ladle.errors import UserError
from ladle.recipes import Run, colearn, distill, report, train
from ladle.recipes.jobs import Job
from ladle.recipes.report_runs import read_run
from tests.recipes.test_train import stop_after
from tests.recipes.tiny import RUN, make_data, same_weights

FILES = ("config.yaml", "data.json", "metrics.jsonl", "results.csv", "resume.pt", "weights/last.safetensors")
LAST = "weights/last.safetensors"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder with data and a finished run of two epochs, whose flags were relative to it; no test changes them."""
    place = tmp_path_factory.mktemp("place")
    make_data(place / "data")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        train("data", "paa-tiny", replace(RUN, epochs=2, name="one", project="runs"))
    return place


@pytest.fixture
def run(finished, tmp_path, monkeypatch):
    """A copy of that run in another folder; the data have not moved."""
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(finished / "runs" / "train" / "one", tmp_path / "one"))


@pytest.fixture
def refused(capsys):
    """Resume by the command line, which must fail with one sentence; returns the sentence."""

    def resume(run, *flags, verb="train"):
        capsys.readouterr()
        before = contents(run)
        code = main([verb, "--resume", str(run), *flags])
        printed = capsys.readouterr()
        assert code == 2, printed.out
        assert printed.err.count("\n") == 1, printed.err
        assert "Traceback" not in printed.err
        assert contents(run) == before, "a refusal changes nothing"
        return printed.err

    return resume


@pytest.fixture
def untrained(monkeypatch):
    """Run everything up to the training itself; returns the jobs that would be trained."""
    kept = []

    def launch(devices, device, work, ready):
        kept.append(ready.job)
        raise KeyboardInterrupt

    monkeypatch.setattr(engine, "one_process", lambda *_: None)
    monkeypatch.setattr(engine, "launch", launch)
    return kept


def contents(run):
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in run.rglob("*") if path.is_file()}


def rows(run):
    return list(csv.DictReader((run / "results.csv").read_text().splitlines()))


# ---------------------------------------------------------------------------------------------------- from elsewhere


@pytest.mark.slow
def test_a_run_is_resumed_from_another_folder(run, finished):
    kept = yaml.safe_load((run / "config.yaml").read_text())
    assert kept["data"] == str(finished / "data")
    before = contents(run)
    train(resume="one")
    changed = {path.name for path, what in contents(run).items() if what != before[path]}
    drawn = {"history.png", "precision_recall.png", "confusion.png"}
    assert changed <= drawn | {"report.html"}, "what is the same is not written again; the report names its folder"


@pytest.mark.slow
def test_data_that_moved_are_given_again_and_recognized(run, finished, tmp_path, refused, untrained):
    moved = shutil.copytree(finished / "data", tmp_path / "moved")
    config = run / "config.yaml"
    config.write_text(config.read_text().replace(str(finished / "data"), str(tmp_path / "gone")))
    assert "gone" in refused(run)
    assert main(["train", "--resume", "one", "--data", "moved"]) == 130
    assert untrained[0].data == str(moved)
    assert yaml.safe_load(config.read_text())["data"] == str(moved)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        ({"train": 9, "val": 4}, "the training images of .* there are 9 instead of 8"),
        ({"train": 8, "val": 5}, "the validation images of .* there are 5 instead of 4"),
        (
            {"train": 8, "val": 4, "seed": 7},
            "the training images of .* (objects instead of|names, sizes or boxes differ)",
        ),
    ],
)
def test_other_data_are_refused(run, tmp_path, refused, write, message):
    write_coco(tmp_path / "other", size=64, **write)
    with pytest.raises(UserError, match=f"^--resume {run}: {message}.*--data"):
        train("other", resume=str(run))


def test_other_classes_are_refused(run, finished, tmp_path, refused):
    shutil.copytree(finished / "data", tmp_path / "renamed")
    for file in (tmp_path / "renamed" / "annotations").iterdir():
        file.write_text(file.read_text().replace('"crescent"', '"moon"'))
    assert "the classes are" in refused(run, "--data", "renamed")


def test_an_object_that_moved_by_a_pixel_is_seen(run, finished, tmp_path, refused):
    shutil.copytree(finished / "data", tmp_path / "nudged")
    file = tmp_path / "nudged" / "annotations" / "instances_train.json"
    annotations = json.loads(file.read_text())
    annotations["annotations"][3]["bbox"][0] += 1
    file.write_text(json.dumps(annotations))
    assert "their names, sizes or boxes differ" in refused(run, "--data", "nudged")


def test_a_missing_summary_of_the_data_is_reported(run, untrained, capsys):
    (run / "data.json").unlink()
    assert main(["train", "--resume", "one", "--quiet=false"]) == 130
    message = " ".join(capsys.readouterr().out.split())
    assert "data.json is missing, so the data cannot be compared with those of its start" in message
    assert json.loads((run / "data.json").read_text())["train"]["images"] == 8


@pytest.mark.slow
def test_a_teacher_that_moved_is_given_again_and_recognized(finished, tmp_path, monkeypatch, refused, untrained):
    monkeypatch.chdir(tmp_path)
    weights, run = finished / "runs" / "train" / "one" / LAST, Path("runs/distill/taught")
    shutil.copy(weights, "teacher.safetensors")
    flags = "--student paa-tiny --teacher teacher.safetensors --name taught --imgsz=64 --batch=4 --allow-weak-teacher"
    with monkeypatch.context() as patch:
        patch.setattr(engine, "one_process", lambda *_: None)
        patch.setattr(engine, "launch", lambda *_: (run / "weights").mkdir() or stop())
        assert main(["distill", "--data", str(finished / "data"), *flags.split()]) == 130
    assert json.loads((run / "teacher.json").read_text())["file"] == str(tmp_path / "teacher.safetensors")
    Path("teacher.safetensors").rename("moved.safetensors")
    assert "teacher.safetensors is not there any more; give its path with --teacher" in refused(run, verb="distill")
    Path("other.safetensors").write_bytes(weights.read_bytes()[:-4] + b"else")
    message = refused(run, "--teacher", "other.safetensors", verb="distill")
    assert "other.safetensors is not the file this run began with; give its path with --teacher" in message
    with pytest.raises(KeyboardInterrupt):
        distill(teacher="moved.safetensors", resume=str(run))
    assert json.loads((run / "teacher.json").read_text())["file"] == str(tmp_path / "moved.safetensors")


def stop():
    raise KeyboardInterrupt


# -------------------------------------------------------------------------------------------------------- for longer


@pytest.mark.slow
def test_a_finished_run_goes_on_for_more_epochs(run, finished, tmp_path, capsys, monkeypatch):
    whole = shutil.copytree(run, tmp_path / "whole")
    assert main(["train", "--resume", "whole", "--epochs", "4", "--quiet", "false"]) == 0
    assert "resume    2 of 4 epochs are done" in capsys.readouterr().out
    history = rows(whole)
    assert [row["epoch"] for row in history] == ["1", "2", "3", "4"]
    assert history[:2] == rows(finished / "runs" / "train" / "one")
    assert float(history[3]["lr"]) < float(history[2]["lr"]), "on the way down of a cosine of four epochs"
    assert yaml.safe_load((whole / "config.yaml").read_text())["epochs"] == 4
    with monkeypatch.context() as patch:
        stop_after(patch, 3)
        with pytest.raises(KeyboardInterrupt):
            train(resume="one", run=Run(epochs=4))
    train(resume="one")
    assert same_weights(run / LAST, whole / LAST), "stopped again, it ends as the one that was not"


@pytest.mark.parametrize(("flags", "left"), [([], True), (["--epochs", "2"], True), (["--epochs", "4"], False)])
def test_a_report_goes_away_when_its_run_goes_on(run, untrained, flags, left):
    files = [run / name for name in ("report.json", "report.html", "card.md")]
    assert all(file.is_file() for file in files)
    assert main(["train", "--resume", "one", *flags]) == 130
    assert [file.is_file() for file in files] == 3 * [left]


@pytest.mark.slow
def test_a_run_that_went_on_and_was_stopped_has_the_numbers_of_its_weights(run, monkeypatch):
    aps = iter((0.9, 0.1))
    monkeypatch.setattr(loop, "_evaluate", lambda *_: {"ap": next(aps)})
    stop_after(monkeypatch, 3)
    with pytest.raises(KeyboardInterrupt):
        train(resume="one", run=Run(epochs=4))
    assert read_run(run).numbers is None
    report(str(run))
    assert "at epoch 3 of 4" in (run / "report.html").read_text(encoding="utf-8")
    assert not (run / "report.json").exists()


@pytest.mark.slow
def test_resuming_a_finished_run_reports_nothing_to_do(run, capsys):
    assert main(["train", "--resume", "one", "--quiet=false"]) == 0
    assert "finished: all 2 epochs are done, nothing to train; give --epochs N to go on" in capsys.readouterr().out


def test_fewer_epochs_than_are_done_are_refused(run, refused):
    assert "--epochs 1: one has finished 2 epochs; give more" in refused(Path("one"), "--epochs", "1")


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--lr", "0.1"], ["--lr 0.1 (it began with None)"]),
        (["--batch=8", "--seed=3"], ["--batch 8 (it began with 4)", "--seed 3 (it began with 0)"]),
        (["--model", "fcos-tiny"], ["--model fcos-tiny (it began with paa-tiny)"]),
        (["--student", "fcos-tiny"], ["--model fcos-tiny"]),
        (["--assigner", "ATSS"], ["--assigner ATSS (it began with None)"]),
        (["--epochs=3", "--imgsz", "96"], ["--imgsz 96 (it began with 64)"]),
        (["--name", "other"], ["--name other (it began with one)"]),
        (["--schedule", "cosine", "--flip", "0.5", "--warmup", "100", "--ema", "0.9"], ["--ema 0.9"]),
        (["--batch", "16"], ["--batch 16 (it began with 4)"]),
    ],
)
def test_a_flag_that_cannot_be_changed_is_named(run, refused, flags, named):
    message = refused(run, *flags)
    assert all(name in message for name in named)
    assert "leave that out, or start a new run; it takes --epochs, --patience" in message
    assert message.count("it began with") == len(named)


def test_python_names_it_too(run):
    with pytest.raises(UserError, match=r"cannot change --batch 8 \(it began with 4\), --lr 0\.5"):
        train(resume=str(run), run=Run(batch=8, lr=0.5, epochs=7))


def test_the_same_flags_again_are_no_change(run, finished, untrained):
    flags = f"--data {finished}/data --model paa-tiny --batch 4 --imgsz 64 --device cpu --name one --project runs"
    assert main(["train", "--resume", "one", *flags.split(), "--config", str(run / "config.yaml")]) == 130
    assert untrained[0].run == replace(RUN, epochs=2, name="one")


def test_what_changes_no_weights_may_be_given_anew(run, untrained):
    flags = ["--workers=2", "--cache", "--log-every=3", "--patience=5", "--quiet=false", "--device=auto"]
    assert main(["train", "--resume", "one", *flags]) == 130
    given = untrained[0].run
    assert (given.workers, given.cache, given.log_every, given.patience, given.device) == (2, True, 3, 5, "auto")


@pytest.mark.parametrize(
    ("began", "now", "expected", "found"),
    [
        ("onnx:a.onnx?imgsz=64", "onnx:b.onnx?imgsz=96", "onnx:?imgsz=64", "onnx:?imgsz=96"),
        ("onnx:a.onnx?imgsz=64", "b.onnx", "onnx:?imgsz=64", "onnx:"),
        ("a.safetensors", "onnx:a.onnx", "ladle:", "onnx:"),
        ("ema", "auxiliary", "ema:", "auxiliary:"),
        ("ensemble:a.onnx,b.jsonl", "ensemble:b.jsonl,a.onnx", "ensemble:onnx:,cache:", "ensemble:cache:,onnx:"),
    ],
)
def test_a_teacher_is_asked_as_when_the_run_began(began, now, expected, found):
    job = Job("distill", "data", "paa-tiny", "one", teacher=began)
    with pytest.raises(UserError, match="give the same kind and options in --teacher") as raised:
        job.changed({"teacher": now})
    assert f"expected {expected}, found {found};" in str(raised.value)


def test_the_files_of_a_teacher_may_lie_elsewhere():
    job = Job("distill", "data", "paa-tiny", "one", teacher="onnx:a.onnx?std=2&imgsz=64&classes=a.txt")
    moved = "onnx:b.onnx?imgsz=64&classes=b.txt&std=2"
    assert job.changed({"teacher": moved}).teacher is not None
    mine = Job("distill", "data", "paa-tiny", "one", teacher="python:Mine")
    assert mine.changed({"teacher": "b.safetensors"}).teacher is not None


@pytest.mark.parametrize("began", ["onnx:a.onnx", "onnx:a.onnx?class_map=map.yaml&imgsz=64"])
def test_a_class_map_given_again_is_that_of_the_teacher(tmp_path, monkeypatch, capsys, refused, began):
    monkeypatch.chdir(tmp_path)
    for name, text in (("a.onnx", "a"), ("map.yaml", "circle: circle"), ("other.yaml", "circle: ring")):
        Path(name).write_text(text)
    Job("distill", "data", "paa-tiny", "one", run=RUN, teacher=began).with_teacher().write()
    mapped = "class_map" in began
    other = refused(Path("one"), "--class-map", "other.yaml", verb="distill")
    assert ("which is changed" if mapped else "was not given when this run began") in other
    same = refused(Path("one"), "--class-map", "map.yaml", verb="distill")
    assert ("was not given when this run began" in same) != mapped
    assert ("data" in same) == mapped, "that of the start is accepted: the next obstacle is that there are no data"


def test_a_class_map_is_refused_for_a_detector_of_ladle_s_and_null_is_none(tmp_path, monkeypatch, refused):
    monkeypatch.chdir(tmp_path)
    Path("a.safetensors").write_text("a")
    Path("null.yaml").write_text("class_map: null\n")
    Job("distill", "data", "paa-tiny", "one", run=RUN, teacher="a.safetensors").with_teacher().write()
    assert "--class-map map.yaml: the classes of" in refused(Path("one"), "--class-map", "map.yaml", verb="distill")
    assert "class" not in refused(Path("one"), "--config", "null.yaml", verb="distill")


def test_the_batch_that_was_chosen_when_a_run_began_is_not_chosen_again(run, untrained):
    assert main(["train", "--resume", "one", "--batch", "auto"]) == 130
    assert untrained[0].run.batch == RUN.batch


def test_numbers_are_texts_of_a_job_and_other_things_are_refused_before_a_folder_is_made(finished, tmp_path, untrained):
    data, teacher = str(finished / "data"), str(finished / "runs" / "train" / "one" / LAST)
    to = replace(RUN, project=str(tmp_path))
    with pytest.raises(KeyboardInterrupt):
        distill(data, "paa-tiny", teacher, "pkd", to, allow_weak_teacher=True, weight=0.5, warm=2.0, until=1)
    replace(untrained[0], folder=str(tmp_path / "stopped")).write()
    job = Job.read(str(tmp_path / "stopped"), "distill")
    assert (job.weight, job.warm, job.until) == ("0.5", "2", "1")
    for again in ({"weight": 0.5, "until": 1.0}, {"warm": "2", "until": 1}):
        assert job.changed(again) == job
    folders = sorted(tmp_path.rglob("*"))
    for wrong in ({"assistants": ["tiny"]}, {"until": True}, {"judge_until": "1"}, {"balance": "both"}):
        with pytest.raises(UserError, match=f"^--{next(iter(wrong)).replace('_', '-')} "):
            distill(data, "paa-tiny", teacher, "lad+pkd", to, allow_weak_teacher=True, **wrong)
    for wrong in ({"surer": "x"}, {"weight": (1,)}, {"first": None}):
        with pytest.raises(UserError, match=f"^--{next(iter(wrong))} "):
            colearn(data, **{"first": "paa-tiny", "second": "paa-tiny", "run": to} | wrong)
    assert sorted(tmp_path.rglob("*")) == folders


# ---------------------------------------------------------------------------------------------- through assistants


@pytest.mark.slow
def test_a_chain_goes_on_with_the_assistants_it_had(finished, tmp_path, monkeypatch, refused):
    monkeypatch.chdir(tmp_path)
    teacher = finished / "runs" / "train" / "one" / LAST
    flags = "--student paa-tiny --assistants mini --method soft --name chain --imgsz=64 --batch=4 --epochs 1 --quiet"
    line = ["distill", "--data", str(finished / "data"), "--teacher", str(teacher), "--allow-weak-teacher"]
    assert main([*line, *flags.split(), "--device=cpu"]) == 0
    run = Path("runs/distill/chain")
    assistant = run / "assistants" / "1-paa-mini"
    before = contents(assistant)
    write_coco(tmp_path / "other", train=9, val=4, size=64)
    assert "there are 9 instead of 8" in refused(run, "--data", "other", "--epochs", "2", verb="distill")
    assert main(["distill", "--resume", str(run), "--epochs", "2"]) == 0
    assert (len(rows(run)), len(rows(assistant))) == (2, 1)
    changed = {path.name for path, what in contents(assistant).items() if what != before[path]}
    assert changed <= {"history.png", "precision_recall.png", "confusion.png"}
    best = assistant / "weights" / "best.safetensors"
    shutil.copy(teacher, best)
    assert main(["distill", "--resume", str(run)]) == 0
    assert contents(assistant)[best][0] == before[best][0]  # its last epoch was its best, so it is made again
    job = replace(Job.read(str(run), "distill"), taught_by=str(teacher))
    with pytest.raises(UserError, match=r"the assistant .* is not the one it began with"):
        job.with_assistant()


# ------------------------------------------------------------------------------------------------------ what is lost


def test_a_run_whose_backbone_weights_are_gone_goes_on(run, untrained):
    config = run / "config.yaml"
    config.write_text(config.read_text().replace("backbone_weights: null", "backbone_weights: gone.pth"))
    assert main(["train", "--resume", "one"]) == 130
    assert untrained[0].run.backbone_weights == "gone.pth"


@pytest.mark.slow
def test_weights_and_results_that_follow_from_the_resume_file_are_made_again(run, finished, capsys):
    for name in (LAST, "weights/best.safetensors", "results.csv"):
        (run / name).unlink()
    assert main(["train", "--resume", "one", "--quiet=false"]) == 0
    assert "best.safetensors of epoch 1 is missing, so the weights of epoch 2 replace it" in capsys.readouterr().out
    one = finished / "runs" / "train" / "one"
    assert same_weights(run / LAST, one / LAST)
    assert same_weights(run / "weights/best.safetensors", one / LAST)
    assert (run / "results.csv").read_bytes() == (one / "results.csv").read_bytes()


def test_a_stopped_run_prints_the_resume_command(run, capsys, monkeypatch):
    monkeypatch.setattr("ladle.objectives.TrainingStep.forward", lambda *_: stop())
    assert main(["train", "--resume", "one", "--epochs=3"]) == 130
    assert capsys.readouterr().err == "stopped; go on with `ladle train --resume one`\n"


def test_a_terminated_run_prints_the_resume_command_and_unlocks_its_folder(run, capsys, monkeypatch):
    monkeypatch.setattr("ladle.objectives.TrainingStep.forward", lambda *_: signal.raise_signal(signal.SIGTERM))
    with pytest.raises(SystemExit) as ended:
        main(["train", "--resume", "one", "--epochs=3"])
    assert ended.value.code == 143
    assert capsys.readouterr().err == "stopped; go on with `ladle train --resume one`\n"
    assert [path.name for path in run.rglob(".*")] == []
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


@pytest.mark.slow
def test_the_error_for_a_full_disk_names_the_resume_command(run, capsys, monkeypatch):
    from tests.test_writing import room_for

    before = (run / "resume.pt").read_bytes()
    with room_for(len(before) // 2):
        assert main(["train", "--resume", "one", "--epochs=3"]) == 2
    message = capsys.readouterr().err
    assert message == (
        "ladle train: one/resume.pt: File too large; the run is as it was last saved: correct this, then go on with "
        "`ladle train --resume one`\n"
    )
    assert (run / "resume.pt").read_bytes() == before
    assert [path.name for path in run.rglob(".*")] == []
    assert main(["train", "--resume", "one"]) == 0
    assert [row["epoch"] for row in rows(run)] == ["1", "2", "3"]


def test_a_run_without_its_resume_file_does_not_overwrite_weights(run, refused):
    (run / "resume.pt").unlink()
    assert "resume.pt: expected it beside the weights of finished epochs, found none" in refused(run, "--epochs", "3")


def test_a_run_from_before_a_flag_is_resumed_without_it(run):
    """Run folders of earlier versions lack the flags that came later."""
    file = run / "config.yaml"
    flags = yaml.safe_load(file.read_text())
    later = ("criterion", "mixup", "scale_jitter", "close_mosaic", "rotate", "shear")
    file.write_text(yaml.safe_dump({key: value for key, value in flags.items() if key not in later}))
    job = Job.read(str(run), "train")
    assert (job.criterion, job.run.mixup, job.run.scale_jitter, job.run.close_mosaic) == (None, 0.0, 0.0, 0)
    assert (job.run.rotate, job.run.shear) == (0.0, 0.0)
    assert job.run.mosaic == flags["mosaic"]
