"""Training throughput compared with torchvision's detectors: forward, assignment, losses, backward.

    make bench-steps
    python benchmarks/throughput.py --size 448 640 --batch 2 --rounds 8

Both are measured in one run, in several rounds and in turns; of two steps the second is timed. Both have a ResNet-50
with a feature pyramid, frozen normalization and random weights, and the same images and objects; every layer is
trained. The output is the medians and the ratio of images per second, Ladle over torchvision.
"""

import argparse
import platform
import statistics
from functools import partial

import torch
from peers.calm import take_turns
from torchvision.models import resnet50
from torchvision.models.detection import FasterRCNN, RetinaNet
from torchvision.models.detection.backbone_utils import _resnet_fpn_extractor
from torchvision.models.detection.retinanet import _default_anchorgen
from torchvision.ops import FrozenBatchNorm2d
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from ladle.families import Start, detector_spec, lessons_of
from ladle.objectives import TrainingStep
from ladle.types import Batch, GroundTruth

CLASSES = 80


def scene(size, count, objects, device):
    """Random images and objects of many sizes."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(count, 3, *size, generator=generator)
    extent = torch.tensor([size[1], size[0]])
    side = torch.exp(torch.rand(count, objects, 2, generator=generator) * 2.5 + 2.7).minimum(extent * 0.8)
    low = torch.rand(count, objects, 2, generator=generator) * (extent - side)
    boxes = torch.cat([low, low + side], dim=-1)
    labels = torch.randint(CLASSES, (count, objects), generator=generator)
    return images.to(device), boxes.to(device), labels.to(device)


def ours(family, images, boxes, labels):
    """Ladle's step, without the optimizer."""
    torch.manual_seed(0)
    names = tuple(map(str, range(CLASSES)))
    student = detector_spec(f"{family}-r50", names, start=Start(norm="frozen")).build().to(images.device)
    lessons = lessons_of(student.spec)
    objective = TrainingStep(student, lessons).train()
    sizes = torch.tensor([images.shape[-2:]] * len(images))
    batch = Batch(images, GroundTruth.pad(list(boxes), list(labels)), sizes, sizes, tuple(range(len(images))))
    batch = batch.to(images.device)

    def step():
        terms = objective(batch)
        loss = sum(term.total / torch.maximum(term.count, term.floor).clamp(min=1e-6) for term in terms.values())
        objective.zero_grad()
        loss.backward()

    return step


def theirs(family, images, boxes, labels):
    """Run torchvision's step, without the optimizer; images are not resized."""
    torch.manual_seed(0)
    body = resnet50(weights=None, norm_layer=FrozenBatchNorm2d)
    sides = {"min_size": min(images.shape[-2:]), "max_size": max(images.shape[-2:])}
    if family == "fasterrcnn":
        model = FasterRCNN(_resnet_fpn_extractor(body, 5), num_classes=CLASSES + 1, **sides)
        targets = [{"boxes": b, "labels": n + 1} for b, n in zip(boxes, labels, strict=True)]
    else:
        # Levels 3 to 7, as in the published model.
        pyramid = _resnet_fpn_extractor(body, 5, returned_layers=[2, 3, 4], extra_blocks=LastLevelP6P7(2048, 256))
        model = RetinaNet(pyramid, CLASSES, anchor_generator=_default_anchorgen(), **sides)
        targets = [{"boxes": b, "labels": n} for b, n in zip(boxes, labels, strict=True)]
    model = model.to(images.device).train()

    def step():
        losses = model(list(images), targets)
        model.zero_grad()
        sum(losses.values()).backward()

    return step


def main():
    """Print one Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--families", default="fasterrcnn,retinanet")
    parser.add_argument("--size", type=int, nargs=2, default=(448, 640))
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--objects", type=int, default=15)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    given = scene(arguments.size, arguments.batch, arguments.objects, arguments.device)
    where = torch.cuda.get_device_name() if arguments.device == "cuda" else f"{platform.machine()} CPU"
    height, width = arguments.size
    print(f"{where}, {arguments.threads} threads, torch {torch.__version__}, {arguments.rounds} rounds:")
    print(f"{arguments.batch} images of {height} x {width} with {arguments.objects} objects each\n")
    print("| | Ladle | torchvision | images per second, ratio | other processes took at most |")
    print("|---|---|---|---|---|")
    for family in arguments.families.split(","):
        both = {library.__name__: partial(library(family, *given)) for library in (ours, theirs)}
        times, foreign = take_turns(both, arguments.rounds, arguments.device)
        mine, other = (statistics.median(times[name]) for name in both)
        spread = [f"{statistics.median(v):.2f} s ({min(v):.2f} to {max(v):.2f})" for v in times.values()]
        print(f"| {family}-r50 | {spread[0]} | {spread[1]} | {other / mine:.2f} | {foreign:.0%} |", flush=True)


if __name__ == "__main__":
    main()
