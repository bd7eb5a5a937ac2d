import csv
import io
import json

from rich.console import Console

from ladle.engine.log import Display, Journal, write_results


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_journal_line_is_one_json_object_without_nan(tmp_path):
    path = tmp_path / "metrics.jsonl"
    Journal(path, epoch=0).write("step", {"epoch": 1, "loss": float("nan"), "lr": 0.1})
    assert read(path) == [{"kind": "step", "epoch": 1, "loss": None, "lr": 0.1}]


def test_a_fresh_run_empties_the_journal(tmp_path):
    path = tmp_path / "metrics.jsonl"
    Journal(path, epoch=0).write("epoch", {"epoch": 1})
    Journal(path, epoch=0)
    assert path.read_text() == ""


def test_a_resumed_journal_drops_later_epochs_and_torn_lines(tmp_path):
    path = tmp_path / "metrics.jsonl"
    journal = Journal(path, epoch=0)
    for epoch in (1, 2, 3):
        journal.write("epoch", {"epoch": epoch})
    path.write_text(path.read_text() + '{"kind": "step", "epo')
    Journal(path, epoch=2).write("epoch", {"epoch": 3})
    assert [row["epoch"] for row in read(path)] == [1, 2, 3]


def test_the_header_of_results_only_grows_at_its_end(tmp_path):
    path = tmp_path / "results.csv"
    write_results(path, [{"epoch": 1, "loss": 0.5}])
    write_results(path, [{"epoch": 1, "loss": 0.5}, {"epoch": 2, "loss": 0.25, "ap": 0.125}])
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["epoch", "loss", "ap"]
    assert [row["ap"] for row in rows] == ["", "0.125"]


def show(quiet, terminal):
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=100, quiet=quiet)
    display = Display(quiet=quiet, console=console)
    display.start()
    display.step("step 1 [red]", 0.5)
    display.say("epoch 1 done")
    display.stop()
    return out.getvalue()


def test_without_a_terminal_lines_are_plain():
    assert show(quiet=False, terminal=False) == "step 1 [red]\nepoch 1 done\n"


def test_on_a_terminal_only_finished_epochs_stay():
    shown = show(quiet=False, terminal=True)
    assert "epoch 1 done" in shown
    assert "\x1b[2K" in shown  # the bar wipes its own line


def test_quiet_says_nothing():
    assert show(quiet=True, terminal=False) == show(quiet=True, terminal=True) == ""
