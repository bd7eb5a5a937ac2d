import pytest
import torch
from lightning_fabric import Fabric

from ladle.engine import normalize
from ladle.types import Term


@pytest.fixture(scope="module")
def fabric():
    return Fabric(accelerator="cpu", devices=1)


def term(total, count, floor):
    return Term(torch.as_tensor(total), torch.tensor(count), torch.tensor(floor))


def test_a_term_is_divided_by_its_count_or_its_floor(fabric):
    loss, losses = normalize({"many": term(6.0, 3.0, 1.0), "few": term(6.0, 0.5, 2.0)}, fabric)
    assert {name: value.item() for name, value in losses.items()} == {"many": 2, "few": 3}
    assert loss.item() == 5


def test_a_zero_denominator_gives_zero_and_a_zero_gradient(fabric):
    total = torch.tensor(3.0, requires_grad=True)
    loss, losses = normalize({"none": Term(total, torch.tensor(0.0), torch.tensor(0.0))}, fabric)
    loss.backward()
    assert (loss.item(), losses["none"].item(), total.grad.item()) == (0, 0, 0)


def test_the_gradient_is_that_of_the_quotient_and_counts_get_none(fabric):
    total, count = torch.tensor(3.0, requires_grad=True), torch.tensor(4.0, requires_grad=True)
    loss, losses = normalize({"one": Term(total, count, torch.tensor(1.0))}, fabric)
    loss.backward()
    assert total.grad.item() == 0.25
    assert count.grad is None
    assert not losses["one"].requires_grad


def test_totals_in_half_precision_are_divided_in_full(fabric):
    half = Term(*(torch.tensor(value, dtype=torch.bfloat16) for value in (1.0, 3.0, 1.0)))
    loss, losses = normalize({"half": half}, fabric)
    assert loss.dtype == losses["half"].dtype == torch.float32
    assert loss.item() == pytest.approx(1 / 3, rel=1e-6)
