"""Findings about data before training: what prevents training, and what the user should know."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ladle.data.dataset import DetectionDataset
from ladle.data.depth import ALL_VALUES, ValueRange, fitting, spelled
from ladle.data.shrinking import CELL, shrunk, sufficient

__all__ = ["deep_note", "differences", "notes", "obstacles", "range_of", "unseen"]

_NAMED = 10


def obstacles(splits: Mapping[str, DetectionDataset], imgsz: int) -> list[str]:
    """The reasons why training on the first split and validating on the others is impossible, one sentence each."""
    found = [
        f"{name}: no objects to {'score' if place else 'learn'}"
        for place, (name, dataset) in enumerate(splits.items())
        if not dataset.holds_objects
    ]
    for first, train, name, other in _pairs(splits):
        unknown = _only(other, train)
        if unknown:
            found.append(f"{first} and {name}: expected the same classes, found {_named(unknown)} in {name} alone")
    return found + [sentence for name, train in [*splits.items()][:1] for sentence in _vanished(name, train, imgsz)]


def differences(splits: Mapping[str, DetectionDataset]) -> list[str]:
    """Differences between the classes of the first split and the others that do not prevent training."""
    found = []
    for first, train, name, other in _pairs(splits):
        missing = _only(train, other)
        if missing:
            found.append(f"{name} does not list {_named(missing)}, which {first} does, and says nothing about it")
        elif set(train.classes) == set(other.classes) and _numbering(train) != _numbering(other):
            found.append(f"{first} and {name} number their classes differently; they are matched by name")
    return found


def unseen(name: str, dataset: DetectionDataset) -> list[str]:
    """A sentence that names the classes without an object in a split, if there are any."""
    labels = [image.labels[~image.crowd] for image in dataset.images]
    seen = set(np.unique(np.concatenate([np.zeros(0, np.int64), *labels])).tolist())
    missing = [one for label, one in enumerate(dataset.classes) if label not in seen]
    return [f"{name} has no object of {_named(missing)}"] if missing else []


def notes(dataset: DetectionDataset, imgsz: int, value_range: ValueRange | None) -> list[str]:
    """The notes about a split at image size ``imgsz``: its reader's notes, small objects, and 16-bit images.

    Without ``value_range`` the conversion of 16-bit images is not mentioned.
    """
    found = list(dataset.notes)
    sizes = shrunk(dataset, imgsz)
    if sizes.tiny:
        lost = f", {sizes.lost} of them under 1 pixel, which training leaves out" if sizes.lost else ""
        found.append(
            f"{sizes.tiny} of {sizes.objects} objects have a side under {CELL} pixels at --imgsz {imgsz}{lost}"
        )
    deep = deep_note(sum(image.deep for image in dataset.images), len(dataset), value_range)
    return [*found, deep] if deep else found


def deep_note(deep: int, images: int, value_range: ValueRange | None) -> str:
    """A sentence about the ``deep`` images with 16 bits per channel; empty if there are none."""
    if not deep:
        return ""
    found = f"{deep} of {images} images have 16 bits a channel"
    if value_range is None:
        return found
    low, high = value_range
    return f"{found}: values up to {low} become black, from {high} on white (--value-range {spelled(value_range)})"


def range_of(values: tuple[int, int] | None) -> tuple[ValueRange, str]:
    """The value range for the smallest and the largest 16-bit value of a data set, and a sentence about it."""
    if values is None:
        return ALL_VALUES, ""
    low, high = fitting(values[1])
    found = f"lie between {values[0]} and {values[1]}" if high < ALL_VALUES[1] else "use all 16 bits"
    sentence = f"the values of 16 bits {found}, so that they are read with --value-range {spelled((low, high))}"
    return (low, high), sentence


def _pairs(splits: Mapping[str, DetectionDataset]) -> list[tuple[str, DetectionDataset, str, DetectionDataset]]:
    """The first split with each of the others."""
    return [(*first, *other) for first in [*splits.items()][:1] for other in [*splits.items()][1:]]


def _vanished(name: str, train: DetectionDataset, imgsz: int) -> list[str]:
    sizes = shrunk(train, imgsz)
    if not sizes.objects or sizes.lost < sizes.objects:
        return []
    return [
        f"{name}: every object has a side under 1 pixel at --imgsz {imgsz}, so that none is left to learn; give "
        f"--imgsz {sufficient(train, imgsz)}, or cut the images into tiles"
    ]


def _only(one: DetectionDataset, other: DetectionDataset) -> list[str]:
    """The classes of the first data set that the second does not have."""
    return [name for name in one.classes if name not in set(other.classes)]


def _numbering(dataset: DetectionDataset) -> list[tuple[str, int]]:
    return [*zip(dataset.classes, dataset.category_ids, strict=True)]


def _named(names: list[str]) -> str:
    return ", ".join(map(repr, names[:_NAMED])) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
