"""Kernel of :mod:`ladle.pairs`: the pair of highest score of each prior."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

__all__ = ["best_pairs"]

_PAIRS = 256
"""Pairs, and priors, of one program."""
_LEAST, _MOST = -(1 << 63), (1 << 63) - 1


def best_pairs(
    image: Tensor, number: Tensor, prior: Tensor, real: Tensor, score: Tensor, batch: int, count: int
) -> tuple[Tensor, Tensor]:
    """See ``_best_pairs`` in :mod:`ladle.pairs`.

    The highest score of each prior is found by atomic operations, then the lowest object number among its pairs.
    """
    best = torch.full((batch, count), _LEAST, dtype=torch.long, device=score.device)
    index = torch.full((batch, count), _MOST, dtype=torch.long, device=score.device)
    taken = torch.empty(batch, count, dtype=torch.bool, device=score.device)
    pairs = tuple(each.contiguous() for each in (image, number, prior, real, score))
    if len(score):
        blocks = (triton.cdiv(len(score), _PAIRS),)
        _highest[blocks](*pairs, best, len(score), count, PAIRS=_PAIRS)
        _first[blocks](*pairs, best, index, len(score), count, PAIRS=_PAIRS)
    _finish[(triton.cdiv(batch * count, _PAIRS),)](index, taken, batch * count, PAIRS=_PAIRS)
    return taken, index


@triton.jit
def _key(score, at, exists):
    """The bits of a score as an integer of the same order; float32 and float64 give the same for the same score."""
    bits = (tl.load(score + at, exists, 0.0).to(tl.float64) + 0.0).to(tl.int64, bitcast=True)
    # The bits of a float compare like an integer once those of a negative number, except the sign, are flipped.
    return bits ^ ((bits >> 63) & 0x7FFFFFFFFFFFFFFF)


@triton.jit
def _highest(image, number, prior, real, score, best, pairs, count, PAIRS: tl.constexpr):
    at = tl.program_id(0) * PAIRS + tl.arange(0, PAIRS)
    exists = at < pairs
    exists = exists & (tl.load(real + at, exists, 0) != 0)
    place = tl.load(image + at, exists, 0) * count + tl.load(prior + at, exists, 0)
    tl.atomic_max(best + place, _key(score, at, exists), exists)


@triton.jit
def _first(image, number, prior, real, score, best, index, pairs, count, PAIRS: tl.constexpr):
    at = tl.program_id(0) * PAIRS + tl.arange(0, PAIRS)
    exists = at < pairs
    exists = exists & (tl.load(real + at, exists, 0) != 0)
    place = tl.load(image + at, exists, 0) * count + tl.load(prior + at, exists, 0)
    reaches = exists & (tl.load(best + place, exists, 0) == _key(score, at, exists))
    tl.atomic_min(index + place, tl.load(number + at, exists, 0), reaches)


@triton.jit
def _finish(index, taken, total, PAIRS: tl.constexpr):
    at = tl.program_id(0) * PAIRS + tl.arange(0, PAIRS)
    within = at < total
    number = tl.load(index + at, within, 0)
    some = number != 9223372036854775807
    tl.store(taken + at, some, within)
    tl.store(index + at, tl.where(some, number, 0), within)
