"""Decode many images at once without more memory than a budget, however many cores there are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from threading import Condition
from typing import TypeVar

from ladle.data.catalogue import Catalogue, Picture
from ladle.data.depth import ALL_VALUES, extremes, fitting
from ladle.errors import UserError

__all__ = ["bounded", "values_of"]

T = TypeVar("T")

_BUDGET = 2**30
"""So many bytes all images that are being decoded may take; one that takes more is decoded alone."""
_PIXEL_BYTES = 14
"""A pixel as its file has it (up to 4), as RGB in Pillow (4), in an array and in a tensor (3 each)."""
_BLOCK = 64


def bounded(work: Callable[[int], T], sizes: Sequence[tuple[int, int]], budget: int = _BUDGET) -> list[T]:
    """``work(0), work(1), ...``, in threads; ``sizes`` are the heights and widths of the images they decode."""
    space = _Space(budget)

    def within(place: int) -> T:
        height, width = sizes[place]
        with space.of(height * width * _PIXEL_BYTES):
            return work(place)

    with ThreadPoolExecutor() as pool:
        return list(pool.map(within, range(len(sizes))))


def values_of(catalogues: Sequence[Catalogue]) -> tuple[int, int] | None:
    """The smallest and the largest value in the images with 16 bits a channel, None without any.

    Stops where the largest cannot matter any more. Damaged images are passed over: whoever loads them names them.
    """
    deep = [picture for catalogue in catalogues for picture in catalogue.pictures if picture.deep]
    found: list[tuple[int, int]] = []
    for start in range(0, len(deep), _BLOCK):
        block = deep[start : start + _BLOCK]
        found += filter(None, bounded(partial(_extremes, block), [(one.height, one.width) for one in block]))
        if found and fitting(max(high for _, high in found)) == ALL_VALUES:
            break
    return (min(low for low, _ in found), max(high for _, high in found)) if found else None


def _extremes(pictures: Sequence[Picture], place: int) -> tuple[int, int] | None:
    try:
        return extremes(pictures[place].file)
    except UserError:
        return None


class _Space:
    """Bytes that threads take and give back; one waits until there is room, or nobody else has any."""

    def __init__(self, budget: int) -> None:
        self._budget, self._taken, self._changed = budget, 0, Condition()

    @contextmanager
    def of(self, cost: int) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: self._taken == 0 or self._taken + cost <= self._budget)
            self._taken += cost
        try:
            yield
        finally:
            with self._changed:
                self._taken -= cost
                self._changed.notify_all()
