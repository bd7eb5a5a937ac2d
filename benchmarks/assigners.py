"""How long assignment takes, beside what else is installed for the same work, in one run.

    python benchmarks/assigners.py [--threads 2] [--runs 10]

Four scenes: 640 x 640 with strides 8 to 32 and 800 x 1344 with strides 8 to 128, 20 and 150 objects, four pictures, 80
classes. Times are medians in milliseconds for the batch; a ratio above 1 means that ours is faster. Costs of the
prediction-aware assigners are included on both sides.
"""

import argparse
import statistics
import time

import torch
from rich.console import Console
from rich.table import Table
from sklearn.mixture import GaussianMixture
from torchvision.models.detection._utils import Matcher
from torchvision.ops import box_iou

from ladle.assigners import ATSS, PAA, MaxIoU
from ladle.testing import example_scene, grid_priors
from ladle.types import Predictions

SCENES = {
    "640² · 20": ((640, 640), (8, 16, 32), 20),
    "640² · 150": ((640, 640), (8, 16, 32), 150),
    "800×1344 · 20": ((800, 1344), (8, 16, 32, 64, 128), 20),
    "800×1344 · 150": ((800, 1344), (8, 16, 32, 64, 128), 150),
}


def scene(size, strides, objects):
    """Random objects, and half-trained predictions at the priors of a pyramid."""
    said, _, truth = example_scene(batch=4, objects=objects, size=size, classes=80)
    priors = grid_priors(*size, strides)
    generator = torch.Generator().manual_seed(0)
    count = priors.boxes.shape[1]
    noise = torch.randn(4, count, 4, generator=generator) * priors.stride[:, None]
    logits = torch.randn(4, count, 80, generator=generator) - 4
    return Predictions(logits, priors.boxes + noise, said.quality), priors, truth


def torchvision_matcher(said, priors, truth):
    """RetinaNet's assignment in torchvision, picture by picture."""
    matcher = Matcher(0.5, 0.4, allow_low_quality_matches=True)
    return [matcher(box_iou(boxes, priors.boxes[0])) for boxes in truth.boxes]


def paa_with_scikit_learn(said, priors, truth):
    """PAA with our costs and a scikit-learn mixture per object, as the reference code does it."""
    evidence = PAA().weigh(said, priors, truth)
    starts = [sum(priors.counts[:level]) for level in range(len(priors.counts))]
    for row in range(len(truth.labels)):
        for number in range(truth.labels.shape[1]):
            mine = evidence.candidate[row] & (evidence.index[row] == number)
            levels = [
                evidence.cost[row, a : a + n][mine[a : a + n]] for a, n in zip(starts, priors.counts, strict=True)
            ]
            costs = torch.cat([c.topk(min(9, len(c)), largest=False).values for c in levels]).double().sort().values
            if len(costs) >= 2:
                x = costs.numpy()[:, None]
                mixture = GaussianMixture(
                    2, weights_init=[0.5, 0.5], means_init=x[[0, -1]], precisions_init=[[[1.0]], [[1.0]]]
                ).fit(x)
                mixture.predict(x)
                mixture.score_samples(x)


CASES = [
    ("Max-IoU", MaxIoU(), "torchvision Matcher", torchvision_matcher),
    ("ATSS", ATSS(), None, None),
    ("PAA", PAA(), "scikit-learn mixture", paa_with_scikit_learn),
]


def median(work, runs):
    """Median milliseconds of ``work`` over ``runs`` calls, after one that is not counted."""
    work()
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        work()
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times)


def main():
    """Measure everything and print one table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=10)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    table = Table("scene", "assigner", "ours, ms", "peer", "peer, ms", "ratio")
    for name, shape in SCENES.items():
        inputs = scene(*shape)
        for title, ours, peer, theirs in CASES:
            own = median(lambda ours=ours, inputs=inputs: ours(*inputs), arguments.runs)
            row = [name, title, f"{own:.1f}", peer or "–", "–", "–"]
            if theirs is not None:
                other = median(lambda theirs=theirs, inputs=inputs: theirs(*inputs), max(3, arguments.runs // 5))
                row[4:] = [f"{other:.1f}", f"{other / own:.1f}×"]
            table.add_row(*row)
    Console().print(table)


if __name__ == "__main__":
    main()
