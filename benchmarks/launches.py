"""How many operations one call of each assigner starts on a GPU, and how much memory it takes; counted on any machine.

    python benchmarks/launches.py
    python benchmarks/launches.py --device cuda     also whether a GPU gives the plans of the CPU, on ten seeds

Starting a kernel takes 5 to 10 microseconds, whatever it computes. Operations are counted on the path that a GPU takes,
views left out; a fused operation counts as the number of kernels that it starts. The number must not depend on how many
objects there are.
"""

import argparse

from assigners import ROWS, package
from peers.case import SCENES, Case
from peers.report import append_line

from ladle.testing.operations import operations_on_a_gpu

SEEDS = range(10)
SIMILAR = {
    "MaxIoU by SimD": ROWS["MaxIoU"]._replace(ours=lambda ladle: ladle.MaxIoU(overlap=ladle.SimD(2.0, 2.0))),
    "ATSS by SimD": ROWS["ATSS"]._replace(ours=lambda ladle: ladle.ATSS(overlap=ladle.SimD(2.0, 2.0))),
}
"""Assigners with SimD in place of the IoU, which the comparison with other libraries does not have."""
COUNTED = ROWS | SIMILAR


def counted(name):
    """Operations and peak memory of one assigner on two scenes."""
    row = COUNTED[name]
    found = {}
    for scene in ("s640_n20", "s1333_n150"):
        rule, inputs = row.ours(package()), row.inputs(Case(scene))
        found[scene] = operations_on_a_gpu(lambda rule=rule, inputs=inputs: rule(*inputs))
    return found


def agreement(name):
    """The share of priors that learn something on either device for which both give the same, over ten seeds."""
    row, same, some, weight = COUNTED[name], 0, 0, 0.0
    for seed in SEEDS:
        rule = row.ours(package())
        here = rule(*row.inputs(Case("s640_n20", seed=seed)))
        there = rule(*row.inputs(Case("s640_n20", "cuda", seed=seed))).to("cpu")
        objects = int(max(here.objects.max(), there.objects.max())) + 1
        first, second = here.dense(objects), there.dense(objects)
        marked = (first > 0).any(-1) | (second > 0).any(-1)
        equal = ((first > 0) == (second > 0)).all(-1) & (here.background == there.background)
        same, some = same + int((equal & marked).sum()), some + int(marked.sum())
        weight = max(weight, float((first - second).abs()[equal].max()))
    return {"same": same, "of": some, "largest_difference_of_weights": weight}


def main():
    """Print one Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--record", help="append the numbers to this file, one line of JSON each")
    arguments = parser.parse_args()
    print(f"| assigner | {SCENES['s640_n20']} | {SCENES['s1333_n150']} | peak, MiB | agrees with the CPU |")
    print("|---|---|---|---|---|")
    for name, row in COUNTED.items():
        if row.waits:
            continue
        few, many = counted(name).values()
        alike = agreement(name) if arguments.device == "cuda" else {}
        shown = f"{alike['same']} of {alike['of']}" if alike else ""
        print(f"| {name} | {few.launches} | {many.launches} | {many.peak / 2**20:.0f} | {shown} |", flush=True)
        if arguments.record:
            line = {"table": "launches", "assigner": name, "few": few.launches, "many": many.launches}
            line |= {"peak": many.peak, "device": arguments.device}
            append_line(arguments.record, line | alike)


if __name__ == "__main__":
    main()
