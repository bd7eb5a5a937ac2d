"""An objective with several students: each is averaged, scored and saved by itself; and the loop tells the time."""

from dataclasses import replace

import pytest
import torch
from lightning_fabric import Fabric
from safetensors.torch import load_file
from torch import nn

from ladle.engine import SGD, fit
from ladle.types import Term
from tests.engine.toy import SETTINGS, Student, ToyLoader, save_student


class Two(nn.Module):
    """Two students with a loss each, and a clock."""

    distilled = frozenset()

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.students = nn.ModuleDict({"one": Student(0.0), "other": Student(0.0)})
        self.times, self.monitor = [], {}

    def set_time(self, epoch, step):
        self.times.append((epoch, step))

    def forward(self, batch):
        images = torch.tensor(float(len(batch.images)))
        return {
            name: Term((net(batch.images) - 1).square().mean() * images, images, torch.zeros(()))
            for name, net in self.students.items()
        }


def run(folder, objective, scores=None, **changes):
    given = iter(scores or [0.5] * 100)
    settings = replace(SETTINGS, epochs=3, accumulate=1, **changes)
    fabric = Fabric(accelerator="cpu", devices=1)
    return fit(fabric, objective, ToyLoader(images=12), settings, folder, lambda net: {"ap": next(given)}, save_student)


def test_each_keeps_its_own_best(tmp_path):
    result = run(tmp_path, Two(), scores=[0.1, 0.9, 0.3, 0.8, 0.2, 0.7])
    assert result.best_epoch == {"one": 2, "other": 1}
    assert result.best_ap == {"one": 0.3, "other": 0.9}
    assert [row["one/ap"] for row in result.rows] == [0.1, 0.3, 0.2]
    assert [row["other/ap"] for row in result.rows] == [0.9, 0.8, 0.7]
    files = {path.name for path in (tmp_path / "weights").iterdir()}
    assert files == {f"{name}-{which}.safetensors" for name in ("one", "other") for which in ("best", "last")}


def test_each_file_holds_its_student(tmp_path):
    two = Two()
    run(tmp_path, two, ema=None)
    for name, student in two.students.items():
        saved = load_file(tmp_path / "weights" / f"{name}-last.safetensors")
        assert all(torch.equal(saved[key], value) for key, value in student.state_dict().items())
    one, other = (load_file(tmp_path / "weights" / f"{name}-last.safetensors") for name in ("one", "other"))
    assert not all(torch.equal(one[key], other[key]) for key in one)


def test_a_run_of_two_goes_on_bit_for_bit(tmp_path):
    whole = Two()
    run(tmp_path / "whole", whole)
    run(tmp_path / "cut", Two())
    settings = replace(SETTINGS, epochs=5, accumulate=1)
    for name in ("whole", "cut"):
        fabric = Fabric(accelerator="cpu", devices=1)
        fit(fabric, Two(), ToyLoader(images=12), settings, tmp_path / name, lambda _: {"ap": 0.5}, save_student, True)
    for file in ("one-last", "other-last"):
        first, second = (load_file(tmp_path / name / "weights" / f"{file}.safetensors") for name in ("whole", "cut"))
        assert all(torch.equal(first[key], second[key]) for key in first)


def test_patience_waits_for_the_better_of_both(tmp_path):
    result = run(tmp_path, Two(), scores=[0.5, 0.5, 0.4, 0.6, 0.3, 0.5], patience=1)
    assert len(result.rows) == 3
    assert len(run(tmp_path / "b", Two(), scores=[0.5, 0.5, 0.4, 0.4], patience=1).rows) == 2


def test_the_objective_is_told_how_much_is_done(tmp_path):
    two = Two()
    run(tmp_path, two)
    assert two.times == [(pytest.approx(step / 3), step) for step in range(1, 10)]


def test_the_backbones_of_all_learn_at_their_own_rate():
    two = Two()
    groups = SGD(lr=0.2, backbone_lr=0.1).build(two).param_groups
    slow = {id(p) for group in groups if group["initial_lr"] == pytest.approx(0.02) for p in group["params"]}
    assert slow == {id(p) for net in two.students.values() for p in net.backbone.parameters()}


def test_what_is_no_objective_is_told_what_it_lacks(tmp_path):
    class Bare(nn.Module):
        monitor = {}

    with pytest.raises(TypeError, match=r"Bare is no ladle.engine.Objective: it lacks students, distilled, set_time"):
        run(tmp_path, Bare())
