import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import pytest
import torch
from lightning_fabric import Fabric
from safetensors.torch import load_file

from ladle.children import free_port
from ladle.engine import AdamW, Nodes, fit, launch, launch_on_nodes, this_node
from ladle.engine.nodes import Node
from ladle.errors import UserError

from .toy import SETTINGS, Toy, ToyLoader, read_rows, save_student, score

SAME = ("epoch", "step", "lr", "loss", "loss/box", "loss/feature", "gradient_norm", "ap")


class Taught(Toy):
    """The toy whose term ``feature`` is a distiller's, for Adam, which tells two sums of gradients apart."""

    distilled = frozenset({"feature"})


def train_ranks(fabric: Fabric, folder, dropout=0.0, resume=False, balance="none", toy=Toy, **loading):
    loader = ToyLoader(images=20, rank=fabric.global_rank, ranks=fabric.world_size, **loading)
    settings = replace(SETTINGS, log_every=2, balance=balance, balance_share=0.02 if balance == "norm" else 1.0)
    settings = replace(settings, optimizer=AdamW(lr=0.01)) if toy is Taught else settings
    return fit(fabric, toy(dropout, norm=False), loader, settings, folder, score, save_student, resume)


def train_seven_times(fabric: Fabric, folder):
    """All that needs two processes in one launch, for starting them is what takes time; the last run fails."""
    train_ranks(fabric, folder / "two", jitter=False)
    for balance in ("moments", "norm"):
        train_ranks(fabric, folder / balance, jitter=False, balance=balance, toy=Taught)
    train_ranks(fabric, folder / "untaught", jitter=False, balance="moments")
    train_ranks(fabric, folder / "whole", dropout=0.2)
    with pytest.raises(InterruptedError):
        train_ranks(fabric, folder / "broken", dropout=0.2, breaks_in=2)
    train_ranks(fabric, folder / "broken", dropout=0.2, resume=True)
    train_ranks(fabric, folder / "poisoned", jitter=False, poison=7)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The folder of the runs of two processes, and what the last one raised."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.raises(UserError) as error:
        launch(2, "cpu", train_seven_times, folder)
    return folder, str(error.value)


def weights(folder):
    return load_file(folder / "weights" / "last.safetensors")


@pytest.mark.slow
def test_two_processes_train_like_one_with_the_whole_batch(runs, tmp_path):
    folder, _ = runs
    one = launch(1, "cpu", train_ranks, tmp_path, jitter=False)
    for alone, together in zip(one.rows, read_rows(folder / "two"), strict=True):
        assert [float(together[name]) for name in SAME] == pytest.approx([alone[name] for name in SAME], rel=1e-4)
    expected, found = weights(tmp_path), weights(folder / "two")
    assert all(torch.allclose(found[name], expected[name], atol=1e-5) for name in expected)


@pytest.mark.slow
@pytest.mark.parametrize("balance", ["moments", "norm"])
def test_what_is_distilled_is_balanced_over_all_processes_together(runs, tmp_path, balance):
    folder, _ = runs
    launch(1, "cpu", train_ranks, tmp_path, jitter=False, balance=balance, toy=Taught)
    expected, found = weights(tmp_path), weights(folder / balance)
    assert all(torch.allclose(found[name], expected[name], atol=1e-5) for name in expected)
    other = weights(folder / ("norm" if balance == "moments" else "moments"))
    assert not all(torch.allclose(found[name], other[name], atol=1e-3) for name in expected)


@pytest.mark.slow
def test_where_nothing_is_distilled_two_processes_train_bit_for_bit_as_ever(runs):
    folder, _ = runs
    expected, found = weights(folder / "two"), weights(folder / "untaught")
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.slow
def test_every_rank_resumes_with_its_own_random_numbers(runs):
    folder, _ = runs
    expected, found = weights(folder / "whole"), weights(folder / "broken")
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    whole, broken = (read_rows(folder / name) for name in ("whole", "broken"))
    assert [row | {"seconds": ""} for row in broken] == [row | {"seconds": ""} for row in whole]


@pytest.mark.slow
def test_a_mistake_in_a_spawned_process_stays_one_sentence(runs):
    _, sentence = runs
    assert "bad_batch.json: expected finite losses" in sentence
    assert "\n" not in sentence
    assert "Traceback" not in sentence


@pytest.mark.slow
def test_a_bad_batch_names_the_images_of_every_rank(runs):
    folder, _ = runs
    ids = json.loads((folder / "poisoned" / "bad_batch.json").read_text())["ids"]
    assert 7 in ids
    assert len(ids) == 4


@dataclass(frozen=True)
class Sealed:
    value: torch.Tensor


def answer(fabric: Fabric, value: int) -> Sealed:
    return Sealed(torch.tensor(value * fabric.world_size))


def test_one_device_runs_in_this_process_and_may_return_anything():
    assert launch(1, "cpu", answer, 4).value.item() == 4


def test_no_device_is_refused():
    with pytest.raises(UserError, match="at least one device"):
        launch(0, "cpu", answer, 4)


def test_a_missing_gpu_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="--device cpu"):
        launch(1, "cuda", answer, 4)


@pytest.mark.slow
def test_two_nodes_of_one_process_train_like_two_processes_of_one_node(runs, tmp_path):
    folder, _ = runs
    first, second = (Node(rank, 2, "127.0.0.1", port) for port in [free_port()] for rank in (0, 1))
    with ThreadPoolExecutor(1) as pool:
        nodes = Nodes(first)
        other = pool.submit(lambda: Nodes(second).serve(1))
        result = launch_on_nodes(nodes, 1, "cpu", train_ranks, tmp_path, jitter=False)
        nodes.finish(result.best_epoch)
        assert other.result() == result.best_epoch
    expected, found = weights(folder / "two"), weights(tmp_path)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert read_rows(tmp_path)[-1] | {"seconds": ""} == read_rows(folder / "two")[-1] | {"seconds": ""}


def test_a_node_ends_with_an_error_of_the_first_one():
    first, second = (Node(rank, 2, "127.0.0.1", port) for port in [free_port()] for rank in (0, 1))
    with ThreadPoolExecutor(1) as pool:
        nodes = Nodes(first)
        other = pool.submit(lambda: Nodes(second).serve(1))
        nodes.finish(UserError("no objects to learn"))
        with pytest.raises(UserError, match="no objects to learn"):
            other.result()


TORCHRUN = {"TORCHELASTIC_RUN_ID": "x", "GROUP_RANK": "1", "MASTER_ADDR": "a", "MASTER_PORT": "7"}
SLURM = {"SLURM_NODEID": "1", "SLURM_NODELIST": "gpu[5-6]"}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        (TORCHRUN, Node(1, 2, "a", 8)),
        (SLURM, Node(1, 2, "gpu5", 29400)),
        (SLURM | {"MASTER_ADDR": "b", "MASTER_PORT": "9"}, Node(1, 2, "b", 9)),
        ({"NODE_RANK": "0", "MASTER_ADDR": "c"}, Node(0, 2, "c", 29400)),
    ],
)
def test_a_node_knows_its_place_from_the_launcher(environment, expected):
    assert this_node(2, environment) == expected


@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        ({}, "expected a command started by srun or torchrun on each node"),
        ({"NODE_RANK": "2", "MASTER_ADDR": "c"}, "found NODE_RANK 2"),
        (TORCHRUN | {"LOCAL_WORLD_SIZE": "8"}, "found 8: give --nproc-per-node 1 to torchrun"),
    ],
)
def test_a_place_that_is_none_is_refused(environment, sentence):
    with pytest.raises(UserError, match=sentence):
        this_node(2, environment)
