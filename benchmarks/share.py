"""The share of a training step that assignment takes, family by family, and the waits for the device in a step.

    python benchmarks/share.py --device cuda
    python benchmarks/share.py --backbone tiny --scene s640_n20 --batch 1      a first look on a CPU

A step is forward, assignment, losses, backward and SGD of a detector with random weights, which does not change the
time. Assignment is timed alone, on the predictions of the last step, as the training step calls it (from a recorded
CUDA graph) and directly; of a detector in stages the assignments of all stages together. A wait is an operation after
which the host cannot go on before the device has finished; PyTorch reports them.
"""

import argparse
import statistics
import warnings

import torch
from assigners import seconds
from peers.case import SCENES, Case
from peers.report import append_line
from step import batch_of, network, step_of

from ladle.methods import plan_for
from ladle.objectives import TrainingStep
from ladle.replays import Replayed

FAMILIES = ("retinanet", "fcos", "atss", "paa", "gfl", "tood", "autoassign", "ota", "yolox", "rtmdet")
IN_STAGES = ("fasterrcnn", "cascade")


def milliseconds(work, rounds, device):
    """The median time of a call."""
    return 1e3 * statistics.median(seconds(work, torch.device(device)) for _ in range(rounds))


def waits_in(step, device):
    """The places at which one step waits for the device, as far as PyTorch reports them."""
    if device != "cuda":
        return []
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return [f"{w.filename.rsplit('/', 2)[-1]}:{w.lineno}" for w in caught if "synchroniz" in str(w.message)]


def recorded(stage, assigners, scene):
    """The assigner of a stage, which also stores its arguments."""

    def assign(*given):
        scene[stage] = given
        return assigners[stage](*given)

    return assign


def every(assigners, scene):
    """The assignments of all stages."""
    for assign, given in zip(assigners, scene, strict=True):
        assign(*given)


def measured(family, case, arguments):
    """One row: milliseconds of a step and of assignment, and the waits."""
    batch = batch_of(case, arguments.batch, arguments.device)
    student = network(arguments.backbone, family, case.classes).to(arguments.device)
    lessons = plan_for("plain", student.spec).lessons
    assigners, objective = [Replayed(lesson.assigner) for lesson in lessons], TrainingStep(student, lessons)
    scene = [()] * len(lessons)
    objective._assigner_of = lambda lesson, _: recorded(lessons.index(lesson), assigners, scene)
    step = step_of(objective, batch)
    for _ in range(5):
        step()
    waits = waits_in(step, arguments.device)
    whole = milliseconds(step, arguments.rounds, arguments.device)
    plain = [lesson.assigner for lesson in lessons]
    direct = milliseconds(lambda: every(plain, scene), 3 * arguments.rounds, arguments.device)
    assignment = milliseconds(lambda: every(assigners, scene), 3 * arguments.rounds, arguments.device)
    return {"family": family, "step": whole, "assignment": assignment, "direct": direct, "waits": waits}


def main():
    """Print one Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scene", default="s1333_n20", choices=SCENES)
    parser.add_argument("--families", default=",".join((*FAMILIES, *IN_STAGES)))
    parser.add_argument("--backbone", default="r50")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--record", help="append the numbers to this file, one line of JSON each")
    arguments = parser.parse_args()
    case = Case(arguments.scene, arguments.device)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    print("| family | step, ms | assignment, ms | share | not replayed, ms | waits |\n|---|---|---|---|---|---|")
    for family in arguments.families.split(","):
        found = measured(family, case, arguments)
        share = found["assignment"] / found["step"]
        numbers = f"{found['step']:.1f} | {found['assignment']:.2f} | {share:.1%} | {found['direct']:.2f}"
        print(f"| {family} | {numbers} | {len(found['waits'])} {' '.join(found['waits'])} |", flush=True)
        if arguments.record:
            line = {"table": "share", "scene": arguments.scene, "backbone": arguments.backbone}
            append_line(arguments.record, line | {"device": arguments.device, "batch": arguments.batch} | found)


if __name__ == "__main__":
    main()
