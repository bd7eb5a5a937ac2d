"""The tables of "On a GPU" in docs/benchmarks.md, from the recorded numbers in docs/results/gpu.jsonl.

    python benchmarks/gpu.py              print them
    python benchmarks/gpu.py --write      write them into the page

The numbers come from a machine with a GPU:

    python benchmarks/launches.py --device cuda --record docs/results/gpu.jsonl
    python benchmarks/assigners.py --device cuda --patience 0 --no-crowd --record docs/results/gpu.jsonl
    python benchmarks/share.py --device cuda --record docs/results/gpu.jsonl

Of several lines for the same row the last one counts.
"""

import argparse
import json
import sys
from pathlib import Path

from peers.case import SCENES

ROOT = Path(__file__).parents[1]
PAGE, NUMBERS = ROOT / "docs" / "benchmarks.md", ROOT / "docs" / "results" / "gpu.jsonl"
START, END = "<!-- gpu: start -->", "<!-- gpu: end -->"


def last(lines, table, *names):
    """The lines of a table, the last for each value of ``names``, in the order of their first."""
    found = {}
    for line in lines:
        if line["table"] == table:
            found[tuple(line[name] for name in names)] = line
    return found


def launches(lines):
    """Operations of a call, and agreement with the CPU."""
    yield "| assigner | operations, 640 × 640 · 20 | 800 × 1344 · 150 | MiB | priors with the CPU's result, ten seeds |"
    yield "|---|---|---|---|---|"
    for (name,), line in last(lines, "launches", "assigner").items():
        same = f"{line['same']:,} of {line['of']:,}"
        yield f"| {name} | {line['few']} | {line['many']} | {line['peak'] / 2**20:.0f} | {same} |"


def assigners(lines):
    """Milliseconds beside the fastest peer."""
    yield "| scene | assigner | called, ms | replayed, ms | fastest peer | ms | called | replayed |"
    yield "|---|---|---|---|---|---|---|---|"
    for (scene, name), line in last(lines, "assigners", "scene", "assigner").items():
        times = {title: outcome["ms"] for title, outcome in line["outcomes"].items() if outcome["ms"]}
        ours, replayed = times.pop("ours"), times.pop("replayed", None)
        peer = min(times, key=times.get) if times else "–"
        ratios = [f"{times[peer] / one:.1f}×" if times and one else "–" for one in (ours, replayed)]
        shown = [f"{one:.2f}" if one else "–" for one in (ours, replayed, times.get(peer))]
        cells = [SCENES[scene], name, *shown[:2], peer, shown[2], *ratios]
        yield f"| {' | '.join(cells)} |"


def shares(lines):
    """The share of a step."""
    yield "| family | step, ms | assignment called, ms | replayed, ms | share | waits |"
    yield "|---|---|---|---|---|---|"
    for (family,), line in last(lines, "share", "family").items():
        share = line["assignment"] / line["step"]
        times = f"{line['step']:.1f} | {line['direct']:.2f} | {line['assignment']:.2f}"
        yield f"| `{family}-r50` | {times} | {share:.1%} | {len(line['waits'])} |"


def section(lines):
    """Everything between the marks."""
    commits = sorted({line["commit"] for line in lines})
    machine, torch = lines[-1]["machine"], lines[-1]["torch"]
    head = (
        f"{machine}, torch {torch}, commits {' and '.join(commits)}; the lines are in [gpu.jsonl](results/gpu.jsonl)."
    )
    parts = [[head], launches(lines), assigners(lines), shares(lines)]
    return "\n\n".join("\n".join(part) for part in parts)


def page(text, lines):
    """The page with its tables from ``lines``."""
    before, _, rest = text.partition(START)
    _, _, after = rest.partition(END)
    return f"{before}{START}\n\n{section(lines)}\n\n{END}{after}"


def main():
    """Print the tables, or write them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="write them into docs/benchmarks.md")
    arguments = parser.parse_args()
    lines = [json.loads(line) for line in NUMBERS.read_text(encoding="utf-8").splitlines()]
    if arguments.write:
        PAGE.write_text(page(PAGE.read_text(encoding="utf-8"), lines), encoding="utf-8")
    else:
        sys.stdout.write(section(lines) + "\n")


if __name__ == "__main__":
    main()
