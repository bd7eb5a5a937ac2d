"""A seeded data set with crowds, empty images, ties and near misses."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

import numpy as np
import torch

from ladle.types import Detections

CLASSES = ("cat", "dog", "bird", "fish")
"""No fish is ever drawn: a class without objects."""


@dataclass(frozen=True)
class ImageInfo:
    id: Hashable
    height: int
    width: int
    boxes: np.ndarray
    labels: np.ndarray
    crowd: np.ndarray


def image(name: Hashable, boxes: list[list[float]], labels: list[int], crowd: list[bool] | None = None) -> ImageInfo:
    """One image of 400 by 400 pixels."""
    flags = crowd if crowd is not None else [False] * len(labels)
    corners = np.asarray(boxes, dtype=np.float32).reshape(-1, 4)
    return ImageInfo(name, 400, 400, corners, np.asarray(labels, dtype=np.int64), np.asarray(flags, dtype=bool))


def detections(boxes: list[list[float]], scores: list[float], labels: list[int]) -> Detections:
    return Detections(
        torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        torch.tensor(scores, dtype=torch.float32),
        torch.tensor(labels, dtype=torch.long),
    )


def perfect(truth: list[ImageInfo]) -> dict[Hashable, Detections]:
    """The objects themselves, fed back as detections."""
    return {
        p.id: detections(p.boxes[~p.crowd].tolist(), [0.9] * int((~p.crowd).sum()), p.labels[~p.crowd].tolist())
        for p in truth
    }


def random_set(seed: int, count: int = 30) -> tuple[list[ImageInfo], dict[Hashable, Detections]]:
    """Images and imperfect detections: shifted, doubled, mislabeled, invented, over a hundred in one image."""
    rng = np.random.default_rng(seed)
    truth, found = [], {}
    for number in range(count):
        name = number if number % 2 else f"image {number}"
        objects = int(rng.integers(0, 9)) if number % 5 else 0
        boxes = _boxes(rng, objects)
        item = image(name, boxes.tolist(), rng.integers(0, 3, objects).tolist(), (rng.random(objects) < 0.2).tolist())
        truth.append(item)
        if number % 7:
            found[name] = _guess(rng, item, extra=130 if number == 3 else 4)
    return truth, found


def _boxes(rng: np.random.Generator, count: int) -> np.ndarray:
    low = rng.uniform(0, 300, (count, 2))
    return np.concatenate([low, low + np.exp(rng.uniform(2, 5.2, (count, 2)))], axis=1).astype(np.float32)


def _guess(rng: np.random.Generator, item: ImageInfo, extra: int) -> Detections:
    near = np.repeat(item.boxes, 2, axis=0)
    near = near + rng.normal(0, 4, near.shape).astype(np.float32)
    labels = np.repeat(item.labels, 2)
    labels = np.where(rng.random(len(labels)) < 0.8, labels, rng.integers(0, 4, len(labels)))
    boxes = np.concatenate([near, _boxes(rng, extra)])
    labels = np.concatenate([labels, rng.integers(0, 4, extra)])
    scores = rng.random(len(boxes)).round(1)  # coarse on purpose: many ties
    return detections(boxes.tolist(), scores.tolist(), labels.tolist())
