"""Compare each assigner with every installed peer, on the same inputs, in one run.

    python benchmarks/assigners.py                      everything, ten minutes and more on two cores
    python benchmarks/assigners.py --quick              one scene, three runs
    python benchmarks/assigners.py --only ATSS,PAA --scene s640_n150
    python benchmarks/assigners.py --write              everything, into docs/benchmarks.md and its chart

The peers need a separate environment, in which Ladle is installed as well:

    pip install -e . -r benchmarks/peers/requirements.txt
    pip install --no-deps yolox==0.3.0

`make bench` does both and runs everything. A peer that cannot be imported is listed as absent. docs/benchmarks.md
explains what is measured and how to read the tables.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from operator import itemgetter
from typing import Any, NamedTuple

import torch
from peers import calm, mmdetection, others, report, transport
from peers.case import SCENES, Case, Ready, object_numbers
from peers.report import Line, Outcome

from ladle.replays import Replayed
from ladle.testing import example_scene
from ladle.testing.memory import peak_growth

MIB = 1 << 20
SLOW = 1.0
"""A contender that takes longer than this, in seconds, runs three times only."""
VERY_SLOW = 40.0
"""A contender that takes longer than this, in seconds, runs once."""
LONG = 60.0
"""A race that takes longer than this, in seconds, is not repeated, even if other processes interfered."""


class Peer(NamedTuple):
    """How to prepare a peer; ``alike`` builds ours with the peer's convention if it differs from our default."""

    prepare: Callable[[Case], Ready]
    alike: Callable[[Any], Any] | None = None


class Row(NamedTuple):
    """An assigner: how to build ours from the package, its inputs, its peers, and the ratio to reach.

    The first peer is the reference with which ours should agree. ``waits`` marks one that is solved on the host.
    """

    ours: Callable[[Any], Any]
    inputs: Callable[[Any], tuple[Any, ...]]
    peers: dict[str, Peer]
    bar: float | None = None
    work: Callable[[Any, tuple[Any, ...]], Ready] | None = None
    waits: bool = False


def assigning(rule: Any, inputs: tuple[Any, ...]) -> Ready:
    """Assign only."""
    return Ready(lambda: rule(*inputs), object_numbers)


def like_ultralytics(ladle: Any) -> Any:
    """YOLOv8's rule with TOOD's numbers."""
    return ladle.TaskAligned(inside="before", overlap="ciou", margin=1e-9, eps=1e-9, conflict="all", least_side=16)


def learning(rule: Any, inputs: tuple[Any, ...]) -> Ready:
    """Assign, compute the losses and their gradients; the result is the gradient of the class logits."""
    from ladle.criteria import BagCriterion
    from ladle.types import Output

    predictions, priors, truth = inputs
    logits = predictions.logits
    spread = torch.tensor([0.0, 0.0, 1.0, 1.0], device=logits.device).expand(logits.shape[2], 4)
    leaf = replace(predictions, center_prior=spread.expand(len(logits), -1, -1))
    leaf = leaf.map(lambda tensor: tensor.detach().clone().requires_grad_())
    criterion = BagCriterion()

    def work() -> None:
        for tensor in (leaf.logits, leaf.boxes, leaf.quality, leaf.center_prior):
            tensor.grad = None
        plan = rule(leaf, priors, truth)
        terms = criterion(Output(leaf, priors, ()), truth, plan).values()
        sum(term.total / torch.maximum(term.count, term.floor) for term in terms).backward()

    return Ready(work, lambda _: leaf.logits.grad.clone())


ROWS = {
    "MaxIoU": Row(
        lambda ladle: ladle.MaxIoU(),
        lambda case: case.at_anchors(),
        {
            "mmdetection": Peer(mmdetection.max_iou),
            "torchvision": Peer(others.torchvision_matcher, lambda ladle: ladle.MaxIoU(rescued="prior")),
        },
        bar=2,
    ),
    "FCOS": Row(
        lambda ladle: ladle.FCOS(),
        lambda case: case.at_points(),
        {
            "mmdetection": Peer(mmdetection.fcos),
            "torchvision": Peer(others.torchvision_fcos, lambda ladle: ladle.FCOS(closed=False)),
        },
        bar=3,
    ),
    "PseudoIoU": Row(lambda ladle: ladle.PseudoIoU(), lambda case: case.at_points(), {}),
    "ATSS": Row(
        lambda ladle: ladle.ATSS(),
        lambda case: case.at_anchors(),
        {"mmdetection": Peer(mmdetection.atss)},
        bar=5,
    ),
    "PAA": Row(
        lambda ladle: ladle.PAA(),
        lambda case: case.at_anchors(),
        {"mmdetection with scikit-learn": Peer(mmdetection.paa)},
        bar=20,
    ),
    "OTA": Row(
        lambda ladle: ladle.OTA(),
        lambda case: case.at_points(),
        {
            "plain loop, float64": Peer(transport.loop64),
            "plain loop, float32": Peer(transport.loop32),
            "POT, torch float32": Peer(transport.pot32),
            "POT, numpy float64": Peer(transport.pot64),
        },
        bar=50,
    ),
    "SimOTA": Row(
        # The rule of the peers: no release of YOLOX that can be installed has the current rule, which is the default.
        lambda ladle: ladle.SimOTA(radius=2.5, candidates="center or box", penalty=1e5),
        lambda case: case.at_points(),
        {"YOLOX": Peer(others.yolox), "mmdetection": Peer(mmdetection.sim_ota)},
        bar=30,
    ),
    "TaskAligned": Row(
        lambda ladle: ladle.TaskAligned(),
        lambda case: case.at_points(),
        {"mmdetection": Peer(mmdetection.task_aligned), "Ultralytics": Peer(others.ultralytics, like_ultralytics)},
        bar=3,
    ),
    "DynamicSoftLabel": Row(
        lambda ladle: ladle.DynamicSoftLabel(),
        lambda case: case.at_points(),
        {"mmdetection": Peer(mmdetection.dynamic_soft_label)},
        bar=10,
    ),
    "AutoAssign": Row(
        lambda ladle: ladle.AutoAssign(),
        lambda case: case.at_distances(),
        {"mmdetection": Peer(mmdetection.auto_assign)},
        bar=3,
        work=learning,
    ),
    "Hungarian": Row(
        lambda ladle: ladle.Hungarian(),
        lambda case: case.at_queries(),
        {"mmdetection": Peer(mmdetection.hungarian), "transformers": Peer(others.transformers)},
        waits=True,
    ),
}


# ---------------------------------------------------------------------------------------------------------- measuring


@contextmanager
def no_host_waits(device: torch.device) -> Iterator[None]:
    """On a CUDA device, raise an error for an operation that waits for the device."""
    if device.type != "cuda":
        yield
        return
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def seconds(work: Callable[[], Any], device: torch.device) -> float:
    """Wall time of one call, including the work that it starts on the device."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def peak(work: Callable[[], Any], device: torch.device) -> float:
    """Largest growth of the process, or of the device's allocations, during one call, in MiB."""
    if device.type != "cuda":
        return max(0, peak_growth(work)) / MIB
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    work()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / MIB


def race(contenders: dict[str, Ready], runs: int, device: torch.device) -> dict[str, Outcome]:
    """Medians and peaks of all contenders, measured in turns, so that other processes affect all of them equally."""
    once = {name: seconds(ready.work, device) for name, ready in contenders.items()}
    peaks = {name: peak(ready.work, device) for name, ready in contenders.items()}
    counts = {
        name: 1 if took > VERY_SLOW else min(runs, 3) if took > SLOW else max(runs, 3) for name, took in once.items()
    }
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(max(counts.values())):
        for name, ready in contenders.items():
            if turn < counts[name]:
                times[name].append(1e3 * seconds(ready.work, device))
    return {
        name: Outcome(statistics.median(taken), min(taken), peaks[name], counts[name]) for name, taken in times.items()
    }


def calm_race(
    contenders: dict[str, Ready], runs: int, device: torch.device, patience: float
) -> tuple[dict[str, Outcome], float]:
    """The race with the least load from other processes, of up to three, and the share of that load."""
    best: tuple[dict[str, Outcome], float] = {}, torch.inf
    for _ in range(3 if patience else 1):
        calm.wait(patience)
        watch, start = calm.Watch(), time.monotonic()
        outcomes = race(contenders, runs, device)
        best = min(best, (outcomes, watch.share), key=itemgetter(1))
        if best[1] < calm.CALM or time.monotonic() - start > LONG:
            break
    return best


def agreement(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """Percentage of priors with the same result, among those that are not background in both.

    For floats: percentage of nonzero values that are equal to a relative error of a thousandth.
    """
    ours, theirs = ours.cpu(), theirs.cpu()
    some = (ours != 0) | (theirs != 0)
    same = torch.isclose(ours, theirs, 1e-3, 1e-6 * float(theirs.abs().max())) if ours.is_floating_point() else None
    same = ours == theirs if same is None else same
    return 100.0 * float((same & some).sum()) / max(int(some.sum()), 1)


# ------------------------------------------------------------------------------------------------------------ one row


class AbsentError(Exception):
    """The reason why a contender cannot be measured."""


def attempt(what: Callable[[], Any]) -> Any:
    """Call ``what``; a missing or failing contender raises :class:`AbsentError` with a reason of one line."""
    try:
        return what()
    except ImportError as error:
        raise AbsentError(f"absent: {str(error).splitlines()[0]}") from error
    except Exception as error:
        raise AbsentError(f"fails: {type(error).__name__}: {(str(error).splitlines() or [''])[0][:120]}") from error


def package() -> Any:
    """Ladle's assigners, imported when their row is measured."""
    from ladle import assigners

    return assigners


def own(
    row: Row, case: Any, build: Callable[[Any], Any] | None = None, compiled: bool = False, replayed: bool = False
) -> Ready:
    """Ours with its inputs; on CUDA an operation that waits for the device raises an error."""
    try:
        rule = (build or row.ours)(package())
    except AttributeError as error:
        raise ImportError(str(error)) from error
    inputs = row.inputs(case)
    if replayed:
        rule = Replayed(rule)
        for _ in range(3):
            rule(*inputs)
    rule(*inputs)  # constants are copied to the device at the first call
    if compiled:
        torch.compiler.reset()
        rule = torch.compile(rule.__call__, fullgraph=True)
    ready = (row.work or assigning)(rule, inputs)

    def work() -> Any:
        with nullcontext() if row.waits else no_host_waits(case.device):
            return ready.work()

    return Ready(work, ready.read)


def compare(name: str, case: Case, scene: str, arguments: argparse.Namespace) -> Line:
    """One row of the table: build the contenders, compare their results, then measure them."""
    row = ROWS[name]
    ready: dict[str, Ready] = {}
    outcomes: dict[str, Outcome] = {}
    answers: dict[str, torch.Tensor] = {}
    builders: dict[str, Callable[[], Ready]] = {"ours": lambda: own(row, case)}
    if arguments.compile:
        builders["compiled"] = lambda: own(row, case, compiled=True)
    if case.device.type == "cuda" and not row.waits and row.work is None:
        builders["replayed"] = lambda: own(row, case, replayed=True)
    builders |= {title: lambda peer=peer: peer.prepare(case) for title, peer in row.peers.items()}
    for title, build in builders.items():
        try:
            contender = attempt(build)
            answers[title] = attempt(lambda contender=contender: contender.read(contender.work()))
            ready[title] = contender
        except AbsentError as reason:
            outcomes[title] = Outcome(note=str(reason))
    raced, foreign = calm_race(ready, arguments.runs, case.device, arguments.patience) if ready else ({}, 0.0)
    outcomes |= raced
    for title, peer in row.peers.items():
        if title in answers and "ours" in answers:
            alike = own(row, case, peer.alike) if peer.alike else None
            mine = alike.read(alike.work()) if alike else answers["ours"]
            outcomes[title] = outcomes[title]._replace(same=agreement(mine, answers[title]))
    return Line(scene, name, outcomes, row.bar, tuple(row.peers), foreign)


class Crowd(Case):
    """One image of 640 x 640 with 2,000 objects."""

    def __init__(self, device: str) -> None:
        self.device, self.size = torch.device(device), (640, 640)
        records = example_scene(batch=1, objects=2000, size=self.size, classes=80)
        self.records = tuple(record.to(self.device) for record in records)

    def at_anchors(self) -> tuple[Any, Any, Any]:
        """The same records for anchors and for points."""
        return self.records

    at_points = at_distances = at_queries = at_anchors


def crowd_peaks(names: list[str], device: str) -> dict[str, tuple[Outcome, Outcome]]:
    """Peak memory of ours with many objects, after one warm-up call."""

    def one(name: str, case: Case) -> Outcome:
        try:
            ready = attempt(lambda: own(ROWS[name], case))
            attempt(ready.work)
            return Outcome(mb=peak(ready.work, case.device))
        except AbsentError as reason:
            return Outcome(note=str(reason))

    cases = Crowd(device), Case("s1333_n150", device)
    return {name: tuple(one(name, case) for case in cases) for name in names}


# ------------------------------------------------------------------------------------------------------------ the run


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2, help="threads of every contender (2)")
    parser.add_argument("--runs", type=int, default=11, help="timed runs; three of what takes over a second (11)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda; on cuda ours must not wait for the device")
    parser.add_argument("--only", help="names of assigners, separated by commas")
    parser.add_argument("--scene", action="append", choices=list(SCENES), help="may be given several times")
    parser.add_argument("--quick", action="store_true", help="one scene and three runs")
    parser.add_argument("--compile", action="store_true", help="time ours under torch.compile(fullgraph=True) as well")
    parser.add_argument("--patience", type=float, default=60, help="seconds to wait for a calm machine (60); 0: none")
    parser.add_argument("--no-crowd", action="store_true", help="leave out the peak memory with many objects")
    parser.add_argument("--record", help="append the numbers to this file, one line of JSON each")
    parser.add_argument("--write", action="store_true", help="write docs/benchmarks.md and its chart")
    arguments = parser.parse_args()
    if arguments.write and (arguments.only or arguments.scene or arguments.quick or arguments.no_crowd):
        parser.error("--write takes the whole run: leave out --only, --scene, --quick and --no-crowd")
    arguments.only = arguments.only.split(",") if arguments.only else list(ROWS)
    if unknown := [name for name in arguments.only if name not in ROWS]:
        parser.error(f"there is no assigner {unknown[0]!r}, expected one of {', '.join(ROWS)}")
    arguments.scene = arguments.scene or (["s640_n20"] if arguments.quick else list(SCENES))
    arguments.runs = 3 if arguments.quick else arguments.runs
    return arguments


def main() -> None:
    """Measure, print, and write if asked to."""
    arguments = parse()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(arguments.threads)
    with suppress(ImportError):
        from threadpoolctl import threadpool_limits

        threadpool_limits(arguments.threads)
    lines = []
    for scene in arguments.scene:
        case = Case(scene, arguments.device)
        for name in arguments.only:
            lines.append(compare(name, case, scene, arguments))
            report.progress(lines[-1])
            if arguments.record:
                report.record(arguments.record, lines[-1], arguments.device)
    crowds = {} if arguments.no_crowd else crowd_peaks(arguments.only, arguments.device)
    report.show(lines, crowds)
    if arguments.write:
        report.write(lines, crowds, arguments)


if __name__ == "__main__":
    main()
