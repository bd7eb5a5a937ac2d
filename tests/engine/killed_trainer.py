"""Train in one go, and again with a kill in between: what the two leave must be the same.

Runs as a process of its own, for the run-time type checks of the tests draw from python's random numbers.
"""

import os
import signal
import sys
from pathlib import Path

from lightning_fabric import Fabric
from torch import nn

from .toy import score, train


def train_and_die(fabric: Fabric, folder: Path, epoch: int) -> None:
    """Train until the evaluation after ``epoch``, then be killed."""
    scores = []

    def deadly(module: nn.Module) -> dict[str, float]:
        scores.append(score(module))
        if len(scores) == epoch:
            os.kill(os.getpid(), signal.SIGKILL)
        return scores[-1]

    train(fabric, folder, evaluate=deadly)


def main(folder: Path) -> None:
    fabric = Fabric(accelerator="cpu", devices=1)
    trainer = os.fork()
    if trainer == 0:
        train_and_die(fabric, folder / "broken", epoch=3)
    _, status = os.waitpid(trainer, 0)
    print(os.waitstatus_to_exitcode(status), (folder / "broken" / "results.csv").read_text().count("\n"))
    train(fabric, folder / "whole")
    train(fabric, folder / "broken", resume=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
