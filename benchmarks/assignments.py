"""Objects without a positive under every assigner, by size: the table of docs/assign.md.

    python benchmarks/assignments.py --runs scenes=A.safetensors,DIR=B.safetensors --out docs/results/assign.json

Each data set is counted by `ladle assign stats` on its training images, with the predictions of its own detector. The
JSON holds a row for every data set and assigner.
"""

import argparse
import json
import tempfile
from pathlib import Path

from ladle import assign_stats
from ladle.recipes.assigners import ASSIGNERS


def row(data, model, assigner, numbers):
    """What is kept of the numbers."""
    sizes = {group.name: [group.without, group.objects] for group in numbers.by_size}
    return {
        "data": Path(data).name,
        "model": model,
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
    parser.add_argument("--note", required=True, help="what the detectors are")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    rows = []
    for run in arguments.runs.split(","):
        data, model = run.split("=")
        for assigner in ASSIGNERS:
            with tempfile.TemporaryDirectory() as folder:
                numbers = assign_stats(data, model, assigner, batch=16, out=folder)
            rows.append(row(data, "paa-tiny", assigner, numbers))
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    lines = ",\n".join(f"  {json.dumps(one)}" for one in rows)
    arguments.out.write_text(f'{{"note": {json.dumps(arguments.note)},\n"rows": [\n{lines}\n]}}\n', encoding="utf-8")
    print(table(rows))


def table(rows):
    """The rows of the page."""
    lines = ["| data | assigner | small | medium | large | all | positives each |", "|---|---|---|---|---|---|---|"]
    for one in rows:
        cells = [cell(*one["by_size"][size]) for size in ("small", "medium", "large")]
        whole = cell(one["without"], one["objects"])
        lines.append(f"| {' | '.join([one['data'], one['assigner'], *cells, whole])} | {one['mean_positives']:.1f} |")
    return "\n".join(lines)


def cell(without, objects):
    """A share in percent, and of how many."""
    return f"{100 * without / objects:.1f} % of {objects}" if objects else "none"


if __name__ == "__main__":
    main()
