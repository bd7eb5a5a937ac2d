"""A small part of the campaign of damaged run folders, without training; and what the sentences say."""

import json
import random
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from ladle import engine
from ladle.cli.main import main
from ladle.recipes import train
from tests.fuzz.run_folders import damage
from tests.recipes.tiny import RUN, make_data

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    return train(make_data(folder / "data"), "paa-tiny", replace(RUN, name="one", project=str(folder))).folder


@pytest.fixture
def run(whole, tmp_path):
    return Path(shutil.copytree(whole, tmp_path / "run"))


@pytest.fixture
def resume(monkeypatch, capsys):
    """Resume up to the training itself; the sentence of a refusal, or None."""
    monkeypatch.setattr(engine, "one_process", lambda *_: None)
    monkeypatch.setattr(engine, "launch", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))

    def resume(run):
        code = main(["train", "--resume", str(run)])
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        assert "Traceback" not in said
        assert len(said) < 1000
        assert code == (130 if said.startswith("stopped") else 2)
        return None if code == 130 else said

    return resume


@pytest.mark.slow
@pytest.mark.parametrize("file", ["config.yaml", "data.json", "resume.pt"])
def test_a_damaged_file_is_told_of_in_a_sentence_or_does_not_matter(whole, tmp_path, resume, file):
    refused = []
    for number in range(12):
        run = shutil.copytree(whole, tmp_path / str(number))
        damage(run / file, random.Random(f"{file}/{number}"))
        said = resume(run)
        assert said is None or file in said or "--data" in said or "expected" in said
        refused += [said] if said else []
    assert len(refused) > 5


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"epochs": "many"}, "config.yaml: expected a whole number from 1 to 1000000 at epochs, found 'many'"),
        ({"epochs": True}, "at epochs, found True"),
        ({"epochs": 0}, "at epochs, found 0"),
        ({"workers": 10**9}, "at workers, found 1000000000"),
        ({"devices": 10**9}, "at devices, found 1000000000"),
        ({"lr": float("nan")}, "at lr, found nan"),
        ({"schedule": "linear"}, "config.yaml: expected one of cosine, step, onecycle at schedule, found 'linear'"),
        ({"data": None}, "config.yaml: expected a text at data, found None"),
        ({"model": ["paa-tiny"]}, "config.yaml: model: expected a text, found ['paa-tiny']"),
        ({"model": "paa"}, "no detector is called 'paa'"),
        ({"name": "a/b"}, "--name 'a/b' holds a separator of folders"),
        ({"name": 3}, "config.yaml: expected a text or nothing at name, found 3"),
        ({"project": ""}, "--project '' is empty"),
        ({"gears": 5}, "config.yaml: 'gears' is unknown"),
        ({"taught_by": "x"}, "config.yaml: 'taught_by' is unknown"),
        ({"verb": "distill"}, "config.yaml: 'verb' is unknown"),
        ({7: 7}, "config.yaml: 7 is unknown"),
    ],
)
def test_a_changed_flag_is_told_of(run, resume, change, said):
    file = run / "config.yaml"
    file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | change))
    assert said in resume(run)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "expected the flags of a run, found no detector"),
        ("[1, 2]", "expected the flags of a run, found no detector"),
        ("model: paa-tiny", "'accumulate' is missing"),
        ("a: &a [*a]", "found an alias"),
        ("!!python/object/apply:os.getcwd []", "found the tag"),
        ("[" * 10_000, "levels of lists and mappings"),
        ("x" * 10**6, "of at most 32000 bytes"),
        ("\x00" * 496, "none that can be read"),
    ],
)
def test_a_config_that_is_none_is_told_of(run, resume, text, said):
    (run / "config.yaml").write_text(text)
    found = resume(run)
    assert found.startswith(f"ladle train: {run}/config.yaml: ")
    assert said in found


def test_a_flag_that_is_missing_is_named(run, resume):
    file = run / "config.yaml"
    flags = yaml.safe_load(file.read_text())
    del flags["ema"]
    file.write_text(yaml.safe_dump(flags))
    assert "config.yaml: 'ema' is missing; put it back from a copy, or start the run anew" in resume(run)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"train": 3, "val": {}}', '{"train": {}, "val": {}}', "[" * 10**5])
def test_a_record_of_the_data_that_is_none_is_told_of(run, resume, text):
    (run / "data.json").write_text(text)
    assert f"{run}/data.json: expected" in resume(run)


def test_damaged_best_weights_are_told_of_before_anything_is_trained(run, resume):
    best = run / "weights" / "best.safetensors"
    best.write_bytes(best.read_bytes()[:-1])
    assert "best.safetensors" in resume(run)
    assert "put it back from a copy, or remove it to go on without it" in resume(run)
    best.unlink()
    assert resume(run) is None


def test_lines_of_the_journal_that_cannot_be_read_are_left_out_and_counted(whole, tmp_path, capsys):
    run = shutil.copytree(whole, tmp_path / "run")
    journal = run / "metrics.jsonl"
    lines = journal.read_bytes()
    journal.write_bytes(b"\xff\xfe\n" + lines + b"[" * 10**5 + b"\n" + b'{"kind": "step", "epo')
    assert main(["train", "--resume", str(run), "--quiet=false"]) == 0
    assert "left out of metrics.jsonl: 2 lines that cannot be read" in capsys.readouterr().out
    assert journal.read_bytes() == lines
    assert [json.loads(line)["kind"] for line in lines.splitlines()].count("epoch") == 1
