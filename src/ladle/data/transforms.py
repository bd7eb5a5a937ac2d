"""Augmentations of training images, which take all their randomness from the generator that is passed in.

Each transform draws the same number of random values in every case, so that changing one rate does not change the
other random values of a view.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float32
from torch import Generator

from ladle.data.samples import Sample, crop, fit, flip, recolor, resize, warp
from ladle.data.windows import first_useful, placed
from ladle.errors import UserError

__all__ = [
    "GREY",
    "Affine",
    "Augmentation",
    "ColorJitter",
    "DropSmall",
    "RandomCrop",
    "RandomFlip",
    "Resize",
    "Sample",
    "ScaleJitter",
    "Transform",
    "mixed",
    "mosaic",
]

_TRIES = 10
GREY = 114
"""The value of pixels outside of an image: of the padding of a batch, and beside the smaller of two mixed images."""

MOST_ROTATE, MOST_SHEAR = 180, 60
"""Largest angles in degrees."""

Transform = Callable[[Sample, Generator], Sample]
"""A transform that takes all its randomness from the generator."""


@dataclass(frozen=True)
class Resize:
    """Resize the image to ``imgsz`` (see :func:`fit`); uses no random values."""

    imgsz: int | tuple[int, int]

    def __call__(self, sample: Sample, generator: Generator | None = None) -> Sample:
        """Resize the sample."""
        return resize(sample, *fit(sample.size, self.imgsz))


@dataclass(frozen=True)
class RandomFlip:
    """Flip horizontally with probability ``rate``."""

    rate: float

    def __call__(self, sample: Sample, generator: Generator) -> Sample:
        """Flip the sample, or return it unchanged."""
        return flip(sample) if _draw(self.rate, generator) else sample


@dataclass(frozen=True)
class ColorJitter:
    """Scale brightness, contrast and saturation by 1 ± ``strength``; shift the hue by up to ``strength / 4`` turns."""

    strength: float

    def __call__(self, sample: Sample, generator: Generator) -> Sample:
        """Recolor the sample."""
        brightness, contrast, saturation, hue = ((2 * torch.rand(4, generator=generator) - 1) * self.strength).tolist()
        if self.strength == 0:
            return sample
        return recolor(sample, 1 + brightness, 1 + contrast, 1 + saturation, hue / 4)


@dataclass(frozen=True)
class RandomCrop:
    """With probability ``rate``, crop to a random window.

    The window has ``share`` of the largest sides, and an aspect ratio within ``aspect`` relative to that of the image.
    Boxes are treated as in :func:`crop`. An image with objects is not cropped if it would lose all of them, unless
    ``may_empty``.
    """

    rate: float
    share: tuple[float, float] = (0.4, 1.0)
    aspect: tuple[float, float] = (0.75, 1.33)
    least_visible: float = 0.3
    may_empty: bool = False

    def __call__(self, sample: Sample, generator: Generator) -> Sample:
        """Crop the sample, or return it unchanged."""
        cropped = _draw(self.rate, generator)
        first, second, across, down = torch.rand(4, _TRIES, generator=generator).numpy()
        if not cropped:
            return sample
        share = self.share[0] + (self.share[1] - self.share[0]) * first
        low, high = math.log(self.aspect[0]), math.log(self.aspect[1])
        aspect = np.exp(low + (high - low) * second) * (sample.size[1] / sample.size[0])
        windows = placed(sample.size, aspect, share, across, down)
        chosen = 0 if self.may_empty else _first_with_object(sample, windows, self.least_visible)
        if chosen is None:
            return sample
        return crop(sample, _whole(windows[chosen]), self.least_visible)


@dataclass(frozen=True)
class ScaleJitter:
    """Scale the image by a factor from 1 - ``strength`` to 1 + ``strength`` (large-scale jitter, Ghiasi et al. 2021).

    A larger image is cropped to its former size at a random place, as in :func:`crop`; a smaller one stays smaller, and
    is padded with its batch.
    """

    strength: float
    least_visible: float = 0.3

    def __call__(self, sample: Sample, generator: Generator) -> Sample:
        """Scale the sample."""
        change, down, across = torch.rand(3, generator=generator).tolist()
        if self.strength == 0:
            return sample
        factor, (height, width) = 1 + self.strength * (2 * change - 1), sample.size
        scaled = resize(sample, max(1, round(factor * height)), max(1, round(factor * width)))
        if factor <= 1:
            return scaled
        top, left = round(down * (scaled.size[0] - height)), round(across * (scaled.size[1] - width))
        return crop(scaled, (left, top, left + width, top + height), self.least_visible)


@dataclass(frozen=True)
class Affine:
    """Turn the image by up to ``rotate`` degrees and shear it by up to ``shear`` degrees along x and y.

    Either way, about its center and in its former size, as in :func:`warp`.
    """

    rotate: float
    shear: float
    least_visible: float = 0.3

    def __call__(self, sample: Sample, generator: Generator) -> Sample:
        """Turn and shear the sample."""
        turn, right, down = (2 * torch.rand(3, generator=generator) - 1).tolist()
        if not self.rotate and not self.shear:
            return sample
        cos, sin = math.cos(math.radians(turn * self.rotate)), math.sin(math.radians(turn * self.rotate))
        x, y = math.tan(math.radians(right * self.shear)), math.tan(math.radians(down * self.shear))
        # The rotation times ((1, x), (0, 1)) times ((1, 0), (y, 1)), which is never singular.
        matrix = ((cos * (1 + x * y) - sin * y, cos * x - sin), (sin * (1 + x * y) + cos * y, sin * x + cos))
        return warp(sample, matrix, GREY, self.least_visible)


@dataclass(frozen=True)
class DropSmall:
    """Remove boxes with a side of less than ``least`` pixels, which no prior can learn; uses no random values."""

    least: float = 1.0

    def __call__(self, sample: Sample, generator: Generator | None = None) -> Sample:
        """Drop the small boxes."""
        kept = (sample.boxes[:, 2:] - sample.boxes[:, :2]).amin(1) >= self.least
        if kept.all():
            return sample
        return replace(sample, boxes=sample.boxes[kept], labels=sample.labels[kept], crowd=sample.crowd[kept])


@dataclass(frozen=True)
class Augmentation:
    """The augmentations of training images.

    ``flip``, ``crop``, ``mosaic`` and ``mixup`` are probabilities in [0, 1], ``jitter`` is the strength of
    :class:`ColorJitter`, ``scale`` that of :class:`ScaleJitter`. ``joined`` is the number of epochs, from the first on,
    in which images are joined by mosaic and mixup; unlimited by default. ``rotate`` and ``shear`` are the largest
    angles of :class:`Affine` in degrees. If all are 0, images are only resized, and boxes of less than a pixel are
    removed.
    """

    flip: float = 0.5
    jitter: float = 0.2
    crop: float = 0.3
    mosaic: float = 0.0
    mixup: float = 0.0
    scale: float = 0.0
    joined: int | None = None
    rotate: float = 0.0
    shear: float = 0.0

    def __post_init__(self) -> None:
        for name in ("flip", "jitter", "crop", "mosaic", "mixup", "scale"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise UserError(f"augmentation {name} lies between 0 and 1, found {value}: give for example 0.5")
        for name, most in (("rotate", MOST_ROTATE), ("shear", MOST_SHEAR)):
            value = getattr(self, name)
            if not 0 <= value <= most:
                raise UserError(f"augmentation {name} is 0 to {most} degrees, found {value}: give for example 5")

    def at(self, epoch: int) -> Augmentation:
        """The augmentations in ``epoch``, counted from 0: without mosaic and mixup after the first ``joined`` ones."""
        if self.joined is None or epoch < self.joined:
            return self
        return replace(self, mosaic=0.0, mixup=0.0)

    @property
    def affine(self) -> Affine:
        """The transform of the whole view; it is the last one, so that it changes no other random value."""
        return Affine(self.rotate, self.shear)

    def transforms(self, imgsz: int | tuple[int, int]) -> tuple[Transform, ...]:
        """The transforms of one sample, in order.

        The mosaic comes before them, the mixture of two and then ``affine`` after them.
        """
        return (
            RandomCrop(self.crop),
            Resize(imgsz),
            RandomFlip(self.flip),
            ColorJitter(self.jitter),
            ScaleJitter(self.scale),
            DropSmall(),
        )


def mosaic(samples: Sequence[Sample], side: int, generator: Generator, least_visible: float = 0.3) -> Sample:
    """Join four samples to one of ``side`` x ``side`` pixels; they meet at a random point near the center.

    Each corner is filled with the largest part of a sample with this aspect ratio, at a random place with an object.
    """
    if len(samples) != 4:
        raise ValueError(f"a mosaic is made of 4 samples, not {len(samples)}")
    x, y = (side * (0.3 + 0.4 * torch.rand(2, generator=generator))).round().long().clamp(1, side - 1).tolist()
    corners = ((0, 0, x, y), (x, 0, side, y), (0, y, x, side), (x, y, side, side))
    image = samples[0].image.new_empty(3, side, side)
    parts = []
    for sample, (left, top, right, bottom) in zip(samples, corners, strict=True):
        aspect = (right - left) / (bottom - top)
        places = torch.rand(2, _TRIES, generator=generator).numpy()
        windows = placed(sample.size, aspect, np.ones(_TRIES, np.float32), *places)
        chosen = _first_with_object(sample, windows, least_visible)
        part = resize(crop(sample, _whole(windows[chosen or 0]), least_visible), bottom - top, right - left)
        image[:, top:bottom, left:right] = part.image
        parts.append(replace(part, boxes=part.boxes + part.boxes.new_tensor([left, top, left, top])))
    return Sample(
        image=image,
        boxes=torch.cat([part.boxes for part in parts]),
        labels=torch.cat([part.labels for part in parts]),
        crowd=torch.cat([part.crowd for part in parts]),
        id=samples[0].id,
        original=(side, side),
    )


def mixed(first: Sample, second: Sample) -> Sample:
    """The mean of two images with the objects of both (MixUp, Zhang et al. 2018, with equal shares as in YOLOX).

    The second one is resized to fit into the first, at the top left; the rest counts as grey there.
    """
    height, width = first.size
    scale = min(height / second.size[0], width / second.size[1])
    second = resize(second, *(max(1, round(scale * side)) for side in second.size))
    below = torch.full_like(first.image, GREY)
    below[:, : second.size[0], : second.size[1]] = second.image
    mean = ((first.image.int() + below.int() + 1) // 2).to(torch.uint8)
    return replace(
        first,
        image=mean,
        boxes=torch.cat([first.boxes, second.boxes]),
        labels=torch.cat([first.labels, second.labels]),
        crowd=torch.cat([first.crowd, second.crowd]),
    )


def _first_with_object(sample: Sample, windows: Float32[np.ndarray, "k 4"], least_visible: float) -> int | None:
    """The first window that keeps an object; 0 for a sample without objects, None if no window keeps one."""
    return first_useful(sample.boxes[~sample.crowd].numpy(), windows, least_visible)


def _whole(window: Float32[np.ndarray, " 4"]) -> tuple[int, int, int, int]:
    left, top, right, bottom = map(int, window)
    return left, top, right, bottom


def _draw(rate: float, generator: Generator) -> bool:
    return bool(torch.rand((), generator=generator) < rate)
