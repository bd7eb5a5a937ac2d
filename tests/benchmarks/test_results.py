"""Every table and chart of the page on results is made from the recorded lines, each file from one experiment."""

import json
import re

import pytest

SHOWN = r"<!-- (\d+\.\d(?: ± \d+\.\d)?) -->"
"""The text of a mean, which an SVG holds as a comment beside its outlines."""


@pytest.fixture
def results(load):
    return load("results")


def test_the_tables_of_the_page_are_those_of_the_recorded_lines(results):
    text = results.PAGE.read_text(encoding="utf-8")
    assert results.page(text) == text
    assert results.names() == [
        "aquarium",
        "bccd",
        "aquarium-light",
        "fruit",
        "fruit-10",
        "scenes",
        "scenes-assigners",
        "scenes-two-stage",
        "scenes-colearn",
        "rescue",
        "rescue-ota",
        "aquarium-rescue",
        "one-to-one",
    ]


def test_a_chart_of_the_same_numbers_has_the_same_bytes_and_shows_every_mean(results, tmp_path):
    for name in results.names():
        drawn = results.chart(name, tmp_path).read_bytes()
        assert results.chart(name, tmp_path).read_bytes() == drawn
        stored = (results.IMAGES / f"results-{name}.svg").read_text(encoding="utf-8")
        shown = re.findall(SHOWN, drawn.decode())
        assert shown == re.findall(SHOWN, stored)
        _, found = results.experiment(name)
        means = [f"{sum(line['ap'] for line in ours) / len(ours):.1f}" for ours in found.values()]
        assert sorted(means) == sorted(text.split(" ")[0] for text in shown[-len(means) :])


def test_lines_of_two_teachers_or_of_an_unknown_row_are_refused(results, monkeypatch, tmp_path):
    lines = results.read(results.NUMBERS / "aquarium.jsonl")
    monkeypatch.setattr(results, "NUMBERS", tmp_path)

    def write(changed):
        (tmp_path / "aquarium.jsonl").write_text("\n".join(map(json.dumps, changed)), encoding="utf-8")

    write([lines[0], lines[1] | {"teacher_sha256": "another"}])
    with pytest.raises(SystemExit, match="'teacher_sha256'"):
        results.experiment("aquarium")
    write([lines[0] | {"row": "magic"}])
    with pytest.raises(SystemExit, match="magic"):
        results.experiment("aquarium")


def test_gains_are_claimed_only_where_the_interval_excludes_zero(results):
    def runs(*values):
        return [{"seed": seed, "ap": value} for seed, value in enumerate(values)]

    plain = {0: 30.0, 1: 31.0, 2: 32.0}
    assert results.beside(runs(32.0, 33.1, 33.9), plain) == "+2.0 ± 0.2 **gains** (+2.0, +2.1, +1.9)"
    assert results.beside(runs(29.0, 30.1, 30.9), plain) == "-1.0 ± 0.2 **loses** (-1.0, -0.9, -1.1)"
    assert results.beside(runs(31.0, 30.5, 33.0), plain) == "+0.5 ± 2.2 (+1.0, -0.5, +1.0)"
    assert results.beside(runs(31.0), plain) == "+1.0"


def test_a_row_is_compared_with_the_first_one_or_with_its_own_baseline(results):
    def runs(*values):
        columns = dict.fromkeys(results.COLUMNS.values(), 30.0)
        return [columns | {"seed": seed, "ap": value} for seed, value in enumerate(values)]

    found = {"ATSS": runs(30.0), "PAA": runs(32.0), "LAD with ATSS": runs(31.0), "LAD with PAA": runs(35.0)}
    described = {"baselines": {"LAD with PAA": "PAA"}, "compared": "AP beside another"}
    head, _, *rows = ([cell.strip() for cell in line.split("|")] for line in results.table(described, found, {}))
    assert head[-2] == "AP beside another"
    assert [row[-2] for row in rows] == ["", "+2.0", "+1.0", "+3.0"]
    alone, _, *rows = results.table({"baselines": {"PAA": "PAA"}}, found, {})
    assert alone.split("|")[-2].strip() == "AP beside plain training"
    assert [row.split("|")[-2].strip() for row in rows] == ["", "", "+1.0", "+5.0"]


def test_a_table_has_the_agreement_of_the_rows_where_a_teacher_judges(results):
    columns = dict.fromkeys(results.COLUMNS.values(), 30.0)
    judged = [columns | {"seed": seed, "agreement": [0.1 + seed / 10, 0.5, 0.7]} for seed in range(2)]
    found = {"plain": [columns | {"seed": 0}, columns | {"seed": 1}], "LAD": judged}
    head, _, *rows = ([cell.strip() for cell in line.split("|")] for line in results.table({}, found, {}))
    at = head.index("agreement")
    assert [row[at] for row in rows] == ["", "15 → 70 %"]
    assert "agreement" not in next(iter(results.table({}, {"plain": found["plain"]}, {})))


def test_a_result_has_the_time_of_all_epochs_and_the_agreement_of_each(load, tmp_path):
    methods = load("methods")
    file = tmp_path / "results.csv"
    file.write_text("epoch,seconds,agreement\n1,1.4,0.123456\n2,1.4,0.5\n")
    assert methods.by_epoch(tmp_path) == {"seconds": 3, "agreement": [0.1235, 0.5]}
    for text in ("epoch,seconds,agreement\n1,1.4,\n", "epoch,seconds\n1,1.4\n"):
        file.write_text(text)
        assert methods.by_epoch(tmp_path) == {"seconds": 1}


def test_every_gain_on_the_page_of_methods_stands_in_a_table(results):
    tables = results.PAGE.read_text(encoding="utf-8")
    quoted = re.findall(r"[+-]\d+\.\d ± \d+\.\d", (results.PAGE.parent / "which_method.md").read_text(encoding="utf-8"))
    assert len(quoted) >= 8
    assert [gain for gain in quoted if gain not in tables] == []


def test_an_experiment_gives_the_defaults_of_the_command_line(load):
    methods = load("methods")
    file = str(load("results").EXPERIMENTS / "aquarium.yaml")
    chosen = methods.parse(["--experiment", file, "--seeds", "7", "--flag", "lr=0.002"])
    assert (chosen.student, chosen.imgsz, chosen.epochs, chosen.seeds) == ("paa+dist-mobilenetv2_100", 416, 15, "7")
    assert chosen.rows.split(",")[:3] == ["plain", "lad", "solad"]
    assert chosen.flag[0] == "optimizer=adamw"
    assert chosen.flag[-1] == "lr=0.002"


def test_a_table_has_the_size_and_time_of_each_rows_network(results, monkeypatch, tmp_path):
    described = {"student": "gfl-tiny", "rows": {"plain": "plain", "LAD": "lad", "other": "torchvision:ssd"}}
    machine = {"onnxruntime": "1.0", "cpu": "a processor"}
    lines = [
        {"network": name, "bytes": size, "milliseconds": time, "imgsz": 96, "threads": 2, "calls": 5}
        | {"machine": machine}
        for name, size, time in (("gfl-tiny", 2_500_000, 7.04), ("ssd", 4_000_000, 20.0))
    ]
    monkeypatch.setattr(results, "NUMBERS", tmp_path)
    assert results.latencies("some", described) == {}
    (tmp_path / "some-latency.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    measured = results.latencies("some", described)
    found = {label: [dict.fromkeys(results.COLUMNS.values(), 30.0) | {"seed": 0}] for label in described["rows"]}
    rows = [[cell.strip() for cell in line.split("|")] for line in results.table(described, found, measured)]
    at = [rows[0].index(name) for name in ("method", "MB", "ms")]
    assert [[row[place] for place in at] for row in rows[2:]] == [
        ["plain", "2.5", "7.0"],
        ["LAD", "2.5", "7.0"],
        ["other", "4.0", "20.0"],
    ]
    assert len({len(row) for row in rows}) == 1
    assert "one image of 96 pixels in onnxruntime 1.0 on 2 threads" in next(results.about_latency("some", measured))
