"""Detectors of torchvision, trained from random weights with Ladle's images, training loop and evaluation."""

from pathlib import Path

import torch
import torchvision
import yaml
from safetensors.torch import save_file
from torch import nn

from ladle.data.loader import make_loader
from ladle.detectors import as_floats
from ladle.engine import fit, one_process
from ladle.recipes.options import Run
from ladle.recipes.scoring import USUAL_MOST, Evaluator
from ladle.recipes.sources import open_source
from ladle.types import Detections, Term

OF_NETWORK = ("backbone_weights", "norm", "neck_norm", "pretrained")
"""Flags that describe a network of Ladle's; a detector of torchvision has its own."""


class Losses(nn.Module):
    """A detector's own losses as an objective of the training loop."""

    def __init__(self, detector):
        super().__init__()
        self.detector = detector
        self.students, self.monitor, self.distilled = {"student": detector}, {}, frozenset()

    def set_time(self, epoch, step):
        """Nothing depends on the time."""

    def forward(self, batch):
        """Losses by name. Torchvision has already divided them, and it has no regions of crowds: they are left out."""
        truth, targets = batch.truth, []
        for boxes, labels, used in zip(truth.boxes, truth.labels, truth.valid & ~truth.crowd, strict=True):
            targets.append({"boxes": boxes[used], "labels": labels[used] + 1})  # label 0 is the background
        losses = self.detector(unpadded(batch), targets)
        return {name: Term(loss, loss.new_ones(()), loss.new_zeros(())) for name, loss in losses.items()}


def unpadded(batch):
    """The images of a batch without the padding, as torchvision takes them."""
    images = as_floats(batch.images)
    return [one[:, :height, :width] for one, (height, width) in zip(images, batch.sizes.tolist(), strict=True)]


def finder(detector):
    """What the detector finds in a batch, with boxes in pixels of the files."""

    @torch.no_grad()
    def find(batch):
        detections, cut = [], 0
        for found, scale in zip(detector(unpadded(batch)), batch.originals / batch.sizes, strict=True):
            boxes = found["boxes"] * scale.flip(0).repeat(2)
            cut += len(boxes) > USUAL_MOST
            one = Detections(boxes, found["scores"], found["labels"] - 1)
            detections.append(one.map(lambda values: values[:USUAL_MOST]))
        return detections, cut

    return find


def train(name, flags):
    """Train a detector of torchvision with the flags of ``ladle train``; its folder, and its evaluation at the end."""
    given = {key: yaml.safe_load(str(value)) for key, value in flags.items() if key not in (*OF_NETWORK, "data")}
    run, folder = Run(**given), Path(flags["project"]) / "torchvision" / flags["name"]
    train_images, val_images = (open_source(flags["data"], split, run, run.imgsz) for split in ("train", "val"))
    torch.manual_seed(run.seed)
    detector = torchvision.models.get_model(
        name, weights=None, weights_backbone=None, num_classes=len(train_images.classes) + 1
    )
    loader = make_loader(
        train_images, run.batch, run.imgsz, run.augmentation, seed=run.seed, shuffle=True, drop_last=True
    )
    evaluator, last = Evaluator(val_images, run.imgsz, run.batch), []

    def evaluate(network):
        last.append(evaluator.score(finder(network.eval()), train_images.classes, USUAL_MOST).evaluation)
        return {"ap": last[-1].ap}

    def save(network, file):
        save_file(network.state_dict(), file)

    fit(one_process(1, "cpu"), Losses(detector), loader, run.settings(), folder, evaluate, save)
    return folder, last[-1]
