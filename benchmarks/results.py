"""The tables and charts of docs/results.md, from the experiments and their recorded results.

    python benchmarks/results.py

An experiment ``benchmarks/experiments/NAME.yaml`` has its results in ``docs/results/NAME.jsonl``. Its table stands
between the marks ``<!-- results: NAME -->`` and ``<!-- end -->`` of the page, and its chart is
``docs/images/results-NAME.svg``. All lines of a file have the same setting and the same teacher, else it is refused.
``made_by`` of an experiment is the command that trains its teacher, if it has one. A row is compared with the first
one, or with the one that ``baselines`` names for it, and ``compared`` is the head of that column. Co-learning gives
two detectors, each a line of the table.
Where ``docs/results/NAME-latency.jsonl`` has the networks, as ``latency.py`` measures them, the table has the size of
their files and the time of an image.
"""

import json
import math
import os
import re
import statistics
from pathlib import Path

import yaml
from records import COLUMNS, cells, compared, network_of, read

from ladle.visual import draw_comparison

ROOT = Path(__file__).parents[1]
PAGE, IMAGES, NUMBERS = ROOT / "docs" / "results.md", ROOT / "docs" / "images", ROOT / "docs" / "results"
EXPERIMENTS = ROOT / "benchmarks" / "experiments"
ABOUT_AGREEMENT = (
    "*agreement: the assigner is also given the student's own predictions; of these positives, the share that learns "
    "the same object in the teacher's assignment, in the first and in the last epoch.*"
)
MARK = re.compile(r"(<!-- results: ([\w-]+) -->\n)(?:.*?\n)??(<!-- end -->)", re.DOTALL)


def experiment(name):
    """An experiment and its results by the names of its rows, those that have any, each in the order of its seeds."""
    described = yaml.safe_load((EXPERIMENTS / f"{name}.yaml").read_text(encoding="utf-8"))
    lines = read(NUMBERS / f"{name}.jsonl")
    for field in ("setting", "teacher_sha256"):
        if len({json.dumps(line[field]) for line in lines}) != 1:
            raise SystemExit(f"{name}.jsonl mixes results of several values of {field!r}: one file, one experiment")
    lines.sort(key=lambda line: line["seed"])
    found = {
        label + method.removeprefix(row): [line for line in lines if line["method"] == method]
        for label, row in described["rows"].items()
        for method in dict.fromkeys(line["method"] for line in lines if line["row"] == row)
    }
    if unknown := {line["row"] for line in lines} - set(described["rows"].values()):
        raise SystemExit(f"{name}.jsonl has rows that {name}.yaml does not name: {', '.join(sorted(unknown))}")
    return described, found


def beside(ours, plain):
    """The mean difference to plain training with its 95 % interval, and every seed's; a verdict only if it is clear."""
    each, mean, half, verdict = compared(ours, plain)
    if math.isnan(half):
        return each
    return f"{mean:+.1f} ± {half:.1f}{f' **{verdict}**' if verdict else ''} ({each})"


def latencies(name, described):
    """The measured size and time of the network of each row, by its label; none if there is no such file."""
    lines = {line["network"]: line for line in read(NUMBERS / f"{name}-latency.jsonl")}
    rows = described["rows"].items() if lines else ()
    return {label: lines[network_of(row, described["student"])] for label, row in rows}


def judged(found):
    """Whether the lines hold the agreement of a student with the teacher that judges for it."""
    return any("agreement" in line for ours in found.values() for line in ours)


def agreed(ours):
    """The agreement of student and teacher in the first and the last epoch, over the seeds; empty if none judges."""
    if "agreement" not in ours[0]:
        return ""
    first, last = (statistics.fmean(100 * line["agreement"][epoch] for line in ours) for epoch in (0, -1))
    return f"{first:.0f} → {last:.0f} %"


def table(described, found, measured):
    """The Markdown table of an experiment, with the comparisons that it describes."""
    baselines = dict.fromkeys(found, next(iter(found))) | described.get("baselines", {})
    costs = {label: [f"{one['bytes'] / 1e6:.1f}", f"{one['milliseconds']:.1f}"] for label, one in measured.items()}
    shares = {label: [agreed(ours)] for label, ours in found.items()} if judged(found) else {}
    compared_with = described.get("compared", "AP beside plain training")
    head = [*COLUMNS, *(["MB", "ms"] if measured else []), *(["agreement"] if shares else []), compared_with]
    yield "| method | seeds | " + " | ".join(head) + " |"
    yield "|---" * (2 + len(head)) + "|"
    for label, ours in found.items():
        plain = {one["seed"]: one["ap"] for one in found[baselines[label]]}
        last = "" if label == baselines[label] else beside(ours, plain)
        yield (
            f"| {label} | {len(ours)} | "
            + " | ".join([*cells(ours), *costs.get(label, []), *shares.get(label, []), last])
            + " |"
        )


def machines(found):
    """Where and at which commits the results were measured."""
    lines = [line for ours in found.values() for line in ours]
    devices = [(line["machine"].get("device", "cpu"), line["machine"]["cpu"]) for line in lines]
    places = dict.fromkeys(cpu if device == "cpu" else device for device, cpu in devices)
    commits = sorted({line["commit"] for line in lines})
    return f"Measured on {' and '.join(places)}, commit{'s' * (len(commits) > 1)} {', '.join(commits)}."


def about_latency(name, measured):
    """What the columns of size and time are, with the command that measures them."""
    one = next(iter(measured.values()))
    yield (
        f"*MB: the exported ONNX file. ms: one image of {one['imgsz']} pixels in onnxruntime "
        f"{one['machine']['onnxruntime']} on {one['threads']} threads of {one['machine']['cpu']}, without NMS, the "
        f"median of {one['calls']} calls with random weights. Lines: "
        f"[{name}-latency.jsonl](results/{name}-latency.jsonl).*"
    )
    yield ""


def section(name):
    """Everything between the marks of an experiment."""
    described, found = experiment(name)
    measured = latencies(name, described)
    compare = f"python benchmarks/methods.py --experiment benchmarks/experiments/{name}.yaml"
    teacher = " ".join(described["made_by"].split()) if "made_by" in described else None
    given = any("unlabelled=given" in row for row in described["rows"].values())
    further = f" --unlabelled {described['data']}/unlabelled" if given else ""
    return "\n".join(
        [
            *table(described, found, measured),
            "",
            f"![AP: the mean, one standard deviation, and every seed](images/results-{name}.svg)",
            "",
            f"*{machines(found)} Lines: [{name}.jsonl](results/{name}.jsonl).*",
            "",
            *(about_latency(name, measured) if measured else ()),
            *((ABOUT_AGREEMENT, "") if judged(found) else ()),
            "```",
            *([compare] if teacher is None else [teacher, f"{compare} --teacher TEACHER{further}"]),
            "```",
        ]
    )


def page(text):
    """The page with all its tables."""
    return MARK.sub(lambda found: f"{found[1]}\n{section(found[2])}\n\n{found[3]}", text)


def chart(name, folder):
    """Draw the chart of an experiment; the same numbers give the same bytes."""
    os.environ["SOURCE_DATE_EPOCH"] = "0"  # else a figure holds the time of its drawing
    _, found = experiment(name)
    values = {label: [one["ap"] for one in ours] for label, ours in found.items()}
    first = next(iter(values))
    best_last = {first: values.pop(first)} | dict(sorted(values.items(), key=lambda row: statistics.fmean(row[1])))
    return draw_comparison(best_last, folder / f"results-{name}.svg")


def names():
    """The experiments that the page shows."""
    return [found[2] for found in MARK.finditer(PAGE.read_text(encoding="utf-8"))]


def main():
    """Write the tables and the charts."""
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    for name in names():
        print(f"wrote {chart(name, IMAGES).relative_to(ROOT)}")


if __name__ == "__main__":
    main()
