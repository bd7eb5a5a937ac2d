"""Distillation changes the student and never the teacher."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from ladle.cli.main import main
from ladle.detectors import load_detector
from ladle.engine import loop
from ladle.errors import UserError
from ladle.recipes import distill, preflight, train
from ladle.recipes.jobs import Job
from ladle.recipes.origins import file_hash
from tests.recipes.test_train import stop_after
from tests.recipes.tiny import FLAGS, RUN, same_weights

METHODS = ("lad", "solad", "soft", "soft-only")


@pytest.fixture(scope="module")
def taught(data, teacher, tmp_path_factory):
    """One run of every method, and the plain one, by name."""
    project = tmp_path_factory.mktemp("taught")
    before = Path(teacher).read_bytes()
    runs = {m: distill(data, "paa-tiny", teacher, m, replace(RUN, project=str(project)), True) for m in METHODS}
    assert Path(teacher).read_bytes() == before, "a run changed its teacher's file"
    return runs | {"plain": train(data, "paa-tiny", replace(RUN, project=str(project)))}


@pytest.mark.slow
def test_every_method_gives_different_weights(taught):
    files = [run.weights for run in taught.values()]
    pairs = [(one, other) for at, one in enumerate(files) for other in files[at + 1 :]]
    assert [pair for pair in pairs if same_weights(*pair)] == []


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.slow
def test_the_saved_student_holds_nothing_of_its_teacher(taught, method):
    run = taught[method]
    tensors = load_file(run.weights)
    assert set(tensors) == set(load_detector(run.weights).state_dict()) == set(load_file(taught["plain"].weights))
    resume = torch.load(run.folder / "resume.pt", weights_only=True)
    assert [name for name in resume["objective"] if not name.startswith("student.")] == []


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.slow
def test_the_teacher_is_recorded_by_path_and_content(taught, teacher, method):
    job = Job.read(str(taught[method].folder), "distill")
    assert (job.method, job.teacher, job.teacher_sha256) == (method, teacher, file_hash(Path(teacher)))


@pytest.mark.slow
@pytest.mark.parametrize("method", ["lad", "solad"])
def test_the_command_line_distils_the_same_weights(taught, data, teacher, tmp_path, method):
    flags = f"--student paa-tiny --method {method} {FLAGS} --allow-weak-teacher".split()
    assert main(["distill", "--data", data, "--teacher", teacher, f"--project={tmp_path}", *flags]) == 0
    assert same_weights(
        tmp_path / "distill" / f"paa-tiny-{method}" / "weights" / "best.safetensors", taught[method].weights
    )


@pytest.mark.slow
def test_a_stopped_distillation_goes_on_bit_for_bit(data, teacher, tmp_path, monkeypatch):
    def start(name):
        run, more = replace(RUN, epochs=2, name=name, project=str(tmp_path)), tmp_path / "more"
        flags = {"balance": "moments", "unlabelled": str(more), "unlabelled_score": "0.05"}
        return distill(data, "paa-tiny", teacher, "solad+pkd", run, allow_weak_teacher=True, **flags)

    (tmp_path / "more").mkdir()
    Image.new("RGB", (64, 48), (200, 90, 40)).save(tmp_path / "more" / "a.png")

    whole = start("whole")
    with monkeypatch.context() as patch:
        stop_after(patch, 1)
        with pytest.raises(KeyboardInterrupt):
            start("cut")
    cut = distill(resume=str(tmp_path / "distill" / "cut"))
    for name in ("last", "best"):
        file = f"weights/{name}.safetensors"
        assert same_weights(cut.folder / file, whole.folder / file)
    job = Job.read(str(cut.folder), "distill")
    assert (job.unlabelled, job.unlabelled_score) == (str(tmp_path / "more"), "0.05")
    assert job.contents[0].images == 8, "the summary is that of the images with labels"


@pytest.mark.slow
def test_a_weight_that_follows_the_gradients_is_printed_stored_and_logged(data, teacher, tmp_path, capsys):
    flags = f"--student paa-tiny --method pkd --weight auto --balance-share 0.5 {FLAGS} --allow-weak-teacher".split()
    flags = [flag for flag in flags if flag != "--quiet"]
    run = ["distill", "--data", data, "--teacher", teacher, f"--project={tmp_path}", "--log-every=1", *flags]
    assert main(run) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "of pkd: the norm of their gradient in backbone and neck is 0.5 of that of all other losses" in printed
    folder = tmp_path / "distill" / "paa-tiny-pkd"
    assert Job.read(str(folder), "distill").weight == "auto"
    step = json.loads((folder / "metrics.jsonl").read_text().splitlines()[0])
    assert (step["distilled_weight"], step["distilled_gradient_norm"] > 0) == (1.0, True)
    assert main([*run, "--balance=norm"]) == 2
    assert "a --weight auto follows the gradients already; leave one of them out" in capsys.readouterr().err


@pytest.mark.slow
def test_balanced_training_without_its_loss_is_exactly_plain_and_with_it_another(
    taught, data, teacher, tmp_path, capsys
):
    def weights(name, **flags):
        run = replace(RUN, name=name, project=str(tmp_path), quiet=False)
        return distill(data, "paa-tiny", teacher, "soft", run, allow_weak_teacher=True, **flags).weights

    assert same_weights(weights("nothing", weight="0", balance="moments"), taught["plain"].weights)
    balanced = weights("norm", balance="norm", balance_share=0.5)
    assert not same_weights(balanced, taught["soft"].weights)
    assert "balance   backbone and neck: the gradient of distillation is at most 0.5" in capsys.readouterr().out
    job = Job.read(str(balanced.parents[1]), "distill")
    assert (job.balance, job.balance_share) == ("norm", 0.5)


@pytest.mark.slow
def test_a_run_whose_teacher_has_changed_is_not_resumed(data, teacher, tmp_path):
    copy = tmp_path / "teacher.safetensors"
    copy.write_bytes(Path(teacher).read_bytes())
    run = distill(data, "paa-tiny", str(copy), "lad", replace(RUN, project=str(tmp_path)), allow_weak_teacher=True)
    copy.write_bytes(Path(run.weights).read_bytes())
    with pytest.raises(UserError, match="not the file this run began with"):
        distill(resume=str(run.folder))
    copy.unlink()
    with pytest.raises(UserError, match=r"teacher\.safetensors"):
        distill(resume=str(run.folder))


@pytest.mark.slow
def test_a_teacher_of_another_family_gives_soft_labels_and_skipped_terms_are_listed(data, teacher, tmp_path, capsys):
    run = replace(RUN, project=str(tmp_path), quiet=False)
    taught = distill(data, "atss-tiny", teacher, "soft", run, allow_weak_teacher=True)
    assert taught.weights.is_file()
    printed = capsys.readouterr().out
    assert "skipped   soft_quality: the student's branch means centerness, the teacher's iou" in printed
    assert "teacher   paa-tiny" in printed


@pytest.mark.parametrize(
    ("flags", "last"),
    [({"judge_after": 1.0}, 1), ({"judge_after": 5.0}, 1), ({"judge_after": 0.5, "judge_until": 0.5}, 0.5)],
)
def test_a_teacher_that_judges_in_no_epoch_is_refused(data, teacher, tmp_path, flags, last):
    run = replace(RUN, epochs=1, project=str(tmp_path))
    with pytest.raises(UserError, match=rf"^--judge-after .*: .* in no epoch, since it does so until epoch {last:g} "):
        distill(data, "paa-tiny", teacher, "lad", run, allow_weak_teacher=True, **flags)
    assert list(tmp_path.iterdir()) == []


def test_a_weak_teacher_is_refused_before_anything_is_written(data, teacher, tmp_path, monkeypatch):
    monkeypatch.setattr(preflight, "LEAST_AP", 1.0)
    with pytest.raises(UserError, match="--allow-weak-teacher"):
        distill(data, "paa-tiny", teacher, "lad", replace(RUN, project=str(tmp_path)))
    assert list(tmp_path.iterdir()) == []


def test_what_needs_the_same_priors_is_refused_before_anything_is_written(data, teacher, tmp_path):
    with pytest.raises(UserError, match="at the same priors; take lad or soft"):
        distill(data, "fcos-tiny", teacher, "cross", replace(RUN, project=str(tmp_path)), allow_weak_teacher=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_teacher_with_other_priors_is_moved_and_the_plan_says_so(data, teacher, tmp_path, capsys):
    run = replace(RUN, project=str(tmp_path), quiet=False)
    taught = distill(data, "fcos-tiny", teacher, "solad+pkd", run, allow_weak_teacher=True)
    assert taught.weights.is_file()
    printed = " ".join(capsys.readouterr().out.split())
    assert "the teacher's priors are Anchors(scales=(4.0,)" in printed
    assert "its predictions are moved to the student's priors: re-sampled from grid to grid" in printed
    assert "judged by the teacher" in printed


def test_distilling_without_a_teacher_is_refused(data, tmp_path):
    with pytest.raises(UserError, match="--teacher"):
        distill(data, "paa-tiny", run=replace(RUN, project=str(tmp_path)))
    with pytest.raises(UserError, match=r"nowhere\.safetensors"):
        distill(data, "paa-tiny", str(tmp_path / "nowhere.safetensors"), run=replace(RUN, project=str(tmp_path)))


@pytest.mark.slow
def test_a_student_starts_from_the_weights_it_would_have_had_without_a_teacher(data, teacher, tmp_path, monkeypatch):
    started = []
    prepare = loop.prepare

    def watched(fabric, objective, *rest):
        started.append({name: value.clone() for name, value in objective.student.state_dict().items()})
        return prepare(fabric, objective, *rest)

    monkeypatch.setattr(loop, "prepare", watched)
    run = replace(RUN, project=str(tmp_path))
    train(data, "paa-tiny", run)
    distill(data, "paa-tiny", teacher, "solad", run, allow_weak_teacher=True)
    plain, taught = started
    assert all(torch.equal(plain[name], taught[name]) for name in plain)
