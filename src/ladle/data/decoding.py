"""Decode many images in parallel within a memory budget, on any number of cores."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from ladle.children import cores
from ladle.data.dataset import DetectionDataset, ImageInfo
from ladle.data.depth import ALL_VALUES, extremes, fitting
from ladle.errors import UserError

__all__ = ["bounded", "values_of"]

T = TypeVar("T")

_BUDGET = 2**30
"""Bytes of all images decoded at the same time; an image that takes more is decoded alone."""
_PIXEL_BYTES = 12
"""Bytes per pixel: as in the file (up to 4), as RGB in Pillow (4), in two arrays (3 each), not all at the same time."""
_BLOCK = 64


def bounded(work: Callable[[int], T], sizes: Sequence[tuple[int, int]], budget: int = _BUDGET) -> list[T]:
    """Compute ``[work(0), work(1), ...]`` in threads, where ``work(i)`` decodes an image of size ``sizes[i]`` (h, w).

    Images of similar size are decoded together, by as many threads as images of this size fit into the budget. One pool
    for all sizes would not do: a thread keeps the memory of its largest image, so the threads together would exceed the
    budget even if large images waited for each other.
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
    """The number of threads if ``held`` images fit into the budget: a power of two, limited by the number of cores."""
    most = min(32, cores() + 4)
    return min(most, 1 << max(0, held.bit_length() - 1))


def values_of(datasets: Sequence[DetectionDataset]) -> tuple[int, int] | None:
    """The smallest and the largest value in all images with 16 bits per channel; None if there are none.

    Stops as soon as more images cannot change the value range. Damaged images are skipped; loading them raises an
    error.
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
