"""Sources of samples for the loader."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, runtime_checkable

import torch

from ladle.data.dataset import DetectionDataset
from ladle.data.depth import ALL_VALUES, ValueRange
from ladle.data.samples import Sample, fit, resize
from ladle.errors import UserError

__all__ = ["DatasetSource", "Remembered", "Source", "Splits", "Subset"]

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

    Example:
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

    With ``cache`` > 0 each image is decoded once and kept in memory, resized to a longer side of at most ``cache``
    pixels; each worker has its own copies. ``value_range`` are the values of 16-bit channels that become black and
    white.
    """

    dataset: DetectionDataset
    cache: int = 0
    value_range: ValueRange = ALL_VALUES
    _kept: dict[int, Sample] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.cache and self.cache < _LEAST_CACHE:
            raise UserError(
                f"cache is the longer side of kept images in pixels, at least {_LEAST_CACHE}, not {self.cache}"
            )

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
        if not self.cache:
            return self._decode(index)
        if index not in self._kept:
            sample = self._decode(index)
            size = fit(sample.size, self.cache) if max(sample.size) > self.cache else sample.size
            self._kept[index] = resize(sample, *size)
        return self._kept[index]

    def _decode(self, index: int) -> Sample:
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
        return Sample(
            image=image,
            boxes=torch.tensor(record.boxes),
            labels=torch.tensor(record.labels),
            crowd=torch.tensor(record.crowd),
            id=record.id,
            original=(record.height, record.width),
        )


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
