"""Compare the methods over seeds: the tables of docs/results.md.

    python benchmarks/methods.py --data scenes --rows plain,lad,lad+ld+pkd --seeds 0,1,2
    python benchmarks/methods.py --data DIR --teacher runs/train/NAME/weights/best.safetensors --epochs 40 --imgsz 256
    python benchmarks/methods.py --data DIR --student paa+dist-mobilenetv2_100 --teacher FILE --imgsz 416 \
        --flag optimizer=adamw --flag backbone_weights=FILE
    python benchmarks/methods.py --table docs/results/scenes.jsonl

A row is a method of ``ladle distill``, or ``plain``, optionally with changes:

    ld/mini                 with an assistant between teacher and student
    lad+pkd~0.1             with this weight for all distillers
    ld@self                 with a teacher of the student's architecture: trained plainly with seed 100 first
    plain:paa+dist-small    plain training of this detector instead of the student
    colearn:paa+dist-small  together with this second student; gives two rows
    pkd!balance=moments     with this flag of the command line; more may follow, each after a ``!``

Every run is one call of the command line, which is printed; every method of a seed starts from the same weights and
trains on the same images in the same order. The weights after the last epoch are evaluated, so that no epoch is
selected by the validation images. Results are appended to --record as soon as a run ends, one line of JSON each: the
row and its seed, all twelve numbers, the time, the commit, the teacher's SHA-256, the machine. A row and a seed that
are already in the file are not run again. Finally a Markdown table of means, standard errors and differences to the
first row is printed, and OUT/comparison.png is drawn.
"""

import argparse
import csv
import shlex
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

from records import about, append, read, same_setting, table

from ladle import load_detector
from ladle.recipes.demo import BUDGET, STUDENT, teacher_file
from ladle.recipes.devices import find_device
from ladle.recipes.options import Run
from ladle.recipes.scoring import Evaluator
from ladle.recipes.sources import open_source
from ladle.visual import draw_comparison

SELF, SELF_SEED = "self", 100


def command(arguments, row, seed):
    """The verb and the flags of a row."""
    words, *changes = row.split("!")
    flags = {"data": arguments.data, "epochs": arguments.epochs, "batch": BUDGET.batch, "lr": BUDGET.lr}
    flags |= {"jitter": arguments.jitter, "crop": arguments.crop, "eval_every": arguments.epochs, "cache": "true"}
    flags |= {"seed": seed, "name": f"{row.replace('/', '-by-').replace(':', '-')}-{seed}"}
    flags |= {"project": str(arguments.out), "quiet": "true"}
    flags |= {"workers": 0}  # several runs share the cores
    flags |= {"imgsz": arguments.imgsz} if arguments.imgsz else {}
    flags |= dict(flag.split("=", 1) for flag in arguments.flag)
    flags |= dict(change.split("=", 1) for change in changes)
    if words.partition(":")[0] == "plain":
        return "train", {"model": words.partition(":")[2] or arguments.student} | flags
    if words.startswith("colearn:"):
        return "colearn", {"first": arguments.student, "second": words.partition(":")[2]} | flags
    method, _, assistants = words.partition("/")
    method, _, weight = method.partition("~")
    method, _, taught_by = method.partition("@")
    teacher = arguments.teacher if taught_by != SELF else own_teacher(arguments)
    flags |= {"assistants": assistants} if assistants else {}
    flags |= {"weight": weight} if weight else {}
    return "distill", {"student": arguments.student, "teacher": teacher, "method": method} | flags


def own_teacher(arguments):
    """The weights of a teacher with the student's architecture, trained first if they do not exist."""
    folder = arguments.out / "train" / f"plain-{SELF_SEED}"
    if not (folder / "weights" / "last.safetensors").exists():
        run(*command(arguments, "plain", SELF_SEED))
    return str(folder / "weights" / "last.safetensors")


def run(verb, flags):
    """Call the command line once, or resume a run that was stopped."""
    words = ["ladle", verb, *(word for key, value in flags.items() for word in (f"--{key}", str(value)))]
    folder = Path(flags["project"]) / verb / flags["name"]
    if (folder / "config.yaml").exists():
        words = ["ladle", verb, "--resume", str(folder)]
    print("$ " + shlex.join(words), flush=True)
    subprocess.run([sys.executable, "-m", "ladle", *words[1:]], check=True)
    return folder


def seconds(folder):
    """Total wall time of the epochs of a run."""
    with (folder / "results.csv").open(newline="") as file:
        return round(sum(float(line["seconds"]) for line in csv.DictReader(file)))


def scores(arguments, row, seed):
    """Run a row once and evaluate the weights after the last epoch; yields results by the name of the row."""
    verb, flags = command(arguments, row, seed)
    folder = run(verb, flags)
    names = {row: "last"} if verb != "colearn" else {f"{row} ({w})": f"{w}-last" for w in ("first", "second")}
    for name, file in names.items():
        detector = load_detector(folder / "weights" / f"{file}.safetensors").to(find_device("auto"))
        imgsz = detector.spec.imgsz
        numbers = asdict(Evaluator(open_source(arguments.data, "val", Run(), imgsz), imgsz, 16)(detector).evaluation)
        del numbers["per_class"]
        percent = {name: round(100 * value, 3) for name, value in numbers.items()}
        yield ({"row": row, "method": name, "seed": seed} | percent | {"seconds": seconds(folder)})


def setting(arguments):
    """The settings shared by all rows of a table; rows with different settings are not compared."""
    names = ("student", "epochs", "imgsz", "jitter", "crop")
    chosen = {"data": Path(arguments.data).name} | {name: getattr(arguments, name) for name in names}
    flags = dict(flag.split("=", 1) for flag in arguments.flag)
    return chosen | {"batch": BUDGET.batch, "lr": BUDGET.lr} | {name: Path(flags[name]).name for name in flags}


def measure(arguments, file):
    """Run every row over every seed and append the results, seed by seed."""
    common = about(setting(arguments), arguments.teacher)
    for seed in map(int, arguments.seeds.split(",")):
        for row in arguments.rows.split(","):
            done = [one for one in read(file) if same_setting(one, common)]
            if any(one["row"] == row and one["seed"] == seed for one in done):
                continue
            for one in scores(arguments, row, seed):
                append(file, one | common)
                print(one, flush=True)
    return [one for one in read(file) if same_setting(one, common)]


def main():
    """Run every row over every seed, or print the table of earlier results."""
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
    parser.add_argument("--flag", action="append", default=[], metavar="NAME=VALUE", help="a flag of every run")
    parser.add_argument("--out", type=Path, default=Path("runs/methods"))
    parser.add_argument("--record", type=Path, help="the file of results; by default OUT/results.jsonl")
    parser.add_argument("--table", type=Path, help="print the table of this file and run nothing")
    arguments = parser.parse_args()
    if arguments.table is not None:
        print(table(read(arguments.table)))
        return
    arguments.out.mkdir(parents=True, exist_ok=True)
    done = measure(arguments, arguments.record or arguments.out / "results.jsonl")
    print(table(done))
    by_method = {
        method: [one["ap"] for one in done if one["method"] == method] for method in {o["method"]: 0 for o in done}
    }
    print(f"wrote {draw_comparison(by_method, arguments.out / 'comparison.png')}")


if __name__ == "__main__":
    main()
