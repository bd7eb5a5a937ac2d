"""Built-in scenes: a generated data set of drawn shapes that is hard enough to compare detection methods.

There are six classes that differ in outline only: color, texture, rotation and size are independent of the class. The
largest side is more than ten times the smallest, with many small objects. Objects occlude each other, form clusters,
have low contrast to cluttered backgrounds, and are mixed with similar shapes of no class. The scenes are a function of
the seed; nothing is downloaded, and no file is needed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.random import Generator
from PIL import Image
from torch import Tensor

from ladle.data.drawing import LOOKALIKES, OUTLINES, Points, background, paint, photograph, place
from ladle.data.samples import Sample
from ladle.errors import UserError

__all__ = ["CLASSES", "Difficulty", "Scenes", "split_scenes", "write_coco"]

CLASSES: tuple[str, ...] = tuple(OUTLINES)
"""The classes of the scenes, in the order of their labels."""

_LEAST_SIZE = 32


@dataclass(frozen=True)
class Difficulty:
    """The parameters of the scenes. Lengths are fractions of the image's side, ``*_rate`` are probabilities.

    Attributes:
        smallest: smallest side of an object.
        largest: largest side of an object.
        skew: distribution of the sides: 1 is log-uniform, larger values give more small objects.
        most_objects: largest number of objects, without a cluster.
        most_lookalikes: largest number of similar shapes of no class.
        clutter: largest number of background shapes.
        contrast: range of the distance between the color of an object and its background; 1 is black on white.
        hidden: a shape is left out if more than this share of it is behind others or outside the image.
        huddle_rate: probability that a shape touches another one.
        herd_rate: probability that an image has a cluster of 8 to 20 small objects of one class.
        texture_rate: probability of a texture.
        blur_rate: probability of blur.
        noise: largest amplitude of the sensor noise.
    """

    smallest: float = 0.07
    largest: float = 0.72
    skew: float = 1.3
    most_objects: int = 12
    most_lookalikes: int = 4
    clutter: int = 12
    contrast: tuple[float, float] = (0.25, 0.8)
    hidden: float = 0.6
    huddle_rate: float = 0.3
    herd_rate: float = 0.12
    texture_rate: float = 0.6
    blur_rate: float = 0.3
    noise: float = 0.05


@dataclass(frozen=True)
class Scenes:
    """``count`` scenes of ``size`` x ``size`` pixels; scene i is a pure function of ``(seed, i)``.

    A source for :func:`ladle.data.loader.make_loader`. Every scene has at least one object. A box is the full extent of
    an object, including occluded parts, cut at the border of the image. Half of the clusters are so dense that they are
    annotated as one crowd box.
    """

    count: int
    seed: int = 0
    size: int = 160
    difficulty: Difficulty = field(default_factory=Difficulty)

    def __post_init__(self) -> None:
        if self.size < _LEAST_SIZE:
            raise UserError(f"scenes need sides of at least {_LEAST_SIZE} pixels, not {self.size}: give a larger size")

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the labels."""
        return CLASSES

    @property
    def category_ids(self) -> tuple[int, ...]:
        """The ids that the labels have in a COCO file, counted from 1."""
        return tuple(range(1, len(CLASSES) + 1))

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample:
        return self.sample(index)

    def __iter__(self) -> Iterator[Sample]:
        return map(self.sample, range(self.count))

    def sample(self, index: int) -> Sample:
        """Draw scene ``index``."""
        if not 0 <= index < self.count:
            raise IndexError(f"scene {index} of {self.count}")
        random, hard = np.random.default_rng((self.seed, index)), self.difficulty
        things = _compose(random, hard)
        shapes = [thing.outline * self.size for thing in things]
        behind = background(random, self.size, hard.clutter)
        canvas, drawn = paint(behind, shapes, random, hard.contrast, hard.texture_rate, hard.hidden)
        boxes, labels, crowd = _annotate([things[i] for i in drawn], self.size)
        image = torch.from_numpy(photograph(canvas, random, hard.noise, hard.blur_rate))
        return Sample(image, boxes, labels, crowd, id=index, original=(self.size, self.size))


class _Thing(NamedTuple):
    """A shape in the unit square; ``label`` is None for a look-alike, ``crowd`` marks a member of a crowd."""

    outline: Points
    label: int | None
    crowd: bool = False


def _compose(random: Generator, difficulty: Difficulty) -> list[_Thing]:
    """Choose the shapes of a scene, the foremost first."""
    things: list[_Thing] = []
    taken: list[tuple[Points, float]] = []
    objects = 1 + int(difficulty.most_objects * random.random() ** 1.5)
    lookalikes = int(random.integers(0, difficulty.most_lookalikes + 1))
    for is_object in (True, *random.permutation([True] * (objects - 1) + [False] * lookalikes)):
        side = _side(random, difficulty)
        center = _center(random, side, taken, difficulty.huddle_rate)
        taken.append((center, side))
        label = int(random.integers(len(CLASSES))) if is_object else None
        outline = LOOKALIKES[int(random.integers(len(LOOKALIKES)))] if label is None else OUTLINES[CLASSES[label]]
        things.append(_Thing(place(outline, side, center, random), label))
    return things + (_herd(random, difficulty.smallest) if random.random() < difficulty.herd_rate else [])


def _side(random: Generator, difficulty: Difficulty) -> float:
    spread = difficulty.largest / difficulty.smallest
    return float(difficulty.smallest * spread ** (random.random() ** difficulty.skew))


def _center(random: Generator, side: float, taken: Sequence[tuple[Points, float]], huddle_rate: float) -> Points:
    """A random center, or one next to an earlier shape; the first shape is completely inside, so that it is drawn."""
    margin = side / 5 if taken else side / 2
    if not taken or random.random() >= huddle_rate:
        return random.uniform(margin, 1 - margin, 2)
    center, other = taken[int(random.integers(len(taken)))]
    turn = random.uniform(0, 2 * np.pi)
    beside: Points = center + np.array([np.cos(turn), np.sin(turn)]) * (side + other) * random.uniform(0.25, 0.5)
    return beside.clip(margin, 1 - margin)


def _herd(random: Generator, smallest: float) -> list[_Thing]:
    crowd = bool(random.random() < 0.5)
    label, members = int(random.integers(len(CLASSES))), int(random.integers(8, 21))
    side = smallest * random.uniform(1.0, 1.8)
    spread = side * np.sqrt(members) * (0.3 if crowd else 0.5)
    centers = random.uniform(0.2, 0.8, 2) + random.normal(0, spread, (members, 2)).clip(-2 * spread, 2 * spread)
    outline = OUTLINES[CLASSES[label]]
    sides = side * random.uniform(0.8, 1.2, members)
    return [
        _Thing(place(outline, member_side, center, random), label, crowd)
        for member_side, center in zip(sides, centers.clip(0.02, 0.98), strict=True)
    ]


def _annotate(things: Sequence[_Thing], size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes, labels and crowd flags of the drawn shapes; the members of a crowd have one common box."""
    rows: list[tuple[Points, int | None, bool]]
    rows = [(_extent(t.outline), t.label, False) for t in things if t.label is not None and not t.crowd]
    crowd = [t for t in things if t.crowd]
    if crowd:
        rows.append((_extent(np.concatenate([t.outline for t in crowd])), crowd[0].label, True))
    boxes = np.stack([box for box, _, _ in rows]) * size
    return (
        torch.from_numpy(boxes.clip(0, size).astype(np.float32)),
        torch.tensor([label for _, label, _ in rows]),
        torch.tensor([flag for _, _, flag in rows]),
    )


def _extent(points: Points) -> Points:
    return np.concatenate([points.min(0), points.max(0)])


def split_scenes(train: int, val: int, seed: int = 0, size: int = 160) -> tuple[Scenes, Scenes]:
    """Training and validation scenes from different seeds, so that no scene is in both."""
    return Scenes(train, seed=2 * seed, size=size), Scenes(val, seed=2 * seed + 1, size=size)


def write_coco(folder: Path, train: int, val: int, seed: int = 0, size: int = 160) -> None:
    """Write :func:`split_scenes` as a COCO folder: ``{train,val}/*.png`` and ``annotations/instances_*.json``."""
    (folder / "annotations").mkdir(parents=True, exist_ok=True)
    for split, scenes in zip(("train", "val"), split_scenes(train, val, seed, size), strict=True):
        (folder / split).mkdir(exist_ok=True)
        content = json.dumps(_write_split(folder / split, scenes))
        (folder / "annotations" / f"instances_{split}.json").write_text(content)


def _write_split(folder: Path, scenes: Scenes) -> dict[str, list[dict[str, Any]]]:
    """Save the images of one split and return the content of its annotation file."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for sample in scenes:
        name = f"{sample.id:06d}.png"
        Image.fromarray(sample.image.permute(1, 2, 0).numpy()).save(folder / name)
        images.append({"id": sample.id, "file_name": name, "height": scenes.size, "width": scenes.size})
        annotations += _coco_annotations(sample, scenes.category_ids)
    for number, annotation in enumerate(annotations, start=1):
        annotation["id"] = number
    categories = [{"id": i, "name": name} for i, name in zip(scenes.category_ids, scenes.classes, strict=True)]
    return {"images": images, "annotations": annotations, "categories": categories}


def _coco_annotations(sample: Sample, category_ids: tuple[int, ...]) -> list[dict[str, Any]]:
    rows = zip(sample.boxes.tolist(), sample.labels.tolist(), sample.crowd.tolist(), strict=True)
    return [
        {
            "image_id": sample.id,
            "category_id": category_ids[label],
            "bbox": [x, y, right - x, bottom - y],
            "area": (right - x) * (bottom - y),
            "iscrowd": int(crowd),
        }
        for (x, y, right, bottom), label, crowd in rows
    ]
