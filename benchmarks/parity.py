"""Agreement of every assigner with its peers, on small scenes of other seeds than the recorded results.

    python benchmarks/parity.py [SEEDS]

Needs the environment of ``benchmarks/assigners.py``. Prints the mean and the minimum of the agreement over the seeds,
in percent of the priors that are not background in both; for AutoAssign, of the gradients.
"""

import sys
import warnings

import torch
from assigners import ROWS, Peer, Row, agreement, own
from peers.case import Case
from rich.console import Console
from rich.table import Table

SCENES = ("tiny", "edge")


def main(seeds: int) -> None:
    """Compare on every seed and print one table."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    table = Table("assigner", "peer", *SCENES)
    for name, row in ROWS.items():
        for title, peer in row.peers.items():
            table.add_row(name, title, *(compared(row, peer, scene, seeds) for scene in SCENES))
    Console(width=120).print(table)


def compared(row: Row, peer: Peer, scene: str, seeds: int) -> str:
    """Mean and minimum of the agreement, or the error of the peer."""
    shares = []
    for seed in range(1, seeds + 1):
        case = Case(scene, seed=seed)
        ours, theirs = own(row, case, peer.alike), peer.prepare(case)
        try:
            answer = theirs.read(theirs.work())
        except (ValueError, UnboundLocalError) as error:
            return f"fails: {type(error).__name__}"
        shares.append(agreement(ours.read(ours.work()), answer))
    return f"{sum(shares) / seeds:.2f} (least {min(shares):.2f})"


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
