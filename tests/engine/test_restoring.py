"""A resume file of another run, or one that was changed, is refused in one sentence before anything is put back."""

import math
import shutil
import zipfile
from dataclasses import replace

import pytest
import torch
from lightning_fabric import Fabric
from torch import nn

from ladle.engine import AdamW
from ladle.engine.checkpoint import load_checkpoint
from ladle.engine.restoring import restore
from ladle.errors import UserError

from .toy import SETTINGS, read_rows, train

OWN = replace(SETTINGS, epochs=1, optimizer=AdamW(lr=0.01))
WEIGHT = "student.backbone.0.weight"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of a run of one epoch; nobody changes it."""
    folder = tmp_path_factory.mktemp("whole")
    train(Fabric(accelerator="cpu", devices=1), folder, OWN)
    return folder


@pytest.fixture
def resumed(whole, tmp_path):
    """Change what the resume file of a copy holds, and resume it."""
    folder = shutil.copytree(whole, tmp_path / "run")

    def resume(change):
        state = torch.load(folder / "resume.pt", weights_only=True)
        change(state)
        torch.save(state, folder / "resume.pt")
        return train(Fabric(accelerator="cpu", devices=1), folder, OWN, resume=True)

    return resume


def put(*path):
    """A change that puts the last of ``path``, or what it makes of what is there, at the place that the others name."""

    def change(state):
        *way, name, value = path
        for part in way:
            state = state[part]
        state[name] = value(state[name]) if callable(value) else value

    return change


def take(*path):
    def change(state):
        *way, name = path
        for part in way:
            state = state[part]
        del state[name]

    return change


CONTRADICTIONS = {
    "more epochs than rows": put("state", "epoch", 2),
    "steps of no epoch": put("state", "step", 4),
    "no epoch at all": lambda state: state["state"].update(epoch=0, step=0, rows=()),
    "best of an epoch to come": put("state", "best_epoch", "student", 2),
    "best of nobody": lambda state: state["state"].update(best_epoch={"rival": 1}, best_ap={"rival": 0.5}),
    "a best epoch without an AP": put("state", "best_ap", {}),
}
MISFITS = {
    "a weight of another shape": put("objective", WEIGHT, lambda w: w[:2]),
    "a weight of another kind": put("objective", WEIGHT, lambda w: w.double()),
    "a weight that is none": put("objective", WEIGHT, "x"),
    "no such weight": take("objective", WEIGHT),
    "a weight too many": lambda state: state["objective"].update(odd=torch.ones(1)),
    "no average of the student": put("ema", {}),
    "an average of another shape": put("ema", "student", "module", "head.weight", lambda w: w[:1]),
    "updates that are none": put("ema", "student", "updates", None),
    "another weight decay": put("optimizer", "param_groups", 0, "weight_decay", 0.3),
    "other betas": put("optimizer", "param_groups", 0, "betas", (0.5, 0.5)),
    "a group too few": put("optimizer", "param_groups", lambda groups: groups[:1]),
    "no groups": take("optimizer", "param_groups"),
    "a momentum of another shape": put("optimizer", "state", 0, "exp_avg", lambda m: m[:1]),
    "a huge momentum in a few bytes": put("optimizer", "state", 0, "exp_avg", lambda _: torch.zeros(1).expand(10**12)),
    "no momentum": take("optimizer", "state", 0, "exp_avg"),
    "a count of steps that is a list": put("optimizer", "state", 0, "step", [1]),
    "a random state of another length": put("random", 0, "torch", lambda s: s[:9]),
    "a random state without python's": take("random", 0, "python"),
    "a random state of numpy that is none": put("random", 0, "numpy", ("MT19937", torch.zeros(3), 0, 0, 0.0)),
}
FOREIGN = {
    "a state that is none": put("state", 3),
    "a word for an epoch": put("state", "epoch", "one"),
    "a negative epoch": put("state", "epoch", -1),
    "a row that is none": put("state", "rows", ({"epoch": "one"},)),
    "an AP of true": put("state", "best_ap", "student", True),
    "something more": lambda state: state.update(odd=1),
    "something less": take("random"),
    "a list for the objective": put("objective", [1]),
    "a sparse weight": put("objective", WEIGHT, lambda w: w.to_sparse()),
    "a random state that is none": put("random", 0, 7),
}


@pytest.mark.parametrize("how", CONTRADICTIONS)
def test_counts_that_contradict_each_other_are_refused(resumed, how):
    with pytest.raises(UserError, match=r"resume\.pt: its counts of epochs, steps and students contradict each other"):
        resumed(CONTRADICTIONS[how])


@pytest.mark.parametrize("how", MISFITS)
def test_a_state_that_does_not_fit_is_refused(resumed, how):
    with pytest.raises(UserError, match=r"resume\.pt: expected the state of this student and optimizer") as error:
        resumed(MISFITS[how])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("how", FOREIGN)
def test_what_is_no_resume_file_is_refused(resumed, how):
    with pytest.raises(UserError, match=r"resume\.pt: expected") as error:
        resumed(FOREIGN[how])
    assert "\n" not in str(error.value)


def test_a_learning_rate_is_no_setting_for_the_schedule_sets_it(resumed, whole):
    assert resumed(put("optimizer", "param_groups", 0, "lr", 9.0)).rows[0]["lr"] == float(read_rows(whole)[0]["lr"])


def test_nan_is_a_score_like_any_other(resumed):
    result = resumed(put("state", "best_ap", "student", math.nan))
    assert math.isnan(result.best_ap["student"])


def refused(path, said):
    with pytest.raises(UserError, match=said) as error:
        load_checkpoint(path)
    assert str(error.value).startswith(f"{path}: expected the resume file of a Ladle run, found something unreadable (")
    assert "\n" not in str(error.value)


def test_a_flipped_bit_is_seen(whole, tmp_path):
    content = (whole / "resume.pt").read_bytes()
    tensor = torch.load(whole / "resume.pt", weights_only=True)["objective"][WEIGHT].numpy().tobytes()
    changed = bytearray(content)
    changed[content.index(tensor) + 5] ^= 4
    (tmp_path / "resume.pt").write_bytes(changed)
    refused(tmp_path / "resume.pt", "the checksum of archive/data/.* is wrong")


def test_a_file_that_grows_when_it_is_read_is_refused(whole, tmp_path):
    with zipfile.ZipFile(whole / "resume.pt") as old, zipfile.ZipFile(tmp_path / "resume.pt", "w") as new:
        for one in old.infolist():
            new.writestr(one.filename, old.read(one) + bytes(10**6), zipfile.ZIP_DEFLATED)
    refused(tmp_path / "resume.pt", "it is compressed")


def test_a_file_that_asks_for_more_than_tensors_is_refused_before_it_is_read(whole, tmp_path):
    state = torch.load(whole / "resume.pt", weights_only=True)
    torch.save(state | {"ema": {"a": bytearray(4)}}, tmp_path / "resume.pt")
    refused(tmp_path / "resume.pt", "it asks for")


def test_a_file_whose_parts_overlap_is_refused(whole, tmp_path):
    shutil.copy(whole / "resume.pt", tmp_path / "resume.pt")
    content = (tmp_path / "resume.pt").read_bytes()
    with zipfile.ZipFile(tmp_path / "resume.pt") as archive:
        largest = max(archive.infolist(), key=lambda one: one.file_size)
    with zipfile.ZipFile(tmp_path / "resume.pt", "a") as archive:
        for number in range(40):
            again = zipfile.ZipInfo(f"archive/{number}")
            again.header_offset, again.CRC = largest.header_offset, largest.CRC
            again.file_size = again.compress_size = largest.file_size
            archive.filelist.append(again)
        archive._didModify = True
    assert (tmp_path / "resume.pt").stat().st_size < len(content) + 40 * largest.file_size
    refused(tmp_path / "resume.pt", "its parts overlap")


def test_weights_of_distillers_are_found_under_their_former_names():
    module, inner = nn.Module(), nn.Module()
    module.distillation = inner
    inner.student_context, inner.teacher_context = nn.Linear(2, 1, bias=False), nn.Linear(2, 1, bias=False)
    ours, theirs = torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 4.0]])
    restore(module, {"teachings.own_context.weight": ours, "distillation.guide_context.weight": theirs})
    assert torch.equal(inner.student_context.weight, ours)
    assert torch.equal(inner.teacher_context.weight, theirs)
