"""The tables of the page on benchmarks are those of the recorded numbers."""

import json


def test_the_tables_on_a_gpu_are_made_from_the_recorded_numbers(load):
    gpu = load("gpu")
    lines = [json.loads(line) for line in gpu.NUMBERS.read_text(encoding="utf-8").splitlines()]
    text = gpu.PAGE.read_text(encoding="utf-8")
    assert gpu.page(text, lines) == text
    assert len(gpu.last(lines, "launches", "assigner")) == 10
