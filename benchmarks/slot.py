"""What to measure first where a GPU is at hand for a few minutes only.

    python benchmarks/slot.py --minutes 8 --teacher TEACHER.safetensors
    python benchmarks/slot.py --minutes 8 --dry-run      only print what would run

The most telling measurements come first; one that no longer fits is left out. At the end runs of the methods' benchmark
share the device, as many at once as there are cores but two, until the time is over. Every number is appended to
docs/results/gpu.jsonl and docs/results/scenes.jsonl as soon as it is there, so what is stopped loses only itself.
"""

import argparse
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import product
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent
RESULTS = HERE.parent / "docs" / "results"
METHODS = (
    "plain",
    "pkd",
    "lad",
    "ld",
    "cross",
    "soft",
    "solad",
    "ld(mean_of=None)!balance=moments",
    "fgd",
    "cwd",
    "lad+ld+pkd",
)
"""The rows that are measured, in this order; all are rows of experiments/scenes.yaml."""
SEEDS = (0, 1, 2)
WAVE = 100
"""Seconds of as many runs as there are cores, measured on an H200 with 16 cores."""


class Step(NamedTuple):
    """A measurement: its command, and how many seconds it took on an H200."""

    words: str
    seconds: int


STEPS = (
    Step("-m tests.kernels.checks cuda", 30),
    Step(f"benchmarks/share.py --device cuda --rounds 5 --record {RESULTS / 'gpu.jsonl'}", 45),
    Step(
        "benchmarks/assigners.py --device cuda --scene s640_n20 --scene s1333_n150 --runs 7 --patience 0 --no-crowd "
        f"--record {RESULTS / 'gpu.jsonl'}",
        75,
    ),
    Step(
        "benchmarks/step.py --device cuda --scene s1333_n20 --student r50 --teacher r101 --batch 4 --rounds 6 "
        "--methods lad,solad --no-peer",
        35,
    ),
    Step(f"benchmarks/launches.py --device cuda --record {RESULTS / 'gpu.jsonl'}", 30),
)


def fitting(minutes: float) -> tuple[list[Step], float]:
    """The steps that fit, in order, while a wave of runs still fits after them; and the seconds that are left."""
    left, chosen = 60 * minutes, []
    for step in STEPS:
        if step.seconds + WAVE <= left or not chosen:
            chosen.append(step)
            left -= step.seconds
    return chosen, left


def runs(teacher: str, student: str, epochs: int) -> Iterator[list[str]]:
    """The commands of the methods' benchmark, one for each method and seed: all seeds of a method together."""
    for row, seed in product(METHODS, SEEDS):
        flags = f"--data scenes --student {student} --teacher {teacher} --epochs {epochs} --seeds {seed}"
        place = f"--record {RESULTS / 'scenes.jsonl'} --out runs/slot/{seed}-{METHODS.index(row)}"
        yield [sys.executable, str(HERE / "methods.py"), *shlex.split(f"{flags} {place}"), "--rows", row]


def run_side_by_side(commands: Iterator[list[str]], at_once: int, end: float) -> None:
    """Run commands, so many at once, until the time is over; then stop those that are not finished."""
    running: list[subprocess.Popen[bytes]] = []
    while time.monotonic() < end:
        running = [one for one in running if one.poll() is None]
        while len(running) < at_once and (command := next(commands, None)):
            environment = os.environ | {"OMP_NUM_THREADS": "1"}
            running.append(subprocess.Popen(command, env=environment, start_new_session=True))
        if not running:
            return
        time.sleep(1)
    for one in running:
        with suppress(ProcessLookupError):
            os.killpg(one.pid, signal.SIGTERM)  # the run and the processes that it has started
        one.wait()


def main() -> None:
    """Run what fits."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=8)
    parser.add_argument("--teacher", help="weights of the teacher for the runs; without it there are none")
    parser.add_argument("--student", default="paa+dist-tiny")
    parser.add_argument("--epochs", type=int, default=16)
    parser.add_argument("--at-once", type=int, default=max((os.cpu_count() or 1) - 2, 1))
    parser.add_argument("--dry-run", action="store_true", help="only print what would run")
    arguments = parser.parse_args()
    end = time.monotonic() + 60 * arguments.minutes
    steps, left = fitting(arguments.minutes)
    for step in steps:
        print(f"$ python {step.words}    # {step.seconds} s", flush=True)
        if not arguments.dry_run:
            most = max(min(2 * step.seconds, end - time.monotonic()), 1)
            try:
                subprocess.run([sys.executable, *shlex.split(step.words)], cwd=HERE.parent, timeout=most, check=False)
            except subprocess.TimeoutExpired:
                print(f"stopped after {most:.0f} s", flush=True)
    if arguments.teacher is None:
        return
    waves = int(left // WAVE)
    print(f"then {waves * arguments.at_once} or more of {len(METHODS) * len(SEEDS)} runs", flush=True)
    if not arguments.dry_run:
        run_side_by_side(runs(arguments.teacher, arguments.student, arguments.epochs), arguments.at_once, end)


if __name__ == "__main__":
    main()
