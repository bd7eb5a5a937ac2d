"""Kernel of :mod:`ladle.assigners.sinkhorn`: all iterations in one launch, one program for each image.

A program keeps its kernel, scalings and sums in memory that only it touches, so a barrier between the steps is enough.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

__all__ = ["transport"]

_ENTRIES = 2048
"""Pairs that a program treats at once."""
_CHUNK = 32
"""Pairs of one object that it treats at once."""


def transport(
    column: Tensor, cost: Tensor, real: Tensor, supply: Tensor, rest: Tensor, priors: Tensor, columns: int, width: int,
    epsilon: float, iterations: int, limits: Sequence[float],
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """See ``_transport`` in :mod:`ladle.assigners.sinkhorn`; there are as many columns in each image."""
    batch, objects = supply.shape
    reach, least, most = limits
    pairs = torch.empty(len(cost), dtype=torch.float64, device=cost.device)
    background = torch.empty(columns, dtype=torch.float64, device=cost.device)
    others = torch.empty(batch, dtype=torch.float64, device=cost.device)
    rows = max(batch * objects, 1)
    scale, received = torch.empty(2, rows, dtype=torch.float64, device=cost.device)
    lengths = torch.empty(rows, dtype=torch.int32, device=cost.device)
    places = torch.empty(len(cost), dtype=torch.int32, device=cost.device)
    side = triton.next_power_of_2(width)
    if batch:
        _transport[(batch,)](
            *(each.contiguous() for each in (column, cost, real, supply, rest, priors)),
            pairs,
            background,
            others,
            torch.empty_like(pairs),
            places,
            lengths,
            scale,
            received,
            objects,
            columns // batch,
            width,
            iterations,
            EPSILON=epsilon,
            REACH=reach,
            LEAST=least,
            MOST=most,
            ROWS=max(1, _ENTRIES // side),
            WIDTH=side,
            SHELVES=_ENTRIES // min(_CHUNK, side),
            CHUNK=min(_CHUNK, side),
            COLUMNS=_ENTRIES,
            num_warps=_ENTRIES // 64,
        )
    return pairs, background, others


@triton.jit
def _transport(  # noqa: C901  (one kernel, whose steps share its variables)
    column, cost, real, supply, rest, priors, pairs, background, others, kernel, places, lengths, scale, received,
    objects, columns, width, iterations,
    EPSILON: tl.constexpr, REACH: tl.constexpr, LEAST: tl.constexpr, MOST: tl.constexpr,
    ROWS: tl.constexpr, WIDTH: tl.constexpr, SHELVES: tl.constexpr, CHUNK: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """The plan of one image.

    ``kernel`` and ``places`` hold the kernel and the column of each real pair, those of an object one after another
    from the beginning of its row; ``lengths`` is how many there are. ``background`` holds the sums of the columns.
    """
    image = tl.program_id(0)
    shelf, line, some = tl.arange(0, ROWS), tl.arange(0, WIDTH), tl.arange(0, COLUMNS)
    object_, step = tl.arange(0, SHELVES), tl.arange(0, CHUNK)
    first_column = image * columns
    labels, free = tl.load(rest + image).to(tl.float64), tl.load(priors + image).to(tl.float64)
    for begin in range(0, objects, ROWS):
        row = image * objects + begin + shelf
        within = (begin + shelf) < objects
        start = row[:, None].to(tl.int64) * width
        inside = within[:, None] & (line < width)[None, :]
        exists = inside & (tl.load(real + start + line[None, :], inside, 0) != 0)
        costs = tl.load(cost + start + line[None, :], exists, float("inf")).to(tl.float64)
        lowest = tl.min(costs, 1)
        lowest = tl.where(tl.abs(lowest) < float("inf"), lowest, 0.0)
        exponent = tl.minimum(tl.maximum((lowest[:, None] - costs) / EPSILON, -REACH), 0.0)
        place = tl.cumsum(exists.to(tl.int32), 1) - 1
        tl.store(kernel + start + place, tl.exp(exponent), exists)
        tl.store(places + start + place, tl.load(column + start + line[None, :], exists, 0).to(tl.int32), exists)
        tl.store(lengths + row, tl.sum(exists.to(tl.int32), 1), within)
        tl.store(scale + row, tl.exp(tl.minimum(tl.maximum(-lowest / EPSILON, -REACH), REACH)), within)
        # How the entries of the plan find the kernel again: its position in the row, -1 for padding.
        tl.store(pairs + start + line[None, :], tl.where(exists, place, -1).to(tl.float64), inside)
    remaining = free
    tl.debug_barrier()
    for _ in range(iterations):
        # Columns: 1 is the background's entry, since its kernel and its scaling are 1.
        for begin in range(0, columns, COLUMNS):
            tl.store(background + first_column + begin + some, 1.0, begin + some < columns)
        tl.debug_barrier()
        for begin in range(0, objects, SHELVES):
            row = image * objects + begin + object_
            within = (begin + object_) < objects
            length = tl.load(lengths + row, within, 0)
            factor_of_row = tl.load(scale + row, within, 0.0)
            start = row[:, None].to(tl.int64) * width
            for at in range(0, tl.max(length, 0), CHUNK):
                inside = (at + step)[None, :] < length[:, None]
                entry = start + at + step[None, :]
                flow = tl.load(kernel + entry, inside, 0.0) * factor_of_row[:, None]
                tl.atomic_add(background + tl.load(places + entry, inside, 0), flow, inside)
        tl.debug_barrier()
        # Rows: what the objects do not ship to the priors of an image, the background does.
        shipped = free * 0
        for begin in range(0, objects, SHELVES):
            row = image * objects + begin + object_
            within = (begin + object_) < objects
            length = tl.load(lengths + row, within, 0)
            start = row[:, None].to(tl.int64) * width
            total = tl.zeros([SHELVES], tl.float64)
            for at in range(0, tl.max(length, 0), CHUNK):
                inside = (at + step)[None, :] < length[:, None]
                entry = start + at + step[None, :]
                sums = tl.load(background + tl.load(places + entry, inside, 0), inside, 1.0)
                total += tl.sum(tl.load(kernel + entry, inside, 0.0) / sums, 1)
            total = tl.maximum(total, LEAST)
            tl.store(received + row, total, within)
            shipped += tl.sum(tl.where(within, tl.load(scale + row, within, 0.0) * total, 0.0), 0)
        remaining = tl.maximum(free - shipped, LEAST)
        tl.debug_barrier()
        for begin in range(0, objects, COLUMNS):
            row = image * objects + begin + some
            within = begin + some < objects
            ratio = tl.load(supply + row, within, 0.0).to(tl.float64) / labels
            update = ratio * remaining / tl.load(received + row, within, 1.0)
            tl.store(scale + row, tl.minimum(update, MOST), within)
        tl.debug_barrier()
    # Undo the division by the background's scaling, which is rest / remaining.
    factor = labels / remaining
    tl.store(others + image, factor)
    for begin in range(0, objects, ROWS):
        row = image * objects + begin + shelf
        within = (begin + shelf) < objects
        start = row[:, None].to(tl.int64) * width
        inside = within[:, None] & (line < width)[None, :]
        place = tl.load(pairs + start + line[None, :], inside, -1.0).to(tl.int32)
        exists = inside & (place >= 0)
        sums = tl.load(background + tl.load(places + start + place, exists, 0), exists, 1.0)
        flow = tl.load(kernel + start + place, exists, 0.0) / sums * tl.load(scale + row, within, 0.0)[:, None] * factor
        tl.store(pairs + start + line[None, :], flow, inside)
    tl.debug_barrier()
    for begin in range(0, columns, COLUMNS):
        within = begin + some < columns
        sums = tl.load(background + first_column + begin + some, within, 1.0)
        tl.store(background + first_column + begin + some, factor / sums, within)
