"""Sources of samples for the loader."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import UInt8
from torch import Tensor

from ladle.data.dataset import DetectionDataset
from ladle.data.depth import ALL_VALUES, ValueRange
from ladle.data.samples import Sample, fit, resize, stretched
from ladle.data.shared_images import SharedImages
from ladle.errors import UserError

__all__ = ["DatasetSource", "Joined", "Remembered", "Source", "Splits", "Subset", "evenly", "image_ids"]

_LEAST_CACHE = 32


@runtime_checkable
class Source(Protocol):
    """A sequence of images with objects, before resizing and augmentation: the protocol for data of one's own.

    Two methods, ``__len__`` and ``sample``, and two properties that name the classes.
    """

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the labels."""
        ...

    @property
    def category_ids(self) -> tuple[int, ...]:
        """The category ids of the labels in the file of the data set."""
        ...

    def __len__(self) -> int: ...

    def sample(self, index: int) -> Sample:
        """Return image ``index``, the same in every call."""
        ...


class Splits(NamedTuple):
    """Data of one's own: the images to train on and the images to validate on.

    Any object with the two methods and the two properties of :class:`Source` serves.

    Examples:
        >>> from ladle.data.scenes import split_scenes
        >>> from ladle.data import Splits
        >>> data = Splits(*split_scenes(train=8, val=4, size=64))
        >>> len(data.train), data.val.sample(0).image.shape
        (8, torch.Size([3, 64, 64]))
    """

    train: Source
    val: Source


@dataclass(frozen=True)
class DatasetSource:
    """The images of a data set on disk.

    With ``cache`` > 0 each image is decoded once and kept, resized to a longer side of at most ``cache`` pixels; forked
    workers share what is kept (see :class:`SharedImages`). ``value_range`` are the values of 16-bit channels that
    become black and white.
    """

    dataset: DetectionDataset
    cache: int = 0
    value_range: ValueRange = ALL_VALUES
    _kept: SharedImages | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.cache and self.cache < _LEAST_CACHE:
            raise UserError(
                f"cache is the longer side of kept images in pixels, at least {_LEAST_CACHE}, not {self.cache}"
            )
        if self.cache:
            kept = SharedImages([self._kept_size(image.height, image.width) for image in self.dataset.images])
            object.__setattr__(self, "_kept", kept)

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the labels."""
        return self.dataset.classes

    @property
    def category_ids(self) -> tuple[int, ...]:
        """The category ids of the labels in the file of the data set."""
        return self.dataset.category_ids

    def __len__(self) -> int:
        return len(self.dataset.images)

    def sample(self, index: int) -> Sample:
        """Decode image ``index``, or take it from memory."""
        if self._kept is None:
            return self._sample(index, self._decode(index))
        image = self._kept.get(index)
        if image is None:
            sample = self._sample(index, self._decode(index))
            image = resize(sample, *self._kept_size(*sample.size)).image
            self._kept.put(index, image)
        return self._sample(index, image)

    def _kept_size(self, height: int, width: int) -> tuple[int, int]:
        return fit((height, width), self.cache) if max(height, width) > self.cache else (height, width)

    def _sample(self, index: int, image: UInt8[Tensor, "3 H W"]) -> Sample:
        record = self.dataset.images[index]
        original, size = (record.height, record.width), (image.shape[1], image.shape[2])
        boxes = torch.tensor(record.boxes)
        return Sample(
            image=image,
            boxes=boxes if size == original else stretched(boxes, original, size),
            labels=torch.tensor(record.labels),
            crowd=torch.tensor(record.crowd),
            id=record.id,
            original=original,
        )

    def _decode(self, index: int) -> UInt8[Tensor, "3 H W"]:
        from ladle.data.images import load_interleaved

        record = self.dataset.images[index]
        try:
            image = load_interleaved(record.file, record.upright, self.value_range)
        except UserError as error:
            raise UserError(f"{error}; mend it, or leave such images out with --on-defect skip") from None
        if tuple(image.shape[1:]) != (record.height, record.width):
            raise UserError(
                f"{record.file} is {image.shape[2]}x{image.shape[1]} pixels, but its annotations were made for "
                f"{record.width}x{record.height}: put the annotated image back, or correct its size there"
            )
        return image


@dataclass(frozen=True)
class Remembered:
    """A source that computes each sample once and keeps it in memory; each worker has its own copies."""

    source: Source
    _kept: dict[int, Sample] = field(default_factory=dict, repr=False, compare=False)

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the labels."""
        return self.source.classes

    @property
    def category_ids(self) -> tuple[int, ...]:
        """The category ids of the labels in the file of the data set."""
        return self.source.category_ids

    def __len__(self) -> int:
        return len(self.source)

    def sample(self, index: int) -> Sample:
        """Sample ``index``, made at its first use."""
        if index not in self._kept:
            self._kept[index] = self.source.sample(index)
        return self._kept[index]


@dataclass(frozen=True)
class Subset:
    """Some of the samples of a source, in the order of ``indices``."""

    source: Source
    indices: Sequence[int]

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the labels."""
        return self.source.classes

    @property
    def category_ids(self) -> tuple[int, ...]:
        """The data set's own ids of the labels."""
        return self.source.category_ids

    def __len__(self) -> int:
        return len(self.indices)

    def sample(self, index: int) -> Sample:
        """Sample number ``index`` of those that were chosen."""
        return self.source.sample(self.indices[index])


@dataclass(frozen=True)
class Joined:
    """The samples of two sources of the same classes, one source after the other."""

    first: Source
    second: Source

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the labels."""
        return self.first.classes

    @property
    def category_ids(self) -> tuple[int, ...]:
        """The data set's own ids of the labels."""
        return self.first.category_ids

    def __len__(self) -> int:
        return len(self.first) + len(self.second)

    def sample(self, index: int) -> Sample:
        """Sample ``index`` of the first source, or of the second one after its end."""
        before = len(self.first)
        return self.first.sample(index) if index < before else self.second.sample(index - before)


def image_ids(source: Source) -> list[int | str]:
    """The ids of all images; of a data set on disk none is decoded for it."""
    if isinstance(source, DatasetSource):
        return [image.id for image in source.dataset.images]
    return [source.sample(index).id for index in range(len(source))]


def evenly(count: int, most: int) -> list[int]:
    """At most ``most`` of the numbers below ``count``, spread over them."""
    used = min(most, count)
    return [number * count // used for number in range(used)]
