"""The benchmark of the assigners: who is missing is named, who disagrees is seen, page and chart are written."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]


@pytest.fixture
def bench(load):
    return load("assigners")


def line(bench, ours, peer, bar=5.0):
    outcomes = {"ours": ours, "one": peer, "two": bench.Outcome(note="absent: no module named 'two'")}
    return bench.Line("s640_n20", "ATSS", outcomes, bar, ("one", "two"))


def test_agreement_counts_what_either_side_does_not_call_background(bench):
    ours, theirs = torch.tensor([[0, 0, 1, 2, -1, 3]]), torch.tensor([[0, 0, 1, 1, -1, 0]])
    assert bench.agreement(ours, theirs) == pytest.approx(50.0)
    assert bench.agreement(ours, ours) == 100.0


def test_gradients_agree_to_a_thousandth(bench):
    theirs = torch.tensor([0.0, 1.0, -2.0, 0.5])
    assert bench.agreement(theirs * 1.0001, theirs) == 100.0
    assert bench.agreement(theirs * torch.tensor([1.0, 1.01, 1.0, 1.0]), theirs) == pytest.approx(100 * 2 / 3)


def test_a_ratio_is_taken_to_the_fastest_peer_that_ran(bench):
    slow, fast = bench.Outcome(ms=50.0, least=40.0, mb=1.0), bench.Outcome(ms=20.0, least=10.0, mb=1.0)
    found = line(bench, bench.Outcome(ms=5.0, least=4.0, mb=1.0), slow)
    found.outcomes["two"] = fast
    assert (found.fastest, found.ratio, found.ratio_of_minima, found.missed) == ("two", 4.0, 2.5, True)


def test_a_contender_that_cannot_be_imported_is_named_in_the_tables(bench):
    found = line(
        bench, bench.Outcome(ms=5.0, least=4.0, mb=1.0), bench.Outcome(ms=50.0, least=40.0, mb=1.0, same=99.999)
    )
    (_, (_, main)), (_, (_, peers)) = bench.report.tables([found], {})
    assert main[0][-4:] == ["10.0×", "10.0×", "5×", "99.99 %"], "an agreement that is not whole is not rounded up"
    assert "absent: no module named 'two'" in peers[1]


@pytest.mark.slow
def test_all_contenders_take_turns(bench):
    order = []
    ready = {name: bench.Ready(lambda name=name: order.append(name), lambda answer: answer) for name in "ab"}
    bench.race(ready, 3, torch.device("cpu"))
    assert "".join(order[-6:]) == "ababab"


def test_the_page_has_the_marks_between_which_the_tables_are_written(bench):
    text = bench.report.PAGE.read_text(encoding="utf-8")
    assert text.count(bench.report.START) == text.count(bench.report.END) == 1
    assert text.index(bench.report.START) < text.index(bench.report.END)


def test_a_chart_is_drawn_of_what_ran(bench, tmp_path):
    found = [
        line(bench, bench.Outcome(ms=5.0, least=4.0), bench.Outcome(ms=50.0, least=40.0))._replace(scene=scene)
        for scene in bench.SCENES
    ]
    assert bench.report.draw(found, tmp_path / "chart.png").stat().st_size > 10_000


@pytest.mark.slow
def test_the_script_runs_where_peers_are_missing():
    command = [sys.executable, "-W", "ignore", "benchmarks/assigners.py", "--quick", "--only", "MaxIoU"]
    command += ["--threads", "1", "--patience", "0"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    (measured,) = [text for text in done.stdout.splitlines() if text.startswith("s640_n20 MaxIoU")]
    assert "ours " in measured
    assert "torchvision " in measured
    assert "mmdetection absent: " in measured or "mmdetection " in measured
    assert "100 %" in done.stdout


def test_writing_takes_the_whole_run(bench, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["assigners.py", "--quick", "--write"])
    with pytest.raises(SystemExit) as ended:
        bench.main()
    assert ended.value.code == 2
    assert "--write takes the whole run" in capsys.readouterr().err
