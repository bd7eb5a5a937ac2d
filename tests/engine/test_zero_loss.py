"""A run in which nobody is heard is stopped, and only such a run."""

from dataclasses import replace

import pytest
import torch
from lightning_fabric import Fabric

from ladle.engine import zero_loss
from ladle.engine.zero_loss import ZeroLossGuard
from ladle.errors import UserError
from ladle.types import GroundTruth, Term
from tests.engine.toy import SETTINGS, Toy, ToyLoader, save_student, score

LOUD, ZERO = {"ld": torch.tensor(0.3)}, {"ld": torch.tensor(0.0)}
FULL = GroundTruth.pad([torch.ones(1, 4)], [torch.zeros(1, dtype=torch.long)])
EMPTY = GroundTruth.pad([torch.zeros(0, 4)], [torch.zeros(0, dtype=torch.long)])


@pytest.fixture
def ear():
    return ZeroLossGuard(Fabric(accelerator="cpu", devices=1))


def listen(ear, values, truth=FULL, given=("ld",), steps=zero_loss.STEPS):
    for _ in range(steps):
        ear.note(values, given, truth)
    ear.check()


def test_a_term_that_is_never_heard_stops_the_run(ear):
    with pytest.raises(UserError, match=r"ld: expected a loss, but in the first 10 batches it was 0.*--method"):
        listen(ear, ZERO)


def test_one_word_is_enough(ear):
    listen(ear, LOUD, steps=1)
    listen(ear, ZERO)
    listen(ear, ZERO)


def test_too_few_batches_say_nothing_yet(ear):
    listen(ear, ZERO, steps=zero_loss.STEPS - 1)
    with pytest.raises(UserError):
        listen(ear, ZERO, steps=1)


def test_batches_without_objects_do_not_count(ear):
    listen(ear, ZERO, truth=EMPTY, steps=50)
    with pytest.raises(UserError):
        listen(ear, ZERO)


def test_terms_that_nobody_gave_may_be_nought(ear):
    listen(ear, ZERO, given=())


class Mute(Toy):
    """One of its terms comes from a teacher that teaches nothing."""

    distilled = frozenset({"feature"})

    def __init__(self, loud):
        super().__init__()
        self.loud = loud

    def forward(self, batch):
        terms = super().forward(batch)
        feature = terms["feature"]
        return terms | {"feature": Term(feature.total * self.loud, feature.count, feature.floor)}


@pytest.mark.parametrize("loud", [0.0, 1.0])
def test_the_loop_listens(tmp_path, loud):
    from ladle.engine import fit

    fabric = Fabric(accelerator="cpu", devices=1)
    settings = replace(SETTINGS, epochs=4, accumulate=1)
    run = (fabric, Mute(loud), ToyLoader(images=20), settings, tmp_path, score, save_student)
    if loud:
        assert len(fit(*run).rows) == 4
    else:
        with pytest.raises(UserError, match="feature"):
            fit(*run)
