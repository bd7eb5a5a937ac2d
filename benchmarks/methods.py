"""The methods side by side, over seeds: the tables of docs/results.md.

    python benchmarks/methods.py --data scenes --rows plain,lad,lad+ld+pkd --seeds 0,1,2
    python benchmarks/methods.py --data DIR --teacher runs/train/NAME/weights/best.safetensors --epochs 40 --imgsz 256

A row is a method of ``ladle distill``, or ``plain``, and may be changed:

    ld/mini                 with an assistant between teacher and student
    lad+pkd~0.1             with this weight on all that is distilled
    ld@self                 taught by the student's own kind: the same training with seed 100, which is run first
    colearn:paa+dist-small  together with this second student; gives two rows

Every run is one call of the command line, which is printed; every method of a seed starts from the same weights and
sees the same pictures in the same order. Scored are the weights after the last epoch: no epoch is chosen by the
pictures it is scored on. Prints a Markdown table of means and standard errors, draws OUT/comparison.png, and writes all
numbers to OUT/numbers.json after each run, so that an interrupted table goes on where it stopped.
"""

import argparse
import json
import math
import shlex
import statistics
import subprocess
import sys
from pathlib import Path

from ladle import load_detector
from ladle.recipes.demo import BUDGET, STUDENT, teacher_file
from ladle.recipes.options import Run
from ladle.recipes.scoring import Examiner
from ladle.recipes.sources import open_source
from ladle.visual import draw_comparison

COLUMNS = ("AP", "AP50", "AP75", "APS", "APM", "APL")
SELF, SELF_SEED = "self", 100


def command(arguments, row, seed):
    """The verb and the flags of a row."""
    flags = {"data": arguments.data, "epochs": arguments.epochs, "batch": BUDGET.batch, "lr": BUDGET.lr}
    flags |= {"jitter": arguments.jitter, "crop": arguments.crop, "eval_every": arguments.epochs, "cache": "true"}
    flags |= {"seed": seed, "name": f"{row.replace('/', '-by-').replace(':', '-')}-{seed}"}
    flags |= {"project": str(arguments.out), "quiet": "true"}
    flags |= {"imgsz": arguments.imgsz} if arguments.imgsz else {}
    if row == "plain":
        return "train", {"model": arguments.student} | flags
    if row.startswith("colearn:"):
        return "colearn", {"first": arguments.student, "second": row.partition(":")[2]} | flags
    method, _, assistants = row.partition("/")
    method, _, weight = method.partition("~")
    method, _, taught_by = method.partition("@")
    teacher = arguments.teacher if taught_by != SELF else own_teacher(arguments)
    flags |= {"assistants": assistants} if assistants else {}
    flags |= {"weight": weight} if weight else {}
    return "distill", {"student": arguments.student, "teacher": teacher, "method": method} | flags


def own_teacher(arguments):
    """The weights of the student's own kind, trained first if they are not there."""
    folder = arguments.out / "train" / f"plain-{SELF_SEED}"
    if not (folder / "weights" / "last.safetensors").exists():
        run(*command(arguments, "plain", SELF_SEED))
    return str(folder / "weights" / "last.safetensors")


def run(verb, flags):
    """Call the command line once."""
    words = ["ladle", verb, *(word for key, value in flags.items() for word in (f"--{key}", str(value)))]
    print("$ " + shlex.join(words), flush=True)
    subprocess.run([sys.executable, "-m", "ladle", *words[1:]], check=True)


def scores(arguments, row, seed):
    """Run a row once and score the weights that it leaves at the end of its budget, by the name of the row."""
    verb, flags = command(arguments, row, seed)
    run(verb, flags)
    weights = arguments.out / verb / flags["name"] / "weights"
    names = {row: "last"} if verb != "colearn" else {f"{row} ({w})": f"{w}-last" for w in ("first", "second")}
    for name, file in names.items():
        detector = load_detector(weights / f"{file}.safetensors")
        imgsz = detector.spec.imgsz
        numbers = Examiner(open_source(arguments.data, "val", Run(), imgsz), imgsz, 16)(detector).evaluation
        yield {"row": row, "method": name, "seed": seed} | numbers.row(digits=2)


def cell(values):
    """Mean and standard error of a column; a dash where it is not defined."""
    if any(math.isnan(value) for value in values):
        return "–"
    mean = statistics.fmean(values)
    if len(values) == 1:
        return f"{mean:.1f}"
    return f"{mean:.1f} ± {statistics.stdev(values) / math.sqrt(len(values)):.1f}"


def table(done):
    """The Markdown table of all rows measured so far."""
    lines = ["| method | seeds | " + " | ".join(COLUMNS) + " |", "|---|---|" + "---|" * len(COLUMNS)]
    for method in dict.fromkeys(one["method"] for one in done):
        mine = [one for one in done if one["method"] == method]
        cells = [cell([one[column] for one in mine]) for column in COLUMNS]
        lines.append(f"| {method} | {len(mine)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main():
    """Run every row over every seed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="scenes")
    parser.add_argument("--student", default=STUDENT)
    parser.add_argument("--teacher", default=str(teacher_file()))
    parser.add_argument("--rows", default="plain,lad,solad")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--epochs", type=int, default=BUDGET.epochs)
    parser.add_argument("--imgsz", type=int)
    parser.add_argument("--jitter", type=float, default=BUDGET.jitter)
    parser.add_argument("--crop", type=float, default=BUDGET.crop)
    parser.add_argument("--out", type=Path, default=Path("runs/methods"))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    file = arguments.out / "numbers.json"
    done = json.loads(file.read_text()) if file.exists() else []
    for seed in map(int, arguments.seeds.split(",")):
        for row in arguments.rows.split(","):
            if any(one["row"] == row and one["seed"] == seed for one in done):
                continue
            for one in scores(arguments, row, seed):
                done.append(one)
                print(one, flush=True)
            file.write_text(json.dumps(done, indent=1))
    print(table(done))
    by_method = {
        method: [one["AP"] for one in done if one["method"] == method] for method in {o["method"]: 0 for o in done}
    }
    print(f"wrote {draw_comparison(by_method, arguments.out / 'comparison.png')}")


if __name__ == "__main__":
    main()
