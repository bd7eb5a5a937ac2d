"""Batches for training and evaluation that depend only on the seed, the epoch and the image.

The view of an image is a pure function of (seed, epoch, index), and of the scale of its step if scales vary. It does
not depend on workers, ranks, the position in a batch, or on resuming a run: W ranks with batches of B get in each step
the images that one process with batches of W·B gets.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import NamedTuple

import torch
from torch import Generator
from torch.utils.data import DataLoader, Dataset, Sampler

from ladle.children import begin_child, cores, interrupts_ignored
from ladle.data.predicted import predicted_of, without_predictions
from ladle.data.samples import Sample
from ladle.data.sources import DatasetSource, Source
from ladle.data.transforms import GREY, Augmentation, DropSmall, RandomFlip, Resize, mixed, mosaic
from ladle.errors import UserError
from ladle.types import Batch, GroundTruth

__all__ = [
    "DatasetSource",
    "Loader",
    "Source",
    "collate",
    "default_workers",
    "lost_workers_told",
    "make_loader",
    "padded_side",
    "view",
]

_MOST_WORKERS = 16
_OBJECTS = 16
"""Objects of a batch for a GPU are padded to a multiple of this number."""
_MULTIPLE = 32
"""Padded sides are multiples of this number of pixels, the coarsest stride of most detectors."""


def view(
    source: Source,
    index: int,
    imgsz: int | tuple[int, int],
    augmentation: Augmentation | None,
    generator: Generator,
) -> Sample:
    """Image ``index`` of a source as network input; all randomness comes from ``generator``.

    Without ``augmentation`` it is only resized and keeps all objects, as evaluation needs it.
    """
    sample = source.sample(index)
    if augmentation is None:
        return Resize(imgsz)(sample)
    roll, partners = torch.rand((), generator=generator), torch.randint(len(source), (3,), generator=generator)
    if roll < augmentation.mosaic:
        side = imgsz if isinstance(imgsz, int) else imgsz[0]
        sample = mosaic([sample, *map(source.sample, partners.tolist())], side, generator)
    for transform in augmentation.transforms(imgsz):
        sample = transform(sample, generator)
    roll, partner = torch.rand((), generator=generator), torch.randint(len(source), (), generator=generator)
    if roll < augmentation.mixup:
        other = RandomFlip(augmentation.flip)(source.sample(int(partner)), generator)
        sample = DropSmall()(mixed(sample, other))
    turned = augmentation.affine(sample, generator)
    return sample if turned is sample else DropSmall()(turned)


def padded_side(side: int) -> int:
    """The side of the padded images of a batch whose largest image has this side, in pixels: a multiple of 32."""
    return -(-side // _MULTIPLE) * _MULTIPLE


def collate(samples: Sequence[Sample], least: int = 0, multiple: int = 1) -> Batch:
    """Pad samples with grey at the right and the bottom to a common size, and stack them.

    The common size is that of the largest sample, at least ``least``, rounded up to a multiple of 32. The objects are
    padded to a ``multiple``.
    """
    sizes = torch.tensor([sample.size for sample in samples])
    height, width = map(padded_side, sizes.amax(0).clamp(min=least).tolist())
    images = torch.full((len(samples), 3, height, width), GREY, dtype=torch.uint8)
    real = [without_predictions(sample) for sample in samples]
    for canvas, sample in zip(images, samples, strict=True):
        canvas[:, : sample.size[0], : sample.size[1]] = sample.image
    return Batch(
        images=images,
        truth=GroundTruth.pad([s.boxes for s in real], [s.labels for s in real], [s.crowd for s in real], multiple),
        sizes=sizes,
        originals=torch.tensor([sample.original for sample in samples]),
        ids=tuple(sample.id for sample in samples),
        predicted=predicted_of(samples, multiple),
    )


class _Request(NamedTuple):
    """A request for a view. It contains the epoch because workers live longer than one epoch."""

    image: int
    epoch: int
    imgsz: int | tuple[int, int]


def _generator(*key: int | str) -> Generator:
    """A generator seeded from all parts of ``key``; generators of different keys are independent."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return Generator().manual_seed(int.from_bytes(digest, "big"))


@dataclass(frozen=True)
class _Views(Dataset[Sample | UserError]):
    source: Source
    augmentation: Augmentation | None
    seed: int

    def __getitem__(self, request: _Request) -> Sample | UserError:
        generator = _generator("view", self.seed, request.epoch, request.image)
        augmentation = None if self.augmentation is None else self.augmentation.at(request.epoch)
        try:
            return view(self.source, request.image, request.imgsz, augmentation, generator)
        except UserError as mistake:
            # An error raised in a worker arrives wrapped in a traceback. So it is returned, and raised by the loader.
            return mistake


class _Plan(Sampler[list[_Request]]):
    """The images of this rank in each step of an epoch, and their scale."""

    def __init__(
        self,
        count: int,
        batch: int,
        scales: tuple[int | tuple[int, int], ...],
        seed: int,
        shuffle: bool,
        drop_last: bool,
        rank: int,
        world: int,
    ) -> None:
        self.count, self.batch, self.scales, self.seed = count, batch, scales, seed
        self.shuffle, self.drop_last, self.rank, self.world = shuffle, drop_last, rank, world
        self.epoch = 0

    def __len__(self) -> int:
        together = self.batch * self.world
        if self.drop_last:
            return max(1, self.count // together)
        return max(0, -(-(self.count - self.rank * self.batch) // together))

    def __iter__(self) -> Iterator[list[_Request]]:
        order = self._order()
        for step in range(len(self)):
            start = (step * self.world + self.rank) * self.batch
            scale = self._scale(step)
            yield [_Request(index, self.epoch, scale) for index in order[start : start + self.batch]]

    def _order(self) -> list[int]:
        generator = _generator("order", self.seed, self.epoch)
        order = torch.randperm(self.count, generator=generator) if self.shuffle else torch.arange(self.count)
        together = self.batch * self.world
        if self.drop_last and self.count < together:
            order = order[torch.arange(together) % self.count]
        indices: list[int] = order.tolist()
        return indices

    def _scale(self, step: int) -> int | tuple[int, int]:
        generator = _generator("scale", self.seed, self.epoch, step)
        return self.scales[int(torch.randint(len(self.scales), (), generator=generator))]


class Loader:
    """Batches of one epoch after the other; made by :func:`make_loader`."""

    def __init__(self, plan: _Plan, batches: DataLoader[Sample | UserError]) -> None:
        self._plan, self._batches = plan, batches

    def set_epoch(self, epoch: int) -> None:
        """Choose the order, the views and the sizes of ``epoch`` from the next ``iter()`` on."""
        self._plan.epoch = epoch

    def __len__(self) -> int:
        return len(self._plan)

    def __iter__(self) -> Iterator[Batch]:
        with interrupts_ignored():
            batches = iter(self._batches)
        for batch in batches:
            if isinstance(batch, UserError):
                # A new error: raising one that the frame also holds makes a reference cycle, which delays the end of
                # the workers by seconds.
                raise UserError(*batch.args)
            yield batch


@contextmanager
def lost_workers_told() -> Iterator[None]:
    """Turn torch's error about a killed worker, which can be raised anywhere, into a UserError of one sentence."""
    try:
        yield
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise UserError(
            "a process that loads images was ended from outside, as happens where memory runs out: take fewer "
            "--workers or a smaller --batch (a run goes on with --resume)"
        ) from None


def _begin_worker(number: int) -> None:
    begin_child()
    sys.excepthook = _tell_unless_left


def _tell_unless_left(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print an error of a worker, but not the broken connection when the program ends before its workers."""
    if not issubclass(kind, ConnectionError | EOFError):
        sys.__excepthook__(kind, error, trace)


@dataclass(frozen=True)
class _Collate:
    least: int
    multiple: int

    def __call__(self, samples: Sequence[Sample | UserError]) -> Batch | UserError:
        mistakes = [sample for sample in samples if isinstance(sample, UserError)]
        good = [sample for sample in samples if isinstance(sample, Sample)]
        return mistakes[0] if mistakes else collate(good, self.least, self.multiple)


def make_loader(
    source: Source,
    batch: int,
    imgsz: int | tuple[int, int],
    augmentation: Augmentation | None = None,
    *,
    seed: int = 0,
    workers: int = 0,
    shuffle: bool = False,
    multiscale: tuple[int, ...] | None = None,
    square: bool = False,
    rank: int = 0,
    world: int = 1,
    drop_last: bool = False,
    pin: bool = False,
) -> Loader:
    """A loader of batches for one rank.

    Args:
        source: the images with their objects.
        batch: number of images per rank and step.
        imgsz: longer side of the resized images in pixels, or (short, long).
        augmentation: random changes of training views; None for evaluation.
        seed: determines order, views and scales.
        workers: number of loader processes, at most the number of cores; 0 loads in this process.
        shuffle: whether the order changes from epoch to epoch.
        multiscale: sides (the shorter of two) from which one is drawn for each step, the same on all ranks.
        square: whether every batch is padded to the square of the largest scale instead of to its largest image.
        rank: number of this process.
        world: number of processes.
        drop_last: whether an incomplete last step is left out; fewer images than one step are repeated to fill it.
            Otherwise the last batch may be smaller, and ranks may differ by one step.
        pin: whether batches are in page-locked memory, from which a GPU copies without waiting.
    """
    import torchvision.transforms.v2  # noqa: F401  (seconds of work that forked workers inherit)

    scales = _scales(imgsz, multiscale)
    sides = [side for scale in scales for side in ([scale] if isinstance(scale, int) else scale)]
    _check(source, batch, sides, workers)
    if not 0 <= rank < world:
        raise ValueError(f"rank {rank} of {world}: ranks count from 0")
    plan = _Plan(len(source), batch, scales, seed, shuffle, drop_last, rank, world)
    workers = min(workers, cores())
    batches = DataLoader(
        _Views(source, augmentation, seed),
        batch_sampler=plan,
        # Batches for a GPU have few different shapes, so that what is recorded for a shape can be replayed.
        collate_fn=_Collate(max(sides) if square else 0, multiple=_OBJECTS if pin else 1),
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=pin,
        worker_init_fn=_begin_worker,
        generator=Generator(),  # otherwise each epoch would draw from the global generator
    )
    return Loader(plan, batches)


def _check(source: Source, batch: int, sides: Sequence[int], workers: int) -> None:
    if len(source) == 0:
        raise UserError("this data set has no images: give --data a folder with some")
    if batch < 1:
        raise UserError(f"a batch holds at least one image, not {batch}: give --batch 1 or more")
    if min(sides) < _MULTIPLE:
        raise UserError(f"images need sides of at least {_MULTIPLE} pixels, not {min(sides)}: give a larger --imgsz")
    if workers < 0:
        raise UserError(f"there are no {workers} workers: give --workers 0 to load in the main process")


def _scales(imgsz: int | tuple[int, int], multiscale: tuple[int, ...] | None) -> tuple[int | tuple[int, int], ...]:
    if not multiscale:
        return (imgsz,)
    return multiscale if isinstance(imgsz, int) else tuple((short, imgsz[1]) for short in multiscale)


def default_workers(device: str, devices: int = 1) -> int:
    """The number of loader processes of each of ``devices`` ranks if none is given.

    There are none on the CPU, where the training step takes all cores. For each GPU there are as many as its share of
    the cores, without the one that runs the training step, and at most 16.
    """
    return 0 if device == "cpu" else min(_MOST_WORKERS, max(0, cores() // devices - 1))
