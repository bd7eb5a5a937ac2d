"""Compare the methods over seeds: an experiment of rows and seeds on one data set, with one student and one teacher.

    python benchmarks/methods.py --experiment benchmarks/experiments/scenes.yaml --teacher FILE
    python benchmarks/methods.py --experiment benchmarks/experiments/aquarium.yaml --data DIR --teacher FILE --at-once 8
    python benchmarks/methods.py --rows plain,lad,lad+ld+pkd --seeds 0,1,2
    python benchmarks/methods.py --table docs/results/scenes.jsonl

An experiment is a file of the same options: its rows, seeds, data, student and the flags of every run. What is given on
the command line overrides it.

A row is a method of ``ladle distill``, or ``plain``, optionally with changes:

    ld/mini                 with an assistant between teacher and student
    lad+pkd~0.1             with this weight for all distillers
    ld@self                 with a teacher of the student's architecture: trained plainly with seed 100 first
    plain:paa+dist-small    plain training of this detector instead of the student
    colearn:paa+dist-small  together with this second student; gives two rows
    plain:tood+o2o-tiny     a one-to-one head; its one-to-many head is evaluated too, with NMS
    pkd!balance=moments     with this flag of the command line; more may follow, each after a ``!``
    lad!unlabelled=given    with the images of --unlabelled, for which a file of an experiment has no path
    plain!backbone_weights= without this flag of the experiment
    torchvision:NAME        a detector of torchvision from random weights, with its own assignment and losses

Every run is one call of the command line, which is printed; every method of a seed starts from the same weights and
trains on the same images in the same order. The weights after the last epoch are evaluated, so that no epoch is
selected by the validation images. Results are appended to --record as soon as a run ends, one line of JSON each: the
row and its seed, all twelve numbers, AP by class, the time, where a teacher judges its agreement with the student in
every epoch, the commit, the teacher's SHA-256, the machine. A row and a seed that are already in the file are not run
again, and a run that was stopped is resumed. Finally a Markdown table of means, standard errors and differences to the
first row is printed, and OUT/comparison.png is drawn.
"""

import argparse
import csv
import shlex
import subprocess
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path

import torchvisions
import yaml
from records import TORCHVISION, about, append, read, same_setting, table

from ladle import load_detector
from ladle.detectors import Detector
from ladle.families import detector_spec
from ladle.recipes.demo import BUDGET, STUDENT, teacher_file
from ladle.recipes.devices import find_device
from ladle.recipes.options import Run
from ladle.recipes.scoring import Evaluator
from ladle.recipes.sources import open_source
from ladle.visual import draw_comparison

SELF, SELF_SEED, GIVEN = "self", 100, "given"


def command(arguments, row, seed):
    """The verb and the flags of a row. Runs of other flags have other names, since a run that is there is resumed."""
    verb, flags = flags_of(arguments, row, seed)
    digest = zlib.crc32(repr(sorted((key, str(value)) for key, value in flags.items())).encode())
    return verb, flags | {"name": f"{row.replace('/', '-by-').replace(':', '-')}-{seed}-{digest:08x}"}


def flags_of(arguments, row, seed):
    """The verb and the flags of a row, without the name of the run."""
    words, *changes = row.split("!")
    flags = {"data": arguments.data, "epochs": arguments.epochs, "batch": BUDGET.batch, "lr": BUDGET.lr}
    flags |= {"jitter": arguments.jitter, "crop": arguments.crop, "eval_every": arguments.epochs, "cache": "true"}
    flags |= {"seed": seed, "project": str(arguments.out), "quiet": "true"}
    flags |= {"workers": 0}  # several runs share the cores
    flags |= {"imgsz": arguments.imgsz} if arguments.imgsz else {}
    flags |= pairs(arguments.flag) | pairs(changes)
    flags = {name: value for name, value in flags.items() if value != ""}
    if flags.get("unlabelled") == GIVEN:
        flags["unlabelled"] = arguments.unlabelled
    if words.startswith(TORCHVISION):
        return TORCHVISION, flags
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


def pairs(words):
    """Names and values of words such as ``lr=0.001``."""
    return dict(word.split("=", 1) for word in words)


def own_teacher(arguments):
    """The weights of a teacher with the student's architecture, trained first if they do not exist."""
    verb, flags = command(arguments, "plain", SELF_SEED)
    folder = arguments.out / verb / flags["name"]
    if not (folder / "weights" / "last.safetensors").exists():
        run(verb, flags)
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


def by_epoch(folder):
    """The total wall time of a run and, where a teacher judges, its agreement with the student in every epoch."""
    with (folder / "results.csv").open(newline="") as file:
        epochs = list(csv.DictReader(file))
    shares = [round(float(epoch["agreement"]), 4) for epoch in epochs if epoch.get("agreement")]
    total = round(sum(float(epoch["seconds"]) for epoch in epochs))
    return {"seconds": total} | ({"agreement": shares} if shares else {})


def scores(arguments, row, seed):
    """Run a row once and evaluate the weights after the last epoch; yields results by the name of the row."""
    verb, flags = command(arguments, row, seed)
    if verb == TORCHVISION:
        folder, evaluation = torchvisions.train(row.partition("!")[0].partition(":")[2], flags)
        yield {"row": row, "method": row, "seed": seed} | percent(evaluation) | by_epoch(folder)
        return
    folder = run(verb, flags)
    names = {row: "last"} if verb != "colearn" else {f"{row} ({w})": f"{w}-last" for w in ("first", "second")}
    for name, file in names.items():
        detector = load_detector(folder / "weights" / f"{file}.safetensors").to(find_device("auto"))
        yield {"row": row, "method": name, "seed": seed} | evaluated(arguments, detector) | by_epoch(folder)
        if detector.spec.one_to_one:
            found = evaluated(arguments, with_suppression(detector))
            name = f"{row} (one-to-many head, NMS)"
            yield {"row": row, "method": name, "seed": seed} | found | by_epoch(folder)


def evaluated(arguments, detector):
    """All numbers of a detector in percent, on the validation images."""
    imgsz = detector.spec.imgsz
    return percent(Evaluator(open_source(arguments.data, "val", Run(), imgsz), imgsz, 16)(detector).evaluation)


def percent(evaluation):
    """An evaluation as numbers in percent."""
    numbers = asdict(evaluation)
    classes = {label: round(100 * value, 3) for label, value in numbers.pop("per_class").items()}
    most = numbers.pop("most")
    return {key: round(100 * value, 3) for key, value in numbers.items()} | {"most": most, "per_class": classes}


def with_suppression(detector):
    """The same network with its one-to-many head, which needs NMS, in place of the one-to-one head."""
    usual = detector_spec(detector.spec.name.replace("+o2o", ""), detector.spec.classes)
    spec = replace(detector.spec, one_to_one=False, inference=usual.inference)
    return Detector(spec, detector.backbone, detector.neck, list(detector.stages)).to(find_device("auto"))


def setting(arguments):
    """The settings shared by all rows of a table; rows with different settings are not compared."""
    names = ("student", "epochs", "imgsz", "jitter", "crop")
    chosen = {"data": Path(arguments.data).name} | {name: getattr(arguments, name) for name in names}
    flags = pairs(arguments.flag)
    return chosen | {"batch": BUDGET.batch, "lr": BUDGET.lr} | {name: Path(flags[name]).name for name in flags}


def measure(arguments, file):
    """Run every row over every seed that the file lacks, some at once, and append each result as it comes."""
    common = about(setting(arguments), arguments.teacher)
    known = {(one["row"], one["seed"]) for one in read(file) if same_setting(one, common)}
    wanted = [(row, int(seed)) for row in arguments.rows.split(",") for seed in arguments.seeds.split(",")]

    def record(wish):
        for one in scores(arguments, *wish):
            append(file, one | common)
            print(one, flush=True)

    if any(f"@{SELF}" in row for row, _ in wanted):
        own_teacher(arguments)  # before several runs need it
    with ThreadPoolExecutor(arguments.at_once) as pool:
        list(pool.map(record, [wish for wish in wanted if wish not in known]))  # a list raises what a run has raised
    return [one for one in read(file) if same_setting(one, common)]


def options():
    """The parser of the command line, whose defaults are those of the experiment's file if one is given."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--experiment", type=Path, help="a file of these options")
    parser.add_argument("--data", default="scenes")
    parser.add_argument("--unlabelled", help="a folder of images without labels, for rows with !unlabelled=given")
    parser.add_argument("--student", default=STUDENT)
    parser.add_argument("--teacher", default=str(teacher_file()))
    parser.add_argument("--rows", default="plain,lad,solad")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--epochs", type=int, default=BUDGET.epochs)
    parser.add_argument("--imgsz", type=int)
    parser.add_argument("--jitter", type=float, default=BUDGET.jitter)
    parser.add_argument("--crop", type=float, default=BUDGET.crop)
    parser.add_argument("--flag", action="append", default=[], metavar="NAME=VALUE", help="a flag of every run")
    parser.add_argument("--at-once", type=int, default=1, help="runs at the same time")
    parser.add_argument("--out", type=Path, default=Path("runs/methods"))
    parser.add_argument("--record", type=Path, help="the file of results; by default OUT/results.jsonl")
    parser.add_argument("--table", type=Path, help="print the table of this file and run nothing")
    return parser


def parse(words=None):
    """The options; those of an experiment's file are defaults, and its flags come before others."""
    parser = options()
    chosen, _ = parser.parse_known_args(words)
    if chosen.experiment is not None:
        given = yaml.safe_load(chosen.experiment.read_text(encoding="utf-8"))
        known = set(vars(chosen)) - {"experiment", "table"}
        experiment = {name: given[name] for name in given if name in known}
        parser.set_defaults(**experiment | {"rows": ",".join(given["rows"].values()), "flag": given.get("flag", [])})
    return parser.parse_args(words)


def main():
    """Run every row over every seed, or print the table of earlier results."""
    arguments = parse()
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
