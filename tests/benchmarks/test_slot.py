"""What runs where a GPU is at hand for a few minutes: the first things first, and never more than fits."""

import sys
import time

import yaml


def test_the_most_telling_measurements_come_first_and_runs_have_time_left(load):
    slot = load("slot")
    for minutes in (1, 3, 5, 8):
        steps, left = slot.fitting(minutes)
        assert steps[0] == slot.STEPS[0]
        assert sum(step.seconds for step in steps) + left == 60 * minutes
        assert len(steps) == 1 or left >= slot.WAVE
    assert len(slot.fitting(8)[0]) == len(slot.STEPS)
    assert [step.seconds for step in slot.fitting(3)[0]] == [30, 45]


def test_every_method_has_all_its_seeds_before_the_next_begins(load):
    slot = load("slot")
    commands = list(slot.runs("teacher.safetensors", "paa+dist-tiny", 16))
    assert len(commands) == len(slot.METHODS) * len(slot.SEEDS)
    assert [command[-1] for command in commands[:4]] == ["plain", "plain", "plain", "pkd"]
    assert len({command[command.index("--out") + 1] for command in commands}) == len(commands)


def test_runs_are_stopped_when_the_time_is_over(load, tmp_path):
    slot = load("slot")
    wait = "import sys, time, pathlib; time.sleep(float(sys.argv[2])); pathlib.Path(sys.argv[1]).touch()"
    commands = (
        [sys.executable, "-c", wait, str(tmp_path / name), seconds] for name, seconds in [("a", "0"), ("b", "60")]
    )
    began = time.monotonic()
    slot.run_side_by_side(commands, at_once=2, end=began + 3)
    assert (tmp_path / "a").exists()
    assert not (tmp_path / "b").exists()
    assert time.monotonic() - began < 30


def test_what_is_measured_has_a_row_in_the_experiment_to_whose_file_it_is_appended(load):
    results, slot = load("results"), load("slot")
    rows = yaml.safe_load((results.EXPERIMENTS / "scenes.yaml").read_text(encoding="utf-8"))["rows"].values()
    assert set(slot.METHODS) <= set(rows)
