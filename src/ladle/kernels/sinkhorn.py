"""Kernel of :mod:`ladle.assigners.sinkhorn`: all iterations in one launch, one program for each image.

A program keeps its kernel, scalings and sums in memory that only it touches, so a barrier between the steps is enough.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ladle.assigners.sinkhorn import LEAST, MOST, REACH

__all__ = ["transport"]

_ENTRIES = 2048
"""Pairs that a program treats at once."""


def transport(
    column: Tensor, cost: Tensor, real: Tensor, supply: Tensor, rest: Tensor, priors: Tensor, columns: int, width: int,
    epsilon: float, iterations: int,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """See ``_transport`` in :mod:`ladle.assigners.sinkhorn`; there are as many columns in each image."""
    batch, objects = supply.shape
    pairs = torch.empty(len(cost), dtype=torch.float64, device=cost.device)
    background = torch.empty(columns, dtype=torch.float64, device=cost.device)
    others = torch.empty(batch, dtype=torch.float64, device=cost.device)
    scale, received = torch.empty(2, max(batch * objects, 1), dtype=torch.float64, device=cost.device)
    side = triton.next_power_of_2(width)
    if batch:
        _transport[(batch,)](
            *(each.contiguous() for each in (column, cost, real, supply, rest, priors)),
            pairs,
            background,
            others,
            scale,
            received,
            objects,
            columns // batch,
            width,
            iterations,
            EPSILON=epsilon,
            REACH=REACH,
            LEAST=LEAST,
            MOST=MOST,
            ROWS=max(1, _ENTRIES // side),
            WIDTH=side,
            COLUMNS=_ENTRIES,
            num_warps=16,
        )
    return pairs, background, others


@triton.jit
def _transport(
    column, cost, real, supply, rest, priors, pairs, background, others, scale, received,
    objects, columns, width, iterations,
    EPSILON: tl.constexpr, REACH: tl.constexpr, LEAST: tl.constexpr, MOST: tl.constexpr,
    ROWS: tl.constexpr, WIDTH: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """The plan of one image. ``pairs`` holds the kernel and ``background`` the sums of the columns until the end."""
    image = tl.program_id(0)
    shelf, line, some = tl.arange(0, ROWS), tl.arange(0, WIDTH), tl.arange(0, COLUMNS)
    first_column = image * columns
    labels, free = tl.load(rest + image).to(tl.float64), tl.load(priors + image).to(tl.float64)
    for begin in range(0, objects, ROWS):
        row = image * objects + begin + shelf
        within = (begin + shelf) < objects
        entry = row[:, None].to(tl.int64) * width + line[None, :]
        inside = within[:, None] & (line < width)[None, :]
        exists = inside & (tl.load(real + entry, inside, 0) != 0)
        costs = tl.load(cost + entry, exists, float("inf")).to(tl.float64)
        lowest = tl.min(costs, 1)
        lowest = tl.where(tl.abs(lowest) < float("inf"), lowest, 0.0)
        exponent = tl.minimum(tl.maximum((lowest[:, None] - costs) / EPSILON, -REACH), 0.0)
        tl.store(pairs + entry, tl.where(exists, tl.exp(exponent), 0.0), inside)
        tl.store(scale + row, tl.exp(tl.minimum(tl.maximum(-lowest / EPSILON, -REACH), REACH)), within)
    remaining = free
    for _ in range(iterations):
        # Columns: 1 is the background's entry, since its kernel and its scaling are 1.
        for begin in range(0, columns, COLUMNS):
            tl.store(background + first_column + begin + some, 1.0, begin + some < columns)
        tl.debug_barrier()
        for begin in range(0, objects, ROWS):
            row = image * objects + begin + shelf
            within = (begin + shelf) < objects
            entry = row[:, None].to(tl.int64) * width + line[None, :]
            inside = within[:, None] & (line < width)[None, :]
            flow = tl.load(pairs + entry, inside, 0.0) * tl.load(scale + row, within, 0.0)[:, None]
            place = tl.load(column + entry, inside, 0)
            tl.atomic_add(background + place, flow, inside & (flow > 0))
        tl.debug_barrier()
        # Rows: what the objects do not ship to the priors of an image, the background does.
        shipped = free * 0
        for begin in range(0, objects, ROWS):
            row = image * objects + begin + shelf
            within = (begin + shelf) < objects
            entry = row[:, None].to(tl.int64) * width + line[None, :]
            inside = within[:, None] & (line < width)[None, :]
            place = tl.load(column + entry, inside, 0)
            sums = tl.load(background + place, inside, 1.0)
            total = tl.maximum(tl.sum(tl.load(pairs + entry, inside, 0.0) / sums, 1), LEAST)
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
        entry = row[:, None].to(tl.int64) * width + line[None, :]
        inside = within[:, None] & (line < width)[None, :]
        sums = tl.load(background + tl.load(column + entry, inside, 0), inside, 1.0)
        flow = tl.load(pairs + entry, inside, 0.0) / sums * tl.load(scale + row, within, 0.0)[:, None] * factor
        tl.store(pairs + entry, flow, inside)
    tl.debug_barrier()
    for begin in range(0, columns, COLUMNS):
        within = begin + some < columns
        sums = tl.load(background + first_column + begin + some, within, 1.0)
        tl.store(background + first_column + begin + some, factor / sums, within)
