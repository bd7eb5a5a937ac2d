"""A small part of the campaign of odd command lines, in this process."""

import random
from itertools import islice
from pathlib import Path

import pytest

import ladle.engine
from ladle.cli.main import main
from tests.fuzz.command_lines import GARBAGE, lines, make_place, no_training

SLOW = ("demo", "val", "predict", "assign", "teacher")
"""What these do is tried elsewhere; here it would take its time."""


@pytest.fixture
def place(tmp_path, monkeypatch):
    make_place(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ladle.engine, "one_process", lambda *_: None)
    monkeypatch.setattr(ladle.engine, "launch", no_training)


@pytest.mark.slow
@pytest.mark.usefixtures("place")
def test_odd_command_lines_are_answered_in_a_sentence(capsys):
    rng, codes = random.Random(5), []
    for line in islice((line for line in lines(rng) if line[0] not in SLOW), 60):
        Path("garbage.yaml").write_bytes(rng.choice(GARBAGE))
        codes.append(main(line))
        said = capsys.readouterr().err
        assert codes[-1] in (0, 2), line
        assert said.count("\n") == (codes[-1] == 2), (line, said)
        assert "Traceback" not in said, line
    assert 0 < codes.count(0) < 30
