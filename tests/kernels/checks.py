"""Each Triton kernel beside its plain function, on the same inputs; prints a line of JSON for each.

    TRITON_INTERPRET=1 python -m tests.kernels.checks           in Triton's interpreter, on any machine
    python -m tests.kernels.checks cuda                         on a GPU

It runs in a process of its own, because run-time type checkers cannot read Triton's functions.
"""

import json
import sys
import traceback
from collections import Counter
from functools import partial

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from ladle import all_pairs, overlaps, pairs, windows
from ladle.assigners import OTA, atss, dynamic_k, fcos, mixture, sinkhorn
from ladle.device import LAUNCHES, as_on_a_gpu
from ladle.kernels import conflicts, nearest, points
from ladle.kernels import mixture as mixture_kernel
from ladle.kernels import overlaps as overlaps_kernel
from ladle.kernels import sinkhorn as sinkhorn_kernel
from ladle.kernels import windows as windows_kernel
from ladle.testing import example_scene

DEVICE = sys.argv[1] if len(sys.argv) > 1 else "cpu"


def scene(seed=0):
    """Predictions, priors with invalid ones in the second image, and objects with a crowd and padding."""
    torch.manual_seed(seed)
    predictions, priors, truth = (record.to(DEVICE) for record in example_scene(batch=2, objects=7, size=(64, 96)))
    truth.crowd[:, 2] = True
    truth.valid[1, 5:] = False
    valid = torch.ones(2, priors.boxes.shape[1], dtype=torch.bool, device=DEVICE)
    start = 0
    for grid in priors.grids:
        cells = valid[1, start : start + grid.height * grid.width * grid.each].view(grid.height, grid.width, grid.each)
        cells[-(-grid.height * 3 // 4) :], cells[:, -(-grid.width * 2 // 3) :] = False, False
        start += grid.height * grid.width * grid.each
    return predictions, priors, truth, valid


def equal(kernel, plain, arguments, only=None):
    """Whether all results are the same; ``only`` maps two results to the entries that count."""
    first, second = plain(*arguments), kernel(*arguments)
    first, second = ((each,) if isinstance(each, torch.Tensor) else each for each in (first, second))
    for number, (one, other) in enumerate(zip(first, second, strict=True)):
        mask = only(first) if only is not None and number == 0 else torch.ones_like(one, dtype=torch.bool)
        assert one.shape == other.shape, number
        assert one.dtype == other.dtype, number
        assert torch.equal(one[mask], other[mask]), f"{int((one != other)[mask].sum())} of result {number} differ"


def close(kernel, plain, arguments):
    """Whether numbers differ by rounding at most, for exp is rounded otherwise, and all else is the same."""
    for one, other in zip(plain(*arguments), kernel(*arguments), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=0.0)


def best_overlaps():
    predictions, priors, truth, valid = scene()
    for boxes, trust in ((priors.boxes, None), (predictions.boxes, predictions.scores.contiguous())):
        for rescue in (-1.0, 0.0, 0.3):
            arguments = (boxes, valid, truth.boxes, truth.labels, truth.learnable, rescue, trust)
            equal(overlaps_kernel.best_overlaps, overlaps._best_overlaps, (*arguments, []))
            close(overlaps_kernel.best_overlaps, overlaps._best_overlaps, (*arguments, [2.0, 1.5]))
    none = truth.map(lambda tensor: tensor[:, :0])
    arguments = (priors.boxes, valid, none.boxes, none.labels, none.learnable, 0.0, None, [])
    equal(overlaps_kernel.best_overlaps, overlaps._best_overlaps, arguments)


def outside_crowds():
    _, priors, truth, valid = scene()
    for mask in (valid, valid[:1]):
        arguments = (priors.boxes, mask, truth.boxes, truth.crowd, 0.5)
        assert not overlaps_kernel.outside_crowds(*arguments)[valid.expand(2, -1)].all()
        equal(overlaps_kernel.outside_crowds, overlaps._outside_crowds, arguments)


def iou_matrix():
    predictions, _, truth, _ = scene()
    predictions.boxes[0, 3] = 0.0
    equal(overlaps_kernel.iou_matrix, all_pairs._iou_matrix, (predictions.boxes, truth.boxes))
    predictions.boxes[0, 5, 1] = torch.nan
    assert overlaps_kernel.iou_matrix(predictions.boxes, truth.boxes)[0, :, 5].isnan().all()


def smallest_object():
    _, priors, truth, valid = scene()
    bounds = torch.tensor([-1.0, 24.0, 48.0, torch.inf], device=DEVICE)
    for radius in (1.5, 0.0):
        for closed in (True, False):
            points_ = (priors.boxes, priors.stride, priors.level, valid)
            arguments = (*points_, truth.boxes, truth.learnable, bounds, radius, closed)
            equal(points.smallest_object, fcos._smallest_object, arguments)


def inside_any():
    _, priors, truth, valid = scene()
    regions = windows.squares(priors, truth, 1.5)
    arguments = (priors.boxes, priors.level, valid, regions, truth.learnable)
    equal(points.inside_any, dynamic_k._inside_any, arguments)


def inside_matrix():
    _, priors, truth, _ = scene()
    for margin in (0.0, 4.0):
        arguments = (priors.boxes, priors.level, windows.squares(priors, truth, 1.5), margin)
        equal(points.inside_matrix, all_pairs._inside_matrix, arguments)


def best_pairs():
    torch.manual_seed(0)
    number, batch, count = 500, 2, 90
    image = torch.randint(0, batch, (number,)).sort().values
    listed = (image, torch.randint(0, 6, (number,)), torch.randint(0, count, (number,)), torch.rand(number) > 0.3)
    listed = tuple(each.to(DEVICE) for each in listed)
    score = (torch.randn(number) * 3).round().to(DEVICE) / 3  # with ties, zeros and minus zeros
    for each in (score, score.double() + 1e-12 * torch.arange(number, device=DEVICE).double()):
        equal(conflicts.best_pairs, pairs._best_pairs, (*listed, each, batch, count))
    empty = tuple(each[:0] for each in (*listed, score))
    equal(conflicts.best_pairs, pairs._best_pairs, (*empty, batch, count))


def nearest_candidates():
    _, priors, truth, valid = scene()
    grids = [float(value) for grid in priors.grids for value in grid]
    for topk, numbers in ((9, []), (3, []), (9, [2.0, 1.5])):
        arguments = (priors.boxes, valid, truth.boxes, truth.learnable, grids, topk, 0.01, numbers)
        first, second = atss._nearest_candidates(*arguments), nearest.nearest_candidates(*arguments)
        found = first[1]
        assert torch.equal(found, second[1])
        assert torch.equal(first[0][found], second[0][found])
        torch.testing.assert_close(first[2][found], second[2][found], rtol=1e-6 if numbers else 0.0, atol=0.0)
        assert torch.equal(first[3], second[3])


def window_priors():
    _, priors, truth, valid = scene()
    grids = [float(value) for grid in priors.grids for value in grid]
    for radius in (2.5, 1.5):
        regions, most = windows.squares(priors, truth, radius), int(2 * radius) + 1
        arguments = (priors.boxes, valid, regions, truth.learnable, grids, 0.0, most)
        equal(windows_kernel.window_priors, windows._window_priors, arguments)


def fit_mixtures():
    torch.manual_seed(0)
    samples, count = torch.randn(40, 27).sort(1).values.to(DEVICE), torch.randint(0, 28, (40,), device=DEVICE)
    valid = torch.arange(27, device=DEVICE) < count[:, None]
    limits = (mixture.TOLERANCE, mixture.LONGEST, mixture.RIDGE, mixture.TINY)
    first, second = mixture._fit(samples, valid), mixture_kernel.fit_mixtures(samples, valid, *limits)
    assert torch.equal(first[0], second[0])
    torch.testing.assert_close(first[1][valid], second[1][valid], rtol=1e-9, atol=1e-9)


def transport():
    predictions, priors, truth, _ = scene()
    with as_on_a_gpu():
        problem, _ = OTA().transport_problem(predictions, priors, truth)
    demands = (problem.supply, problem.rest, problem.priors)
    arguments = (
        problem.column,
        problem.cost,
        problem.real,
        *demands,
        problem.columns,
        problem.width,
        0.1,
        50,
        sinkhorn._LIMITS,
    )
    for one, other in zip(sinkhorn._transport(*arguments), sinkhorn_kernel.transport(*arguments), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


CHECKS = {
    check.__name__: (check, module)
    for module, checks in {
        overlaps_kernel: (best_overlaps, outside_crowds, iou_matrix),
        points: (smallest_object, inside_any, inside_matrix),
        conflicts: (best_pairs,),
        nearest: (nearest_candidates,),
        windows_kernel: (window_priors,),
        mixture_kernel: (fit_mixtures,),
        sinkhorn_kernel: (transport,),
    }.items()
    for check in checks
}


class Started(TorchDispatchMode):
    """Counts the kernels that an operation starts: those of Triton, and operations of PyTorch that are no views."""

    def __init__(self, module):
        super().__init__()
        self.counts, self.kernels, self.inside = Counter(), {}, False
        for name, kernel in vars(module).items():
            if hasattr(kernel, "run") and hasattr(kernel, "fn"):
                self.kernels[name] = kernel

    def __enter__(self):
        self.before = {name: kernel.run for name, kernel in self.kernels.items()}
        for name, kernel in self.kernels.items():
            kernel.run = partial(self._start, name)
        return super().__enter__()

    def _start(self, name, *arguments, **options):
        self.counts[name] += 1
        self.inside = True  # Triton's interpreter itself calls PyTorch
        result = self.before[name](*arguments, **options)
        self.inside = False
        return result

    def __exit__(self, *error):
        for name, kernel in self.kernels.items():
            kernel.run = self.before[name]
        return super().__exit__(*error)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func._schema.name.split("::")[-1]
        if not self.inside and "empty" not in name and not any(each.alias_info for each in func._schema.returns):
            self.counts[name] += 1
        return func(*args, **(kwargs or {}))


def started(name, module, check):
    """The kernels of one call of an operation, which the check makes through its module."""
    counts, operation = [], getattr(module, name)

    def watched(*arguments):
        with Started(module) as log:
            result = operation(*arguments)
        counts.append(sum(log.counts.values()))
        return result

    setattr(module, name, watched)
    check()
    setattr(module, name, operation)
    return max(counts)


def main():
    assert set(CHECKS) == set(LAUNCHES), set(CHECKS) ^ set(LAUNCHES)
    for name, (check, module) in CHECKS.items():
        result = {"kernel": name, "error": None, "launches": None, "declared": LAUNCHES[name]}
        try:
            result["launches"] = started(name, module, check)
        except Exception:
            result["error"] = traceback.format_exc(limit=-3)
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
