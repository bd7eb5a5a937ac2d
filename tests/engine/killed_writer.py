"""Kill a process that does nothing but write, again and again, and load what it leaves."""

import os
import signal
import sys
import time
from itertools import count
from pathlib import Path

import torch

from ladle.engine.checkpoint import Checkpoint, Standing, load_checkpoint, save_checkpoint


def write_for_ever(path: Path, start: int) -> None:
    for step in count(start):
        weights = {"weight": torch.full((50_000,), float(step))}
        save_checkpoint(Checkpoint(Standing(step=step), 1, weights, {}, None, []), path)


def main(path: Path) -> None:
    write_for_ever_once(path)
    seen = []
    for kill in range(25):
        writer = os.fork()
        if writer == 0:
            write_for_ever(path, seen[-1] if seen else 1)
        time.sleep(0.005 + 0.0017 * kill)
        os.kill(writer, signal.SIGKILL)
        os.waitpid(writer, 0)
        left = load_checkpoint(path)
        assert (left.objective["weight"] == left.standing.step).all()
        seen.append(left.standing.step)
    print(len(seen), len(set(seen)))


def write_for_ever_once(path: Path) -> None:
    save_checkpoint(Checkpoint(Standing(), 1, {"weight": torch.zeros(50_000)}, {}, None, []), path)


if __name__ == "__main__":
    main(Path(sys.argv[1]) / "resume.pt")
