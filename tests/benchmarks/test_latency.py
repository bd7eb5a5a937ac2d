"""Latency of exported detectors: what is timed, and the table of it."""

import json
from argparse import Namespace

import numpy as np
import pytest

from tests.exporting.small import needs_onnx


@pytest.fixture
def latency(load):
    return load("latency")


def test_the_table_has_ours_first_and_the_fastest_of_each_group_first(latency):
    contenders = {
        "slow": latency.Contender(b"", 2_000_000, 3_000_000_000),
        "yolox-n": latency.Contender(b"", 900_000, 1_000_000_000),
        "yolo11n": latency.Contender(b"", 2_600_000, 6_500_000_000),
    }
    times = {("slow", 320): 9.0, ("slow", 640): 30.0, ("yolox-n", 320): 5.0, ("yolox-n", 640): 20.0}
    times |= {("slow", "8 bits"): 15.0, ("yolox-n", "8 bits"): 12.0, ("yolo11n", 320): 4.0, ("yolo11n", 640): 10.0}
    lines = list(latency.table(Namespace(sides=[640, 320], ours="slow,yolox-n"), contenders, times))
    assert lines[0].startswith("|  | M parameters | GFLOPs, 640 px | published COCO AP | ms, 320 px | ms, 640 px |")
    assert lines[2:] == [
        "| `yolox-n` | 0.9 | 1.0 | 25.8 at 416 | 5.0 | 20.0 | 12.0 |",
        "| `slow` | 2.0 | 3.0 | – | 9.0 | 30.0 | 15.0 |",
        "| yolo11n | 2.6 | 6.5 | 39.5 at 640 | 4.0 | 10.0 | – |",
    ]
    assert {line.count("|") for line in lines} == {8}


def test_the_networks_of_an_experiment_are_those_of_its_rows(latency, tmp_path):
    file = tmp_path / "some.yaml"
    file.write_text(
        "student: paa-tiny\nimgsz: 96\nrows: {plain: plain, other: 'plain:paa-mini!lr=1', LAD: 'lad!lr=1',"
        " SSDLite: 'torchvision:ssdlite320_mobilenet_v3_large'}\n",
        encoding="utf-8",
    )
    arguments = Namespace(experiment=file, ours="yolox-n", peers="yolo11n", sides=[640])
    latency.take_experiment(arguments)
    assert (arguments.ours, arguments.peers) == ("paa-tiny,paa-mini", "ssdlite320_mobilenet_v3_large")
    assert arguments.sides == [96]


def test_a_line_is_recorded_for_each_network_at_the_largest_side(latency, tmp_path):
    contenders = {"paa-tiny": latency.Contender(bytes(3_000), 2_000, 5_000)}
    arguments = Namespace(sides=[64, 96], classes=3, threads=2, rounds=5, record=tmp_path / "latency.jsonl")
    latency.record(arguments, contenders, {("paa-tiny", 64): 1.0, ("paa-tiny", 96): 2.126})
    (line,) = [json.loads(text) for text in arguments.record.read_text(encoding="utf-8").splitlines()]
    assert (line["network"], line["milliseconds"], line["imgsz"]) == ("paa-tiny", 2.13, 96)
    assert (line["parameters"], line["flops"], line["bytes"], line["calls"]) == (2_000, 5_000, 3_000, 5)


@pytest.mark.slow
@needs_onnx
def test_ours_and_torchvisions_are_files_of_one_image(latency):
    ours, theirs = latency.ours("yolox-n", 64), latency.torchvisions(64)
    assert ours.parameters == 912_159
    # YOLOX has one place in each cell of 8, 16 and 32 pixels; SSDLite six in each cell of its six maps, of which the
    # last four have one cell. SSDLite's class 0 is the background.
    for one, places, classes in ((ours, 64 + 16 + 4, 80), (theirs, 6 * (16 + 4 + 4), 81)):
        boxes, scores = latency.caller(one.model, 1)()
        assert boxes.shape == (1, places, 4)
        assert scores.shape == (1, places, classes)
        assert np.isfinite(boxes).all()
        assert ((scores >= 0) & (scores <= 1)).all()
