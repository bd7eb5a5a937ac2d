"""Batches for training and evaluation that depend on the seed, the epoch and the image, and on nothing else.

The view of an image is a pure function of (seed, epoch, index), and of the scale of its step where scales vary.
Workers, ranks, the place in a batch and a resumed run change nothing: W ranks with batches of B see step by step what
one process with batches of W·B sees.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import NamedTuple

import torch
from torch import Generator
from torch.utils.data import DataLoader, Dataset, Sampler

from ladle.children import begin_child, interrupts_ignored
from ladle.data.samples import Sample
from ladle.data.sources import DatasetSource, Source
from ladle.data.transforms import Augmentation, Resize, mosaic
from ladle.errors import UserError
from ladle.types import Batch, GroundTruth

__all__ = ["DatasetSource", "Loader", "Source", "collate", "lost_workers_told", "make_loader", "view"]

_GREY = 114
_MULTIPLE = 32
"""Padded sides are multiples of this, the coarsest stride of the usual detectors."""


def view(
    source: Source,
    index: int,
    imgsz: int | tuple[int, int],
    augmentation: Augmentation | None,
    generator: Generator,
) -> Sample:
    """Image ``index`` as a network sees it, all randomness from ``generator``.

    Without ``augmentation`` it is only resized and keeps every object, as evaluation needs it.
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
    return sample


def collate(samples: Sequence[Sample], least: int = 0) -> Batch:
    """Pad samples at the right and the bottom with grey to a common size and stack them.

    The common size is that of the largest, or ``least`` if that is more, rounded up to a multiple of 32.
    """
    sizes = torch.tensor([sample.size for sample in samples])
    height, width = (-(-sizes.amax(0).clamp(min=least) // _MULTIPLE) * _MULTIPLE).tolist()
    images = torch.full((len(samples), 3, height, width), _GREY, dtype=torch.uint8)
    for canvas, sample in zip(images, samples, strict=True):
        canvas[:, : sample.size[0], : sample.size[1]] = sample.image
    return Batch(
        images=images,
        truth=GroundTruth.pad([s.boxes for s in samples], [s.labels for s in samples], [s.crowd for s in samples]),
        sizes=sizes,
        originals=torch.tensor([sample.original for sample in samples]),
        ids=tuple(sample.id for sample in samples),
    )


class _Request(NamedTuple):
    """Which view is wanted. The epoch travels along because workers outlive it."""

    image: int
    epoch: int
    imgsz: int | tuple[int, int]


def _generator(*key: int | str) -> Generator:
    """A generator that depends on every part of ``key`` and is unrelated to that of any other key."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return Generator().manual_seed(int.from_bytes(digest, "big"))


@dataclass(frozen=True)
class _Views(Dataset[Sample | UserError]):
    source: Source
    augmentation: Augmentation | None
    seed: int

    def __getitem__(self, request: _Request) -> Sample | UserError:
        generator = _generator("view", self.seed, request.epoch, request.image)
        try:
            return view(self.source, request.image, request.imgsz, self.augmentation, generator)
        except UserError as mistake:
            # Raised in a worker it would arrive wrapped in a traceback; it is raised where the batch is taken.
            return mistake


class _Plan(Sampler[list[_Request]]):
    """Which images this rank sees at which step of an epoch, and how large."""

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
        wanted: list[int] = order.tolist()
        return wanted

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
                # A new one: what a frame both raises and holds is a cycle, and workers freed late take seconds to end.
                raise UserError(*batch.args)
            yield batch


@contextmanager
def lost_workers_told() -> Iterator[None]:
    """Say in one sentence that a worker was ended from outside; torch raises that wherever the program just is."""
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
    """Show an error of a loader process, but not that the program hung up: a thread hands images over by a socket."""
    if not issubclass(kind, ConnectionError | EOFError):
        sys.__excepthook__(kind, error, trace)


@dataclass(frozen=True)
class _Collate:
    least: int

    def __call__(self, samples: Sequence[Sample | UserError]) -> Batch | UserError:
        mistakes = [sample for sample in samples if isinstance(sample, UserError)]
        return mistakes[0] if mistakes else collate([s for s in samples if isinstance(s, Sample)], self.least)


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
) -> Loader:
    """Batches of ``batch`` images a rank, the images fitted to ``imgsz`` (longer side, or (short, long)).

    ``multiscale`` draws the side (the short one of two) anew for each step, alike on all ranks. ``square`` pads every
    batch to the one square that holds the largest scale, instead of to its largest image. With ``drop_last`` an
    incomplete last step is left out, except that a set of fewer images than one step repeats them; without it ranks
    may differ by a step and the last batch may be smaller. No more workers are started than the machine has cores.
    """
    import torchvision.transforms.v2  # noqa: F401  (seconds of work that forked workers inherit)

    scales = _scales(imgsz, multiscale)
    sides = [side for scale in scales for side in ([scale] if isinstance(scale, int) else scale)]
    _check(source, batch, sides, workers)
    if not 0 <= rank < world:
        raise ValueError(f"rank {rank} of {world}: ranks count from 0")
    plan = _Plan(len(source), batch, scales, seed, shuffle, drop_last, rank, world)
    workers = min(workers, _cores())
    batches = DataLoader(
        _Views(source, augmentation, seed),
        batch_sampler=plan,
        collate_fn=_Collate(max(sides) if square else 0),
        num_workers=workers,
        persistent_workers=workers > 0,
        worker_init_fn=_begin_worker,
        generator=Generator(),  # an own one, or each epoch would draw from the global generator
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


def _cores() -> int:
    # What DataLoader itself takes as the most before it warns.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
