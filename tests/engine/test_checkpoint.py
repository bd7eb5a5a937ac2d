import pytest
import torch

from ladle.engine.checkpoint import Checkpoint, TrainState, load_checkpoint, save_checkpoint
from ladle.engine.randomness import random_state, restore_random_state, seed_everything
from ladle.errors import UserError

from .toy import Toy

CPU = torch.device("cpu")


def checkpoint_of(toy):
    optimizer = torch.optim.AdamW(toy.parameters())
    toy.student(torch.rand(2, 3, 8, 8)).sum().backward()
    optimizer.step()
    state = TrainState(3, 30, {"student": float("nan")}, {"student": 2}, rows=({"epoch": 1, "loss": 0.5},))
    return Checkpoint(state, 10, toy.state_dict(), optimizer.state_dict(), None, [random_state(CPU)])


def test_a_checkpoint_comes_back_as_it_was(tmp_path):
    saved = checkpoint_of(Toy())
    save_checkpoint(saved, tmp_path / "resume.pt")
    loaded = load_checkpoint(tmp_path / "resume.pt")
    assert str(loaded.state) == str(saved.state)
    assert loaded.objective.keys() == saved.objective.keys()
    assert all(torch.equal(loaded.objective[name], saved.objective[name]) for name in saved.objective)
    assert str(loaded.optimizer) == str(saved.optimizer)


def test_the_file_holds_no_pickled_code_and_no_teacher(tmp_path):
    save_checkpoint(checkpoint_of(Toy()), tmp_path / "resume.pt")
    state = torch.load(tmp_path / "resume.pt", weights_only=True)
    assert not any("teacher" in name for name in state["objective"])
    assert any(name.startswith("adapter.") for name in state["objective"])


def test_random_states_survive_the_file(tmp_path):
    import random

    import numpy as np

    def draw():
        return torch.rand(3).tolist(), np.random.rand(3).tolist(), np.random.normal(), random.random()

    seed_everything(5)
    np.random.normal()  # leaves the second half of a pair behind, which is state too
    torch.save(random_state(CPU), tmp_path / "state.pt")
    drawn = draw()
    restore_random_state(torch.load(tmp_path / "state.pt", weights_only=True), CPU)
    assert draw() == drawn


def test_a_missing_resume_file_is_a_sentence(tmp_path):
    with pytest.raises(UserError, match=r"resume\.pt: no such file.*without --resume"):
        load_checkpoint(tmp_path / "resume.pt")


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04torn"])
def test_a_damaged_resume_file_is_a_sentence(tmp_path, content):
    (tmp_path / "resume.pt").write_bytes(content)
    with pytest.raises(UserError, match=r"resume\.pt: expected the resume file"):
        load_checkpoint(tmp_path / "resume.pt")


@pytest.mark.parametrize("state", [{"weights": torch.ones(2)}, {"state": {"age": 3}}, [1, 2]])
def test_another_torch_file_is_not_taken_for_a_resume_file(tmp_path, state):
    torch.save(state, tmp_path / "resume.pt")
    with pytest.raises(UserError, match="expected the resume file"):
        load_checkpoint(tmp_path / "resume.pt")
