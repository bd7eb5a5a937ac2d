"""Kill runs at random moments, resume them, and compare what they leave with what one leaves that was never killed.

Not collected by pytest: ``python -m tests.kills.campaign FOLDER --kills 50``. A process is killed by SIGKILL after a
time that is drawn, at a file operation that is drawn, or in the middle of a file; some are killed again while they are
resumed. Nothing else is changed: weights must be the same bit for bit, and no trace of the kill may be left.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import resource
import shutil
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file

from ladle.cli.main import main
from ladle.data.scenes import write_coco
from ladle.recipes import train
from ladle.recipes.options import Run

TAUGHT = "--student paa-tiny --teacher teacher.safetensors --allow-weak-teacher"
TINY = "--epochs 2 --batch 2 --imgsz 32 --device cpu --quiet --log-every 1 --name run"
LARGER = TINY.replace("--imgsz 32", "--imgsz 64")
"""The smallest images of which multi-scale training has several sizes."""
JOBS = {
    "train": f"train --data data --model paa-tiny {TINY}",
    "cached": f"train --data data --model atss-tiny --cache --ema 0.9 --multiscale 0.5 --optimizer sgd {LARGER}",
    "distill": f"distill --data data {TAUGHT} --method lad+pkd {TINY}",
    "colearn": f"colearn --data data --first paa-tiny --second paa-tiny --method soft {TINY}",
    "chain": f"distill --data data {TAUGHT} --assistants mini --method soft {TINY}",
    "ranks": f"train --data data --model paa-tiny --devices 2 --norm group {TINY}",
}
"""A command line for each way to train."""
UNLIKE = ("seconds", "images_per_second", "waiting_for_data")
"""What two runs that are the same may tell differently."""


@dataclass(frozen=True)
class Kill:
    """When a process dies: after ``seconds``, at file operation ``operation``, or ``size`` bytes into a file of it."""

    seconds: float | None = None
    operation: int | None = None
    size: int | None = None


def child(words: list[str], kill: Kill | None, folder: Path) -> tuple[int, int]:
    """Run a command line in a forked process that may be killed; its exit code and its number of file operations."""
    reader, writer = os.pipe()
    process = os.fork()
    if process == 0:
        os.setsid()
        seen = [0]
        sys.addaudithook(lambda event, args: watch(event, args, kill, folder, seen))
        if kill is not None and kill.seconds is not None:
            signal.setitimer(signal.ITIMER_REAL, max(kill.seconds, 1e-3))  # nobody handles SIGALRM: it kills
        code = 1
        try:
            code = main(words)
            os.write(writer, str(seen[0]).encode())
        except BaseException:  # the child must never return into what called this, such as a runner of tests
            traceback.print_exc()
        finally:
            os._exit(code)
    os.close(writer)
    with os.fdopen(reader) as stream:
        told = stream.read()
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    if code < 0:
        end_group(process)
    return code, int(told or 0)


def watch(event: str, args: tuple[object, ...], kill: Kill | None, folder: Path, seen: list[int]) -> None:
    """Count the operations on files of the run, and die at the one that was drawn, or soon after it."""
    if event not in ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate"):
        return
    if not any(isinstance(path, str | Path) and str(folder) in str(Path(path).absolute()) for path in args[:2]):
        return
    seen[0] += 1
    if kill is None or kill.operation != seen[0]:
        return
    if kill.size is None:
        os.kill(os.getpid(), signal.SIGKILL)
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (kill.size, kill.size))


def end_group(process: int) -> None:
    """Kill the ranks of a killed command, and wait for their end."""
    for _ in range(200):
        try:
            os.killpg(process, signal.SIGKILL)
        except ProcessLookupError:
            return
        time.sleep(0.05)


def left_by(folder: Path) -> dict[str, object]:
    """All that a run leaves, but for times."""
    left: dict[str, object] = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder).as_posix()
        if path.suffix == ".safetensors":
            left[name] = {key: value.numpy().tobytes() for key, value in load_file(path).items()}
        elif path.name == "resume.pt":
            state = torch.load(path, weights_only=True)
            state["state"]["seconds"] = 0
            state["state"]["rows"] = [without_times(row) for row in state["state"]["rows"]]
            left[name] = str(flat(state))
        elif path.suffix == ".csv":
            left[name] = [without_times(row) for row in csv.DictReader(path.read_text().splitlines())]
        elif path.name == "report.json":
            left[name] = without_times(json.loads(path.read_text()))
        elif path.suffix == ".jsonl":
            left[name] = [without_times(json.loads(line)) for line in path.read_text().splitlines()]
        else:
            # Charts and drawings of what else is compared, and of times.
            shown = path.suffix in (".png", ".jpg") or path.name == "report.html"
            left[name] = None if shown else path.read_text().replace(str(folder), "")
    return left


def flat(value: object) -> object:
    """Tensors as bytes, at any depth."""
    if isinstance(value, torch.Tensor):
        return value.numpy().tobytes()
    if isinstance(value, dict):
        return {key: flat(one) for key, one in value.items()}
    return [flat(one) for one in value] if isinstance(value, list | tuple) else value


def without_times(row: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in row.items() if name not in UNLIKE}


def draw(dice: random.Random, seconds: float, operations: int) -> Kill:
    """A moment to die at; what comes after the end of the run does not kill."""
    kind = dice.random()
    if kind < 0.4:
        return Kill(seconds=dice.uniform(0, seconds))
    size = None if kind < 0.7 else dice.choice((0, 1, 100, 3000, 50_000, 2_000_000))
    return Kill(operation=dice.randint(1, operations), size=size)


def trial(job: str, place: Path, whole: dict[str, object], kills: Sequence[Kill]) -> str:
    """Kill a run, then the one that goes on, and so forth, and let the last one end; "same", or what is wrong."""
    begin = JOBS[job].split()
    folder = place / "runs" / begin[0] / "run"
    shutil.rmtree(place / "runs")
    died = 0
    for kill in (*kills, None):
        words = [begin[0], "--resume", str(folder)] if (folder / "config.yaml").exists() else begin
        code, _ = child(words, kill, folder)
        # Ranks are processes of their own, to which a file that grew too large is an error and no signal.
        too_large = code == 2 and kill is not None and kill.size is not None
        died += code < 0 or too_large
        if code > 0 and not too_large:
            return f"exit {code} after {died} kills of {kills}"
    left = left_by(folder)
    wrong = [name for name in sorted(left.keys() | whole.keys()) if left.get(name, 0) != whole.get(name, 0)]
    if wrong:
        return f"{', '.join(wrong)} differ after {died} kills of {kills}"
    return "same" if died else "not killed"


def begin(job: str, place: Path) -> tuple[dict[str, object], float, int]:
    """What a run leaves that is not killed, how long it takes, and its number of file operations."""
    words = JOBS[job].split()
    folder = place / "runs" / words[0] / "run"
    shutil.rmtree(place / "runs", ignore_errors=True)
    started = time.monotonic()
    code, operations = child(words, None, folder)
    assert code == 0, f"{job} fails without a kill"
    return left_by(folder), time.monotonic() - started, operations


def prepare(place: Path) -> None:
    """Make ``place`` the working directory, with data and a teacher in it."""
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"  # for ranks
    place.mkdir(parents=True, exist_ok=True)
    os.chdir(place)
    write_coco(Path("data"), train=4, val=2, size=32)
    run = Run(epochs=1, batch=2, imgsz=32, device="cpu", quiet=True, name="teacher", project="teacher", seed=5)
    shutil.copy(train("data", "paa-tiny", run).weights, "teacher.safetensors")


def campaign(place: Path, jobs: Sequence[str], kills: int, seed: int = 0) -> Counter[tuple[str, str]]:
    """Kill each kind of job so many times and count what became of them; failures are printed."""
    prepare(place)
    seen: Counter[tuple[str, str]] = Counter()
    for job in jobs:
        whole, seconds, operations = begin(job, place)
        for number in range(kills):
            dice = random.Random(f"{seed}/{job}/{number}")
            times = dice.choice((1, 1, 2, 3))
            result = trial(job, place, whole, [draw(dice, seconds, operations) for _ in range(times)])
            seen[job, result if result in ("same", "not killed") else "DIFFERENT"] += 1
            if result not in ("same", "not killed"):
                print(f"{job} {number}: {result}", flush=True)
    return seen


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--jobs", default=",".join(JOBS))
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    found = campaign(given.folder.absolute(), given.jobs.split(","), given.kills, given.seed)
    for (job, result), count in sorted(found.items()):
        print(f"{count:5} {job:10} {result}")
    sys.exit(any(result == "DIFFERENT" for _, result in found))
