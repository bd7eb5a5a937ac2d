"""Objects without a positive under every assigner, by size: the table of docs/assign.md.

    python benchmarks/assignments.py --runs scenes=paa-tiny=160,DIR=paa-tiny=320 --out docs/results/assign.json

A run is a data set, a detector and the long side of the images. What `ladle assign stats` counts on the training images
is counted for all assigners, and for the forms that serve more objects, in one pass; in a second one, for assigners by
SimD. The JSON holds a row for every run and assigner.
"""

import argparse
import json
from pathlib import Path

from ladle.recipes.assign_reports import counted
from ladle.recipes.assigning import Options, Wanted, open_context
from ladle.recipes.parts import ASSIGNERS

FORMS = {
    "ATSS": ["rescue=True"],
    "DynamicSoftLabel": ["min_side=2", "rescue=True"],
    "FCOS": ["min_side=2", "rescue=True"],
    "OTA": ["min_side=2", "rescue=True"],
    "PAA": ["rescue=True"],
    "PseudoIoU": ["rescue=True"],
    "SimOTA": ["rescue=True"],
    "TaskAligned": ["min_side=2", "rescue=True"],
}
"""The forms of the assigners that serve more objects; each is counted beside the default."""
SIMILAR = ["MaxIoU(overlap={})", "MaxIoU(0.7, 0.3, rescue=0.3, overlap={})", "ATSS(overlap={})"]
"""Assigners by SimD; its two numbers are those of the data and the priors."""
WORDS = [text for name in ASSIGNERS for text in (name, *(f"{name}({form})" for form in FORMS.get(name, [])))]


def row(data, detector, assigner, numbers):
    """What is kept of the numbers."""
    sizes = {group.name: [group.without, group.objects] for group in numbers.by_size}
    return {
        "data": data,
        "detector": detector,
        "imgsz": numbers.imgsz,
        "assigner": assigner,
        "objects": numbers.objects,
        "without": numbers.without,
        "by_size": sizes,
        "mean_positives": round(numbers.mean_positives, 2),
        "quantiles": list(numbers.quantiles),
        "ignored": numbers.total("ignored"),
        "positive": numbers.total("positive"),
        "priors": numbers.total("priors"),
    }


def main():
    """Count, print the table and write the rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", required=True)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    rows = []
    for run in arguments.runs.split(","):
        data, model, imgsz = run.split("=")
        context = open_context(Options(data, model, "train", None, int(imgsz), 16, 0, "cpu", 0))
        every = counted(context, [context.side(Wanted(text, None)) for text in WORDS])
        similar = [form.format("SimD(m={:.3f}, n={:.3f})".format(*every[0].distances)) for form in SIMILAR]
        every += counted(context, [context.side(Wanted(text, None)) for text in similar])
        texts = [*WORDS, *similar]
        pairs = sorted(zip(texts, every, strict=True), key=lambda pair: pair[0].partition("(")[0])
        rows += [row(Path(data).name, context.title, *pair) for pair in pairs]
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    lines = ",\n".join(f"  {json.dumps(one)}" for one in rows)
    arguments.out.write_text(f"[\n{lines}\n]\n", encoding="utf-8")
    print(table(rows))


def table(rows):
    """The rows of the page."""
    lines = ["| data | predictions | assigner | small | medium | large | all | positives each |", "|---" * 8 + "|"]
    for one in rows:
        cells = [cell(*one["by_size"][size]) for size in ("small", "medium", "large")]
        words = [one["data"], one["detector"], one["assigner"], *cells, cell(one["without"], one["objects"])]
        lines.append(f"| {' | '.join(words)} | {one['mean_positives']:.1f} |")
    return "\n".join(lines)


def cell(without, objects):
    """A share in percent, and of how many."""
    return f"{100 * without / objects:.1f} % of {objects}" if objects else "none"


if __name__ == "__main__":
    main()
