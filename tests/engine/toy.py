"""A detector-shaped toy: small enough to train in a blink, with all that the loop has to cope with."""

from __future__ import annotations

import csv
import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from lightning_fabric import Fabric
from safetensors.torch import save_file
from torch import Tensor, nn

from ladle.engine import SGD, Cosine, Result, Settings, fit
from ladle.types import Batch, GroundTruth, Term

SIDE = 8


class Student(nn.Module):
    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Conv2d(4, 2, 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.dropout(self.backbone(images)))


class Toy(nn.Module):
    """Two terms whose counts differ from image to image, an adapter, and a teacher that is no submodule.

    All toys start with the same weights.
    """

    distilled = frozenset[str]()

    def __init__(self, dropout: float = 0.0, norm: bool = True) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.student = Student(dropout)
            self.adapter = nn.Conv2d(4, 4, 1)
            self.teacher = (nn.Conv2d(3, 4, 1).requires_grad_(False),)
        if not norm:
            self.student.backbone[1] = nn.Identity()
        self.students = {"student": self.student}
        self.monitor: dict[str, Tensor] = {}

    def set_time(self, epoch: float, step: int) -> None:
        """Nothing comes and goes here."""

    def forward(self, batch: Batch) -> dict[str, Term]:
        features = self.student.backbone(batch.images)
        maps = self.student.head(self.student.dropout(features))
        present = batch.truth.learnable.float().sum(1)
        error = (maps - 1).square().mean((1, 2, 3))
        gap = (self.adapter(features) - self.teacher[0](batch.images)).square().mean((1, 2, 3))
        images = torch.ones_like(present)
        self.monitor = {"positives_per_object": (error.detach() * present).sum() / present.sum()}
        return {
            "box": Term((error * present).sum(), present.sum(), images.sum()),
            "feature": Term(gap.sum(), images.sum(), torch.zeros(())),
        }


def make_batch(ids: list[int]) -> Batch:
    """Image i holds i % 3 objects."""
    images = torch.stack([torch.rand(3, SIDE, SIDE, generator=torch.Generator().manual_seed(i)) for i in ids])
    boxes = [torch.tensor([[0.0, 0.0, 4.0, 4.0]]).repeat(i % 3, 1) for i in ids]
    labels = [torch.zeros(i % 3, dtype=torch.long) for i in ids]
    sizes = torch.full((len(ids), 2), SIDE)
    return Batch(images, GroundTruth.pad(boxes, labels), sizes, sizes, tuple(ids))


@dataclass
class ToyLoader:
    """Shuffles with all three global generators on top of the epoch; rank r of n gets its slice of every batch."""

    images: int = 12
    batch: int = 4
    rank: int = 0
    ranks: int = 1
    jitter: bool = True
    poison: int | None = None
    breaks_in: int | None = None
    epoch: int = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.images // self.batch

    def __iter__(self):
        order = torch.randperm(self.images, generator=torch.Generator().manual_seed(self.epoch)).tolist()
        each = self.batch // self.ranks
        if self.epoch == self.breaks_in:
            raise InterruptedError("a broken loader")
        for start in range(0, len(self) * self.batch, self.batch):
            ids = order[start + self.rank * each :][:each]
            batch = make_batch(ids)
            if self.jitter:
                batch.images.add_(random.random() * 0.1 + np.random.rand() * 0.1)
            if self.poison in ids:
                batch.images[ids.index(self.poison)] = float("nan")
            yield batch


def save_student(module: nn.Module, path: Path) -> None:
    save_file(module.state_dict(), path)


def score(module: nn.Module) -> dict[str, float]:
    """How close the maps come to 1, which is what the toy learns; draws a random number as evaluations may."""
    assert not module.training
    torch.rand(())
    return {"ap": 1 / (1 + float((module(make_batch([1, 2]).images) - 1).square().mean())), "ap50": 0.5}


SETTINGS = Settings(
    epochs=4,
    optimizer=SGD(lr=0.05),
    schedule=Cosine(warmup=2),
    clip=5.0,
    accumulate=2,
    ema=0.9,
    ema_tau=3.0,
    log_every=1,
    quiet=True,
)


def train(fabric: Fabric, folder: Path, settings: Settings = SETTINGS, evaluate=score, resume: bool = False) -> Result:
    return fit(fabric, Toy(dropout=0.2), ToyLoader(images=20), settings, folder, evaluate, save_student, resume)


def read_rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "results.csv").open(newline="") as file:
        return list(csv.DictReader(file))
