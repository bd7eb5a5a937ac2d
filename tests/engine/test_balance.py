"""What is distilled moves the layers it shares with detection by steps of its own; all else stays exactly as it is."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from safetensors.torch import load_file
from torch import nn

from ladle.engine import SGD, AdamW, Cosine, Settings, fit, weighing
from ladle.engine.balance import Balancer
from ladle.engine.weighing import GradientWeight
from ladle.errors import UserError
from tests.engine.toy import SETTINGS, Toy, ToyLoader, make_batch, save_student, score

ADAM = AdamW(lr=0.01, weight_decay=0.1)
STILL = Cosine(warmup=0, final=1.0)
PLAIN = Settings(epochs=2, optimizer=ADAM, schedule=STILL, clip=None, quiet=True)


class Taught(Toy):
    """The toy whose term ``feature`` is a distiller's."""

    distilled = frozenset({"feature"})


class Untaught(Toy):
    """The toy without its second term, as if nobody taught it."""

    def forward(self, batch):
        return {"box": super().forward(batch)["box"]}


def run(folder, settings, toy=None, loader=None, resume=False):
    """The state that is left. Loaders draw nothing: in tests the checks of shapes take of Python's random numbers."""
    fabric = Fabric(accelerator="cpu", devices=1)
    toy, loader = toy or Taught(dropout=0.2), loader or ToyLoader(images=12, batch=3, jitter=False)
    fit(fabric, toy, loader, settings, folder, score, save_student, resume)
    return toy.state_dict()


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("balance", ["moments", "norm"])
def test_without_a_distiller_it_is_exactly_plain_training(tmp_path, balance):
    found = run(tmp_path / "balanced", replace(SETTINGS, balance=balance), Untaught(dropout=0.2))
    assert same(found, run(tmp_path / "plain", SETTINGS, Untaught(dropout=0.2)))


def test_with_a_distiller_each_way_is_another(tmp_path):
    found = [run(tmp_path / name, replace(SETTINGS, balance=name)) for name in ("none", "moments", "norm")]
    found.append(run(tmp_path / "half", replace(SETTINGS, balance="moments", balance_share=0.5)))
    assert not any(same(one, other) for at, one in enumerate(found) for other in found[at + 1 :])


# ------------------------------------------------------------------------------ the rules written out, in float64


class Adam:
    """Adam's step for one array, from Kingma & Ba (2015), algorithm 1."""

    def __init__(self):
        self.mean = self.square = 0.0
        self.steps = 0

    def __call__(self, gradient, rate):
        self.steps += 1
        self.mean = 0.9 * self.mean + 0.1 * gradient
        self.square = 0.999 * self.square + 0.001 * gradient**2
        mean, square = self.mean / (1 - 0.9**self.steps), self.square / (1 - 0.999**self.steps)
        return rate * mean / (np.sqrt(square) + 1e-8)


def gradients(toy, weights, ids):
    """Of both losses of a batch, in float64, by name."""
    toy.load_state_dict(weights)
    terms = toy(batch64(ids))
    losses = [term.total / torch.maximum(term.count, term.floor) for term in (terms["box"], terms["feature"])]
    named = dict(toy.named_parameters())
    for loss in losses:
        found = torch.autograd.grad(loss, list(named.values()), retain_graph=True, allow_unused=True)
        yield {name: 0.0 if g is None else g.numpy() for name, g in zip(named, found, strict=True)}


def batch64(ids):
    batch = make_batch(ids)
    return replace(batch, images=batch.images.double())


def shared(name):
    return name.startswith("student.backbone")


def size(values):
    return np.sqrt(sum(float((value**2).sum()) for name, value in values.items() if shared(name)))


def moved(kind, share=1.0, steps=4, clip=None):
    """The toy's weights after some steps of the rule ``kind``."""
    toy = Taught(norm=False).double()
    toy.teacher[0].double()
    weights = {name: value.clone() for name, value in toy.state_dict().items()}
    names = [name for name, _ in toy.named_parameters()]
    own, theirs = ({name: Adam() for name in names} for _ in range(2))
    for ids in batches(steps):
        detection, distilled = gradients(toy, weights, ids)
        factor = 1.0
        if kind == "norm":
            factor = min(1.0, share * size(detection) / size(distilled))
        elif clip is not None:
            factor = min(1.0, clip / (size(distilled) + 1e-6))
        joined = {}
        for name in names:
            apart = kind == "moments" and shared(name)
            joined[name] = detection[name] + (0 if apart else (factor if shared(name) else 1.0) * distilled[name])
        whole = np.sqrt(sum(float((value**2).sum()) for value in joined.values()))
        cut = min(1.0, clip / (whole + 1e-6)) if clip is not None else 1.0
        for name in names:
            value = weights[name].numpy()
            decay = 0.0 if name.endswith("bias") else 0.01 * 0.1
            step = value * decay + own[name](cut * joined[name], 0.01)
            if kind == "moments" and shared(name):
                step = step + theirs[name](factor * distilled[name], 0.01 * share)
            weights[name] = torch.from_numpy(value - step)
    return weights


def weighed(share, every, steps=4):
    """The toy's weights after some steps of plain gradient descent in float64 with a weight that follows the norms."""
    toy = Taught(norm=False).double()
    toy.teacher[0].double()
    weights = {name: value.clone() for name, value in toy.state_dict().items()}
    factor, others, mine, used = 1.0, 0.0, 0.0, []
    for number, ids in enumerate(batches(steps), start=1):
        detection, distilled = gradients(toy, weights, ids)
        used.append(factor)
        others, mine = others + size(detection), mine + factor * size(distilled)
        for name, _ in toy.named_parameters():
            weights[name] = weights[name] - 0.01 * torch.as_tensor(detection[name] + factor * distilled[name])
        if number % every == 0:
            factor, others, mine = factor * min(10, max(0.1, share * others / mine)), 0.0, 0.0
    return weights, used


class Fixed(ToyLoader):
    """The batches of :func:`batches`, the same in every epoch."""

    def __iter__(self):
        return iter([make_batch(ids) for ids in batches(len(self))])


def batches(steps):
    return [[3 * number + at for at in range(3)] for number in range(steps)]


@pytest.mark.parametrize("clip", [None, 0.05])
@pytest.mark.parametrize(("kind", "share"), [("moments", 1.0), ("moments", 0.25), ("norm", 0.1), ("norm", 0.02)])
def test_weights_move_as_the_rule_says(tmp_path, kind, share, clip):
    settings = replace(PLAIN, epochs=1, balance=kind, balance_share=share, clip=clip)
    found = run(tmp_path, settings, Taught(norm=False), Fixed(images=12, batch=3))
    expected, plain = moved(kind, share, clip=clip), moved("none", clip=clip)
    for name, value in expected.items():
        torch.testing.assert_close(found[name].double(), value, rtol=1e-3, atol=1e-5)
    assert max(float((expected[name] - plain[name]).abs().max()) for name in expected) > 1e-4


@pytest.mark.parametrize("share", [0.5, 1e-6])
def test_a_weight_follows_the_ratio_of_gradient_norms(tmp_path, monkeypatch, share):
    monkeypatch.setattr(weighing, "EVERY", 2)
    still = SGD(lr=0.01, momentum=0.0, weight_decay=0.0)
    settings = replace(PLAIN, epochs=1, optimizer=still, weighed=("feature",), balance_share=share, log_every=1)
    found = run(tmp_path, settings, Taught(norm=False), Fixed(images=12, batch=3))
    expected, used = weighed(share, every=2)
    assert used[:2] == [1.0, 1.0]
    assert used[2] != 1.0, "the factor that is tested is none"
    for name, value in expected.items():
        torch.testing.assert_close(found[name].double(), value, rtol=1e-4, atol=1e-6)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["distilled_weight"] for line in lines if "epoch_seconds" not in line][:4] == pytest.approx(
        used, rel=1e-4
    )


def test_the_weight_reaches_its_target_and_stays_there():
    weight = GradientWeight(0.25, torch.device("cpu"))
    values = []
    for _ in range(4 * weighing.EVERY):
        weight.note(torch.tensor(8.0), weight.value * 0.05)
        values.append(float(weight.value))
    assert values[weighing.EVERY - 2] == 1.0
    assert values[weighing.EVERY :: weighing.EVERY] == pytest.approx([10.0, 40.0, 40.0]), "at most ten times at once"


def test_a_weight_of_nothing_stays():
    weight = GradientWeight(1.0, torch.device("cpu"))
    for _ in range(weighing.EVERY):
        weight.note(torch.tensor(3.0), torch.tensor(0.0))
    assert float(weight.value) == 1.0


# ------------------------------------------------------------------------------------------------ windows and resume


@pytest.mark.parametrize("balance", ["moments", "norm"])
def test_accumulated_batches_step_like_one_large_batch(tmp_path, balance):
    class Even(Taught):
        """Both terms are means over images, so that halves of a batch average to the whole."""

        def forward(self, batch):
            terms = super().forward(batch)
            maps = self.student(batch.images)
            return {"box": terms["feature"]._replace(total=maps.square().mean() * len(batch.ids))} | {
                "feature": terms["feature"]
            }

    settings = replace(PLAIN, balance=balance, balance_share=0.5)
    small, large = (ToyLoader(batch=size, jitter=False) for size in (3, 6))
    two = run(tmp_path / "two", replace(settings, accumulate=2), Even(norm=False), small)
    one = run(tmp_path / "one", settings, Even(norm=False), large)
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("balance", "optimizer"), [("moments", ADAM), ("moments", SGD(lr=0.05)), ("norm", ADAM)])
def test_a_stopped_run_goes_on_bit_for_bit(tmp_path, balance, optimizer):
    settings = replace(SETTINGS, optimizer=optimizer, balance=balance, epochs=4)
    whole = run(tmp_path / "whole", settings)
    with pytest.raises(InterruptedError):
        run(tmp_path / "cut", settings, loader=ToyLoader(images=12, batch=3, jitter=False, breaks_in=2))
    assert same(whole, run(tmp_path / "cut", settings, resume=True))
    kept = [load_file(tmp_path / name / "weights" / "last.safetensors") for name in ("whole", "cut")]
    assert same(*kept)


def test_a_stopped_run_goes_on_with_its_weight(tmp_path, monkeypatch):
    monkeypatch.setattr(weighing, "EVERY", 3)  # 4 steps an epoch: it is stopped between two changes
    settings = replace(SETTINGS, weighed=("feature",), epochs=3)
    whole = run(tmp_path / "whole", settings)
    with pytest.raises(InterruptedError):
        run(tmp_path / "cut", settings, loader=ToyLoader(images=12, batch=3, jitter=False, breaks_in=2))
    assert same(whole, run(tmp_path / "cut", settings, resume=True))
    with pytest.raises(UserError, match="resume with"):
        run(tmp_path / "cut", replace(settings, weighed=(), balance="norm", epochs=4), resume=True)


def test_a_run_goes_on_only_with_the_balance_it_began_with(tmp_path):
    settings = replace(SETTINGS, epochs=1)
    for began, goes_on in (("none", "moments"), ("moments", "none"), ("moments", "norm")):
        folder = tmp_path / f"{began}-{goes_on}"
        run(folder, replace(settings, balance=began))
        with pytest.raises(UserError, match="resume with"):
            run(folder, replace(settings, balance=goes_on, epochs=2), resume=True)


def test_a_distiller_that_has_ended_leaves_plain_training(tmp_path):
    """Its moments move nothing any more, and each step is that of detection alone."""

    class Ending(Taught):
        over = False

        def set_time(self, epoch, step):
            self.over = epoch > 1

        @property
        def distilled(self):
            return frozenset() if self.over else frozenset({"feature"})

        def forward(self, batch):
            terms = super().forward(batch)
            return {name: term for name, term in terms.items() if name == "box" or name in self.distilled}

    settings = replace(PLAIN, balance="moments", optimizer=SGD(lr=0.05, momentum=0.0), epochs=1)
    run(tmp_path, settings, Ending(norm=False))
    halfway = load_file(tmp_path / "weights" / "last.safetensors")
    toy = Untaught(norm=False)
    toy.student.load_state_dict(halfway)
    batches = iter(ToyLoader(images=12, batch=3, jitter=False, epoch=1))
    step = torch.optim.SGD(toy.parameters(), lr=0.05, weight_decay=1e-4)
    for batch in batches:
        step.zero_grad()
        (term,) = toy(batch).values()
        (term.total / torch.maximum(term.count, term.floor)).backward()
        step.step()
    goes_on = run(tmp_path, replace(settings, epochs=2), Ending(norm=False), resume=True)
    for name, value in toy.student.state_dict().items():
        torch.testing.assert_close(goes_on[f"student.{name}"], value)


def test_what_cannot_be_balanced_is_refused():
    with pytest.raises(ValueError, match="nothing to balance"):
        Balancer(nn.Linear(2, 2), ADAM, "moments", 1.0)
    with pytest.raises(UserError, match="--balance-share 0"):
        replace(PLAIN, balance_share=0.0)
