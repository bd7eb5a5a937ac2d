"""Runs without a teacher's file: the student's average or an auxiliary head judges, and only the student is saved."""

from dataclasses import replace

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from ladle.cli.main import main
from ladle.detectors import load_detector
from ladle.errors import UserError
from ladle.recipes import distill
from ladle.recipes.jobs import Job
from tests.recipes.test_train import stop_after
from tests.recipes.tiny import FLAGS, RUN, same_weights


def start(data, folder, teacher, name="whole", epochs=2):
    run = replace(RUN, epochs=epochs, name=name, project=str(folder))
    return distill(data, "paa-tiny", teacher, "solad", run, judge_after=0.5)


def check_saved(run, teacher):
    """The weights are the student's alone; what is stored for a resume is the teacher too."""
    assert set(load_file(run.weights)) == set(load_detector(run.weights).state_dict())
    kept = torch.load(run.folder / "resume.pt", weights_only=True)["objective"]
    assert {name.partition(".")[0] for name in kept} == {"student", "of_student"}
    job = Job.read(str(run.folder), "distill")
    assert (job.teacher, job.judge_after, job.teacher_file, job.foreign_teacher) == (teacher, 0.5, None, None)


@pytest.mark.slow
def test_a_stopped_run_goes_on_bit_for_bit(data, tmp_path, monkeypatch):
    """Three runs of a second each: the average that is stored is taken up again."""
    whole = start(data, tmp_path, "ema?tau=2")
    with monkeypatch.context() as patch:
        stop_after(patch, 1)
        with pytest.raises(KeyboardInterrupt):
            start(data, tmp_path, "ema?tau=2", "cut")
    cut = distill(resume=str(tmp_path / "distill" / "cut"))
    assert same_weights(cut.folder / "weights" / "last.safetensors", whole.folder / "weights" / "last.safetensors")
    check_saved(cut, "ema?tau=2")


@pytest.mark.slow
def test_an_auxiliary_head_is_not_saved_with_the_student(data, tmp_path):
    teacher = "auxiliary?width=32&depth=1&detach=0.5"
    check_saved(start(data, tmp_path, teacher, epochs=1), teacher)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--teacher ema --method soft-only", "is made of the student, so nothing would be learned from ground truth"),
        ("--teacher ema --unlabelled {images}", "it is made of a student in training and finds nothing by itself"),
        ("--teacher ema --assistants mini", "expected a teacher saved by ladle, found ema"),
        (
            "--teacher auxiliary --method pkd",
            "compares feature maps, and the teacher auxiliary head of paa-tiny gives none",
        ),
        ("--teacher ema --method soft --judge-after 1", "the teacher judges nothing"),
    ],
)
def test_what_they_cannot_do_is_one_sentence(data, tmp_path, capsys, flags, message):
    images = tmp_path / "images"
    images.mkdir()
    Image.new("RGB", (64, 64)).save(images / "a.png")
    words = f"--data {data} --student paa-tiny {FLAGS} --project {tmp_path / 'runs'} {flags.format(images=images)}"
    assert main(["distill", *words.split()]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_another_teacher_is_refused_on_resume(tmp_path):
    job = Job("distill", "d", "paa-tiny", str(tmp_path), teacher="ema?tau=3", teacher_sha256="0" * 64)
    with pytest.raises(UserError, match="is not the file this run began with"):
        job.check_origins()
