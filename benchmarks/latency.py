"""Latency of exported detectors beside other libraries' small detectors, in onnxruntime on the processor.

    python benchmarks/latency.py --write
    python benchmarks/latency.py --ours rtmdet-n,gfl+lite-mobilenetv4_conv_small --sides 320 --rounds 30
    python benchmarks/latency.py --experiment benchmarks/experiments/bccd.yaml --classes 3 --record FILE

Every network has random weights and by default as many classes as COCO, and is one ONNX file that takes one image; all
of them are measured in turns, in several rounds, and of two calls the second is timed. What a file gives is the scores
and boxes of all places: with NMS the time depends on how many objects are found, which random weights do not tell.
torchvision's file gives them before boxes are decoded, so it does a little less. Ours is also measured with layers in 8
bits.

Ultralytics' package is run as it is, through its own export.

With an experiment of ``methods.py``, its networks are measured at its size of images. --record appends a line of JSON
for each network, from which ``results.py`` takes the time and the size of the file.
"""

import argparse
import contextlib
import io
import os
import re
import statistics
import tempfile
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import yaml
from peers.calm import take_turns
from records import TORCHVISION, append, commit, network_of
from torch import nn

from ladle.data.loader import collate
from ladle.exporting import Exportable, Plan, network_cost, onnx_bytes, processor, quantized, spelled, trace
from ladle.exporting.metadata import describe
from ladle.exporting.runtime import onnx_session
from ladle.families import detector_spec
from ladle.recipes.export import scene_samples

PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"
START, END = "<!-- latency: start -->", "<!-- latency: end -->"
PACKAGES = ("onnxruntime", "torch", "torchvision", "ultralytics")
CLASSES = 80  # COCO's
PATIENCE = 3.0
"""Seconds to wait for a calm machine before each round, which itself takes two."""
OURS = "yolox-n,yolox-t,rtmdet-n,rtmdet-t,gfl+lite-mobilenetv4_conv_small,gfl+lite-tf_efficientnet_lite0"
PEERS = "ssdlite320_mobilenet_v3_large,yolo11n,yolo26n"
PUBLISHED = {
    "yolox-n": "25.8 at 416",
    "yolox-t": "32.8 at 416",
    "rtmdet-t": "41.0 at 640",
    "ssdlite320_mobilenet_v3_large": "21.3 at 320",
    "yolo11n": "39.5 at 640",
    "yolo26n": "40.9 at 640",
}
"""COCO AP of the authors' checkpoints, and the size of the images, as the model zoos of YOLOX, mmdetection, torchvision
and Ultralytics state it."""


class Contender(NamedTuple):
    """An ONNX file of one detector for one size of images; parameters and operations of one image."""

    model: bytes
    parameters: int
    flops: int


def ours(name, side, classes=CLASSES):
    """One of Ladle's detectors."""
    torch.manual_seed(0)
    spec = detector_spec(name, tuple(map(str, range(classes))))
    backbone = replace(spec.backbone, pretrained=False, weights=None)
    detector = replace(spec, backbone=backbone, imgsz=side).build().eval()
    cost = network_cost(detector, side)
    plan = Plan(images="float", dynamic="none", nms=False, side=side)
    model = onnx_bytes(
        trace(Exportable(detector, plan)), plan, spelled(describe(detector.spec, plan, version("ladle")))
    )
    return Contender(model, *cost)


def theirs(name, side, classes=CLASSES):
    """A detector of another library."""
    torch.manual_seed(0)
    return torchvisions(side, classes) if name.startswith("ssdlite") else ultralytics(name, side)


def torchvisions(side, classes=CLASSES):
    """SSDLite with MobileNetV3: its network with softmax, but with boxes as offsets from its anchors."""
    from torchvision.models.detection import ssdlite320_mobilenet_v3_large

    whole = ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=classes + 1).eval()

    class Raw(nn.Module):
        def __init__(self):
            super().__init__()
            self.backbone, self.head = whole.backbone, whole.head

        def forward(self, images):
            found = self.head(list(self.backbone(images).values()))
            return found["bbox_regression"], found["cls_logits"].softmax(-1)

    network, image = Raw().eval(), torch.zeros(1, 3, side, side)
    with torch.no_grad(), contextlib.redirect_stdout(io.StringIO()):
        made = torch.onnx.export(network, (image,), dynamo=True, verbose=False)
    return Contender(made.model_proto.SerializeToString(), *counted(network, image))


def ultralytics(name, side):
    """A network of Ultralytics, as its own package writes it."""
    os.environ.setdefault("YOLO_VERBOSE", "false")  # it is read at the import
    from ultralytics import YOLO

    home = Path.cwd()
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        os.chdir(folder)
        try:
            made = YOLO(f"{name}.yaml")
            costs = counted(made.model.eval(), torch.zeros(1, 3, side, side))
            model = Path(made.export(format="onnx", imgsz=side, simplify=False)).read_bytes()
        finally:
            os.chdir(home)
    return Contender(model, *costs)


@torch.no_grad()
def counted(network, image):
    """Parameters, and the operations of convolutions and matrix products."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        network(image)
    return sum(weight.numel() for weight in network.parameters()), counter.get_total_flops()


def caller(model, threads):
    """A call of an ONNX file with one random image."""
    session = onnx_session(model, threads)
    generator = np.random.default_rng(0)
    feeds = {}
    for one in session.get_inputs():
        if one.type == "tensor(float)":
            feeds[one.name] = generator.random(one.shape, dtype=np.float32)
            height, width = one.shape[-2:]
        else:  # the size of the image
            feeds[one.name] = np.array([[height, width]], dtype=np.int64)
    return partial(session.run, None, feeds)


def measure(arguments):
    """The contenders at the largest side, and milliseconds by name and side; "8 bits" is the largest side of ours."""
    largest = max(arguments.sides)
    mine, others = words(arguments.ours), words(arguments.peers)
    largest_of, times, foreign = {}, {}, 0.0
    for side in sorted(arguments.sides):
        every = {}
        for name in [*mine, *others]:
            one = (ours if name in mine else theirs)(name, side, arguments.classes)
            every[name, side] = caller(one.model, arguments.threads)
            largest_of[name] = one
            if side == largest and name in mine:
                images = [collate([sample]) for sample in scene_samples(4, side)]
                every[name, "8 bits"] = caller(quantized(one.model, images), arguments.threads)
        seconds, share = take_turns(every, arguments.rounds, "cpu", PATIENCE)
        times |= {key: 1e3 * statistics.median(values) for key, values in seconds.items()}
        foreign = max(foreign, share)
    return largest_of, times, foreign


def table(arguments, contenders, times):
    """The Markdown table: ours first, each group by its time for the largest images."""
    sides, largest = sorted(arguments.sides), max(arguments.sides)
    head = ["", "M parameters", f"GFLOPs, {largest} px", "published COCO AP", *(f"ms, {side} px" for side in sides)]
    yield "| " + " | ".join([*head, f"ms, {largest} px, 8 bits"]) + " |"
    yield "|---" * (len(head) + 1) + "|"
    mine = words(arguments.ours)
    for name in sorted(contenders, key=lambda name: (name not in mine, times[name, largest])):
        one = contenders[name]
        cells = [f"{one.parameters / 1e6:.1f}", f"{one.flops / 1e9:.1f}", PUBLISHED.get(name, "–")]
        cells += [f"{times[name, side]:.1f}" for side in sides]
        cells += [f"{times[name, '8 bits']:.1f}" if (name, "8 bits") in times else "–"]
        yield f"| {f'`{name}`' if name in mine else name} | " + " | ".join(cells) + " |"


def words(text):
    """The names in a list with commas."""
    return [word for word in text.split(",") if word]


def take_experiment(arguments):
    """Put the networks of an experiment, and its size of images, in the place of the usual ones."""
    given = yaml.safe_load(arguments.experiment.read_text(encoding="utf-8"))
    names = {row: network_of(row, given["student"]) for row in given["rows"].values()}
    theirs = dict.fromkeys(name for row, name in names.items() if row.startswith(TORCHVISION))
    arguments.ours = ",".join(dict.fromkeys(name for name in names.values() if name not in theirs))
    arguments.peers, arguments.sides = ",".join(theirs), [given["imgsz"]]


def record(arguments, contenders, times):
    """Append a line for each network: its cost, the size of its file, and the time of an image in milliseconds."""
    side = max(arguments.sides)
    for name, one in contenders.items():
        cost = {"parameters": one.parameters, "flops": one.flops, "bytes": len(one.model)}
        where = {"imgsz": side, "classes": arguments.classes, "threads": arguments.threads, "calls": arguments.rounds}
        machine = {"cpu": processor(), "onnxruntime": version("onnxruntime"), "torch": version("torch")}
        line = {"network": name, "milliseconds": round(times[name, side], 2)} | cost | where
        append(arguments.record, line | {"commit": commit(), "machine": machine})


def main():
    """Print the table, and put it between the marks of the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ours", default=OURS)
    parser.add_argument("--peers", default=PEERS)
    parser.add_argument("--sides", type=int, nargs="+", default=(320, 416, 640))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--classes", type=int, default=CLASSES, help="only Ultralytics' files always have COCO's")
    parser.add_argument("--experiment", type=Path, help="measure the networks of this experiment")
    parser.add_argument("--record", type=Path, help="append the numbers of each network to this file")
    parser.add_argument("--write", action="store_true", help="update docs/benchmarks.md")
    arguments = parser.parse_args()
    if arguments.experiment is not None:
        take_experiment(arguments)
    torch.set_num_threads(arguments.threads)
    contenders, times, foreign = measure(arguments)
    if arguments.record is not None:
        record(arguments, contenders, times)
    packages = ", ".join(f"{name} {version(name)}" for name in PACKAGES if find_spec(name))
    lines = [
        f"{processor()}, {arguments.threads} threads, one image; median of {arguments.rounds} calls. {packages}. "
        f"Commit {commit()}. Other processes took at most {foreign:.0%} of the machine.",
        "",
        *table(arguments, contenders, times),
    ]
    print("\n".join(lines))
    if arguments.write:
        text = PAGE.read_text(encoding="utf-8")
        block = "\n".join([START, "", *lines, "", END])
        PAGE.write_text(re.sub(f"{START}.*{END}", lambda _: block, text, flags=re.DOTALL), encoding="utf-8")
        print(f"wrote {PAGE}")


if __name__ == "__main__":
    main()
