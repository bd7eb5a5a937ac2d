import json
import re
from dataclasses import replace

import pytest
import torch
from lightning_fabric import Fabric
from safetensors.torch import load_file
from torch import nn

from ladle.engine import SGD, Cosine, fit
from ladle.errors import UserError
from ladle.types import Term

from .toy import SETTINGS, Toy, ToyLoader, read_rows, save_student, score, train


@pytest.fixture
def fabric():
    return Fabric(accelerator="cpu", devices=1)


def run(fabric, folder, settings=SETTINGS, loader=None, toy=None, evaluate=score, resume=False):
    loader = ToyLoader() if loader is None else loader  # an empty one is falsy
    return fit(fabric, toy or Toy(), loader, settings, folder, evaluate, save_student, resume)


def weights(folder, name="last"):
    return load_file(folder / "weights" / f"{name}.safetensors")


def equal(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def without_time(rows):
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


def test_training_lowers_the_loss_and_raises_the_score(fabric, tmp_path):
    result = run(fabric, tmp_path)
    assert result.rows[-1]["loss"] < 0.7 * result.rows[0]["loss"]
    assert result.rows[-1]["ap"] > result.rows[0]["ap"]
    assert result.best_ap["student"] == max(row["ap"] for row in result.rows)


def test_the_folder_holds_what_the_run_promises(fabric, tmp_path):
    result = run(fabric, tmp_path)
    files = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert files == {
        "metrics.jsonl",
        "results.csv",
        "resume.pt",
        "weights/best.safetensors",
        "weights/last.safetensors",
    }
    assert read_rows(tmp_path) == [{name: str(value) for name, value in row.items()} for row in result.rows]
    assert weights(tmp_path).keys() == Toy().student.state_dict().keys()


def test_each_step_is_logged_with_its_terms_and_monitors(fabric, tmp_path):
    run(fabric, tmp_path, replace(SETTINGS, epochs=1))
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["kind"] for line in lines] == ["step", "step", "epoch"]
    step = lines[0]
    assert step["loss"] == pytest.approx(step["loss/box"] + step["loss/feature"])
    assert {"lr", "positives_per_object", "gradient_norm", "images_per_second", "waiting_for_data"} <= step.keys()
    assert 0 < step["waiting_for_data"] < 1


def test_a_finished_run_resumes_to_the_same_result(fabric, tmp_path):
    result = run(fabric, tmp_path)
    again = run(fabric, tmp_path, resume=True)
    assert again == result


def test_a_finished_run_can_be_given_more_epochs(fabric, tmp_path):
    run(fabric, tmp_path)
    longer = run(fabric, tmp_path, replace(SETTINGS, epochs=6), resume=True)
    assert [row["epoch"] for row in longer.rows] == [1, 2, 3, 4, 5, 6]
    assert longer.rows[4]["lr"] > longer.rows[3]["lr"]


def test_the_same_seed_trains_the_same_weights_and_another_does_not(fabric, tmp_path):
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        train(fabric, tmp_path / name, replace(SETTINGS, epochs=1, seed=seed))
    assert equal(weights(tmp_path / "a"), weights(tmp_path / "b"))
    assert not equal(weights(tmp_path / "a"), weights(tmp_path / "c"))


def test_resuming_with_another_batch_is_refused(fabric, tmp_path):
    run(fabric, tmp_path)
    with pytest.raises(UserError, match=r"resume\.pt: expected 3 steps an epoch, found 2.*--batch"):
        run(fabric, tmp_path, loader=ToyLoader(batch=2), resume=True)


def test_resuming_another_model_is_refused(fabric, tmp_path):
    run(fabric, tmp_path)
    with pytest.raises(UserError, match="state of this student"):
        run(fabric, tmp_path, toy=Toy(norm=False), resume=True)


def test_resuming_without_the_average_is_refused(fabric, tmp_path):
    run(fabric, tmp_path)
    with pytest.raises(UserError, match="without a running average, found one with"):
        run(fabric, tmp_path, replace(SETTINGS, ema=None), resume=True)


def test_resuming_nothing_is_refused(fabric, tmp_path):
    with pytest.raises(UserError, match="without --resume"):
        run(fabric, tmp_path, resume=True)


def test_an_empty_loader_is_refused(fabric, tmp_path):
    with pytest.raises(UserError, match="--batch"):
        run(fabric, tmp_path, loader=ToyLoader(images=3))


def test_a_bad_image_is_named_before_it_spoils_the_weights(fabric, tmp_path):
    toy = Toy()
    toy.student.backbone[1] = nn.Identity()
    before = {}

    def remember(*_):
        before.update({name: value.clone() for name, value in toy.student.state_dict().items()})

    toy.register_forward_pre_hook(remember)
    with pytest.raises(UserError, match=r"bad_batch\.json.*loss"):
        run(fabric, tmp_path, replace(SETTINGS, accumulate=1), ToyLoader(poison=5), toy)
    report = json.loads((tmp_path / "bad_batch.json").read_text())
    assert 5 in report["ids"]
    assert len(report["ids"]) == 4
    assert report["epoch"] == 1
    assert report["losses"]["feature"] == "nan"
    assert equal(before, toy.student.state_dict())


def test_an_infinite_gradient_stops_the_run_before_the_step(fabric, tmp_path):
    toy = Toy()
    toy.student.head.weight.register_hook(lambda gradient: gradient * float("inf"))
    start = None

    def remember(*_):
        nonlocal start
        start = toy.student.head.weight.detach().clone()

    toy.register_forward_pre_hook(remember)
    with pytest.raises(UserError, match="gradient_norm is"):
        run(fabric, tmp_path, toy=toy)
    assert torch.equal(start, toy.student.head.weight)
    assert len(json.loads((tmp_path / "bad_batch.json").read_text())["ids"]) == 8


@pytest.mark.parametrize(
    ("aps", "patience", "best", "epochs"),
    [
        ([0.1, 0.3, 0.3, 0.2], None, 2, 4),
        ([0.3, 0.2, 0.1, 0.4], 2, 1, 3),
        ([float("nan"), 0.0, float("nan"), 0.0], None, 2, 4),
        ([float("nan")] * 4, 1, 4, 4),
        ([float("nan"), float("nan"), 0.2, 0.1], 1, 3, 4),
    ],
)
def test_the_earliest_of_the_best_is_kept_and_patience_ends_the_run(fabric, tmp_path, aps, patience, best, epochs):
    seen = []

    def evaluate(module):
        seen.append({name: value.clone() for name, value in module.state_dict().items()})
        return {"ap": aps[len(seen) - 1]}

    result = run(fabric, tmp_path, replace(SETTINGS, patience=patience), evaluate=evaluate)
    assert (result.best_epoch["student"], len(result.rows)) == (best, epochs)
    assert equal(weights(tmp_path, "best"), seen[best - 1])
    assert equal(weights(tmp_path, "last"), seen[-1])


@pytest.mark.parametrize(
    ("every", "patience", "aps", "epochs"),
    [
        (3, 2, [0.3, 0.2, 0.4], 6),
        (3, 4, [0.3, 0.2, 0.1, 0.4], 9),
        (2, 1, [0.1, 0.2, 0.3, 0.3], 8),
        (9, 1, [0.1], 10),
    ],
)
def test_patience_is_measured_where_an_evaluation_is_due(fabric, tmp_path, every, patience, aps, epochs):
    """A run does not stop before it is evaluated a second time, and never in an epoch without an evaluation."""
    scores = iter([*aps, 0.0])
    settings = replace(SETTINGS, epochs=10, eval_every=every, patience=patience)
    result = run(fabric, tmp_path, settings, evaluate=lambda _: {"ap": next(scores)})
    assert len(result.rows) == epochs
    assert "ap" in result.rows[-1]


def test_a_run_that_was_stopped_before_its_first_evaluation_is_evaluated_if_no_epoch_is_left(fabric, tmp_path):
    settings = replace(SETTINGS, epochs=3, eval_every=100)
    run(fabric, tmp_path, replace(settings, epochs=2), evaluate=None)
    assert not (tmp_path / "weights" / "best.safetensors").exists()
    result = run(fabric, tmp_path, replace(settings, epochs=2), evaluate=lambda _: {"ap": 0.25}, resume=True)
    assert (result.best_ap, result.best_epoch, result.rows[-1]["ap"]) == ({"student": 0.25}, {"student": 2}, 0.25)
    assert equal(weights(tmp_path, "best"), weights(tmp_path, "last"))
    again = run(fabric, tmp_path, replace(settings, epochs=2), evaluate=lambda _: {"ap": 0.9}, resume=True)
    assert again.best_ap == {"student": 0.25}


def test_a_run_stopped_early_stays_stopped_when_resumed_and_says_so(fabric, tmp_path, capsys):
    settings = replace(SETTINGS, patience=1, quiet=False)
    first = run(fabric, tmp_path, settings, evaluate=lambda _: {"ap": 0.5})
    assert len(first.rows) == 2
    capsys.readouterr()
    assert run(fabric, tmp_path, settings, evaluate=lambda _: {"ap": 0.9}, resume=True) == first
    said = "stopped early: no AP above that of epoch 1; resume it with more --patience to go on\n"
    assert capsys.readouterr().out == said


def test_evaluation_comes_every_so_often_and_at_the_end(fabric, tmp_path):
    result = run(fabric, tmp_path, replace(SETTINGS, epochs=5, eval_every=2))
    assert [row["epoch"] for row in result.rows if "ap" in row] == [2, 4, 5]
    assert [row["ap"] for row in read_rows(tmp_path)][::2][:2] == ["", ""]


def test_without_evaluation_the_last_weights_are_kept(fabric, tmp_path):
    result = run(fabric, tmp_path, evaluate=None)
    assert (result.best_ap, result.best_epoch, result.metrics) == ({}, {}, {})
    assert [path.name for path in (tmp_path / "weights").iterdir()] == ["last.safetensors"]


def test_the_average_is_what_is_evaluated_and_saved(fabric, tmp_path):
    toy, seen = Toy(), []
    run(fabric, tmp_path, toy=toy, evaluate=lambda module: seen.append(module) or {"ap": 0.5})
    assert seen[-1] is not toy.student
    assert equal(weights(tmp_path), seen[-1].state_dict())
    run(
        fabric, tmp_path, replace(SETTINGS, ema=None), toy=toy, evaluate=lambda module: seen.append(module) or {"ap": 1}
    )
    assert seen[-1] is toy.student


def test_accumulated_batches_step_like_one_large_batch(fabric, tmp_path):
    class Even(Toy):
        def forward(self, batch):
            return {"feature": super().forward(batch)["feature"]}

    plain = replace(SETTINGS, ema=None, clip=None, schedule=Cosine(warmup=0))
    small, large = (ToyLoader(batch=batch, jitter=False) for batch in (3, 6))
    run(fabric, tmp_path / "two", replace(plain, accumulate=2), small, Even(norm=False))
    run(fabric, tmp_path / "one", replace(plain, accumulate=1), large, Even(norm=False))
    two, one = weights(tmp_path / "two"), weights(tmp_path / "one")
    assert all(torch.allclose(two[name], one[name], atol=1e-6) for name in one)


def test_a_last_window_with_fewer_batches_is_averaged_over_those(fabric, tmp_path):
    rows = run(fabric, tmp_path, replace(SETTINGS, epochs=1), ToyLoader(images=20)).rows
    assert rows[0]["step"] == 3


def test_clipping_bounds_the_step(fabric, tmp_path):
    still, clip = SGD(lr=1.0, momentum=0.0, weight_decay=0.0), 1e-3
    settings = replace(SETTINGS, epochs=1, optimizer=still, clip=clip, ema=None, schedule=Cosine(warmup=0, final=1.0))
    toy = Toy()
    start = nn.utils.parameters_to_vector(toy.parameters()).detach()
    run(fabric, tmp_path, settings, toy=toy)
    moved = (nn.utils.parameters_to_vector(toy.parameters()) - start).norm().item()
    assert 0 < moved <= 2 * clip * 1.001


def test_bf16_reaches_the_objective_and_leaves_the_weights_in_float32(fabric, tmp_path):
    kinds = set()

    class Half(Toy):
        def forward(self, batch):
            kinds.add(self.student(batch.images).dtype)
            return super().forward(batch)

    run(fabric, tmp_path, replace(SETTINGS, epochs=1, precision="bf16"), toy=Half())
    assert kinds == {torch.bfloat16}
    assert {value.dtype for value in weights(tmp_path).values() if value.is_floating_point()} == {torch.float32}


def test_the_teacher_is_neither_moved_nor_saved(fabric, tmp_path):
    toy = Toy()
    before = {name: value.clone() for name, value in toy.teacher[0].state_dict().items()}
    run(fabric, tmp_path, toy=toy)
    assert equal(before, toy.teacher[0].state_dict())
    assert not any("teacher" in name for name in weights(tmp_path))


def test_terms_may_come_and_go_on_the_way(fabric, tmp_path):
    class Late(Toy):
        steps = 0

        def forward(self, batch):
            self.steps += 1
            terms: dict[str, Term] = super().forward(batch)
            return terms if self.steps > 2 else {"box": terms["box"]}

    rows = run(fabric, tmp_path, replace(SETTINGS, epochs=1, log_every=100), toy=Late()).rows
    assert rows[0]["loss"] == pytest.approx(rows[0]["loss/box"] + rows[0]["loss/feature"] / 3)


def test_a_score_without_ap_is_refused(fabric, tmp_path):
    with pytest.raises(ValueError, match='"ap"'):
        run(fabric, tmp_path, evaluate=lambda _: {"map": 0.5})


def test_progress_is_printed_unless_quiet(fabric, tmp_path, capsys):
    run(fabric, tmp_path / "quiet", replace(SETTINGS, epochs=1))
    assert capsys.readouterr().out == ""
    run(fabric, tmp_path / "loud", replace(SETTINGS, epochs=1, quiet=False))
    out = capsys.readouterr().out
    assert "positives_per_object" in out
    assert "ETA 0:00:0" in out
    assert re.search(r"images/s  \d+% waiting for data  lr", out)
    assert "epoch 1/1" in out.splitlines()[-1]


@pytest.mark.parametrize(
    "change", [{"epochs": 0}, {"accumulate": 0}, {"patience": 0}, {"ema": 1.0}, {"clip": 0.0}, {"log_every": 0}]
)
def test_settings_that_make_no_sense_are_refused(change):
    with pytest.raises(UserError, match=f"--{next(iter(change)).replace('_', '-')} .*: expected a"):
        replace(SETTINGS, **change)
