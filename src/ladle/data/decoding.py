"""Decode many images at once without more memory than a budget, however many cores there are."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from ladle.data.dataset import DetectionDataset, ImageInfo
from ladle.data.depth import ALL_VALUES, extremes, fitting
from ladle.errors import UserError

__all__ = ["bounded", "values_of"]

T = TypeVar("T")

_BUDGET = 2**30
"""So many bytes all images that are decoded at the same time may take; one that takes more is decoded alone."""
_PIXEL_BYTES = 12
"""A pixel as its file has it (up to 4), as RGB in Pillow (4), and in two arrays (3 each), not all at the same time."""
_BLOCK = 64


def bounded(work: Callable[[int], T], sizes: Sequence[tuple[int, int]], budget: int = _BUDGET) -> list[T]:
    """``[work(0), work(1), ...]``, in threads; ``sizes`` are the heights and widths of the images they decode.

    Images of about one size are decoded together, by as many threads as the budget holds such images: a thread keeps
    for itself what its largest image took, so that waiting for the others to finish would not be enough.
    """
    groups: dict[int, list[int]] = defaultdict(list)
    for place, (height, width) in enumerate(sizes):
        groups[_threads(budget // (height * width * _PIXEL_BYTES))].append(place)
    found: dict[int, T] = {}
    for threads, places in groups.items():
        if threads == 1:
            found.update((place, work(place)) for place in places)
            continue
        with ThreadPoolExecutor(threads) as pool:
            found.update(zip(places, pool.map(work, places), strict=True))
    return [found[place] for place in range(len(sizes))]


def _threads(held: int) -> int:
    """How many threads decode images of which the budget holds so many: a power of two, or all that are of use."""
    most = min(32, (os.cpu_count() or 1) + 4)
    return min(most, 1 << max(0, held.bit_length() - 1))


def values_of(datasets: Sequence[DetectionDataset]) -> tuple[int, int] | None:
    """The smallest and the largest value in the images with 16 bits a channel, None without any.

    Stops where the largest cannot matter any more. Damaged images are passed over: whoever loads them names them.
    """
    deep = [image for dataset in datasets for image in dataset.images if image.deep]
    found: list[tuple[int, int]] = []
    for start in range(0, len(deep), _BLOCK):
        block = deep[start : start + _BLOCK]
        found += filter(None, bounded(partial(_extremes, block), [(one.height, one.width) for one in block]))
        if found and fitting(max(high for _, high in found)) == ALL_VALUES:
            break
    return (min(low for low, _ in found), max(high for _, high in found)) if found else None


def _extremes(images: Sequence[ImageInfo], place: int) -> tuple[int, int] | None:
    try:
        return extremes(images[place].file)
    except UserError:
        return None
