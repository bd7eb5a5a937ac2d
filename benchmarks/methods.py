"""The methods side by side, over seeds: the tables of docs/results.md.

    python benchmarks/methods.py --data scenes --methods plain,lad,solad --seeds 0,1,2
    python benchmarks/methods.py --data DIR --teacher runs/train/NAME/weights/best.safetensors --epochs 40 --imgsz 256

Every line is one call of `ladle train` or `ladle distill`, which is printed; every method of a seed starts from the
same weights and sees the same pictures in the same order. Scored are the weights after the last epoch: no epoch is
chosen by the pictures it is scored on. Prints a Markdown table of means and standard errors, draws OUT/comparison.png,
and writes all numbers to OUT/numbers.json after each run, so that an interrupted table goes on where it stopped.
"""

import argparse
import json
import math
import shlex
import statistics
import subprocess
import sys
import time
from pathlib import Path

from ladle import load_detector
from ladle.recipes.demo import BUDGET, STUDENT, teacher_file
from ladle.recipes.options import Run
from ladle.recipes.scoring import Examiner
from ladle.recipes.sources import open_source
from ladle.visual import draw_comparison

COLUMNS = ("AP", "AP50", "AP75", "APS", "APM", "APL")


def command(arguments, method, seed, name):
    """The words of one call of the command line."""
    flags = {"data": arguments.data, "epochs": arguments.epochs, "batch": BUDGET.batch, "lr": BUDGET.lr}
    flags |= {"jitter": arguments.jitter, "crop": arguments.crop, "eval_every": arguments.epochs, "cache": "true"}
    flags |= {"seed": seed, "name": name, "project": str(arguments.out), "quiet": "true"}
    flags |= {"imgsz": arguments.imgsz} if arguments.imgsz else {}
    if method == "plain":
        verb, flags = "train", {"model": arguments.student} | flags
    else:
        verb, flags = "distill", {"student": arguments.student, "teacher": arguments.teacher, "method": method} | flags
    return ["ladle", verb, *(word for key, value in flags.items() for word in (f"--{key}", str(value)))]


def score(arguments, words):
    """Run one command and score the weights it leaves at the end of its budget."""
    print("$ " + shlex.join(words), flush=True)
    start = time.monotonic()
    subprocess.run([sys.executable, "-m", "ladle", *words[1:]], check=True)
    seconds = time.monotonic() - start
    folder = arguments.out / words[1] / words[words.index("--name") + 1]
    detector = load_detector(folder / "weights" / "last.safetensors")
    imgsz = detector.spec.imgsz
    numbers = Examiner(open_source(arguments.data, "val", Run(), imgsz), imgsz, 16)(detector).evaluation
    return numbers.row(digits=2) | {"seconds": round(seconds, 1)}


def cell(values):
    """Mean and standard error of a column; a dash where it is not defined."""
    if any(math.isnan(value) for value in values):
        return "–"
    mean = statistics.fmean(values)
    if len(values) == 1:
        return f"{mean:.1f}"
    return f"{mean:.1f} ± {statistics.stdev(values) / math.sqrt(len(values)):.1f}"


def table(rows, methods):
    """The Markdown table of all rows measured so far."""
    lines = ["| method | seeds | " + " | ".join(COLUMNS) + " | seconds |", "|---|---|" + "---|" * (len(COLUMNS) + 1)]
    for method in methods:
        mine = [row for row in rows if row["method"] == method]
        if mine:
            cells = [cell([row[column] for row in mine]) for column in COLUMNS]
            seconds = f"{statistics.fmean(row['seconds'] for row in mine):.0f}"
            lines.append(f"| {method} | {len(mine)} | " + " | ".join(cells) + f" | {seconds} |")
    return "\n".join(lines)


def main():
    """Run every method over every seed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="scenes")
    parser.add_argument("--student", default=STUDENT)
    parser.add_argument("--teacher", default=str(teacher_file()))
    parser.add_argument("--methods", default="plain,lad,solad")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--epochs", type=int, default=BUDGET.epochs)
    parser.add_argument("--imgsz", type=int)
    parser.add_argument("--jitter", type=float, default=BUDGET.jitter)
    parser.add_argument("--crop", type=float, default=BUDGET.crop)
    parser.add_argument("--out", type=Path, default=Path("runs/methods"))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    file = arguments.out / "numbers.json"
    rows = json.loads(file.read_text()) if file.exists() else []
    methods = arguments.methods.split(",")
    for seed in map(int, arguments.seeds.split(",")):
        for method in methods:
            if any(row["method"] == method and row["seed"] == seed for row in rows):
                continue
            words = command(arguments, method, seed, f"{method}-{seed}")
            rows.append({"method": method, "seed": seed} | score(arguments, words))
            file.write_text(json.dumps(rows, indent=1))
            print(rows[-1], flush=True)
    print(table(rows, methods))
    by_method = {method: [row["AP"] for row in rows if row["method"] == method] for method in methods}
    print(f"wrote {draw_comparison(by_method, arguments.out / 'comparison.png')}")


if __name__ == "__main__":
    main()
