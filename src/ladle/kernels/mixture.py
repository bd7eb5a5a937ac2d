"""Kernel of :mod:`ladle.assigners.mixture`: expectation-maximization, one program for each mixture.

The samples of a mixture stay in registers, and a program ends when its mixture has converged.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

__all__ = ["fit_mixtures"]


def fit_mixtures(
    samples: Tensor, valid: Tensor, tolerance: float, steps: int, ridge: float, tiny: float
) -> tuple[Tensor, Tensor]:
    """See ``_fit`` in :mod:`ladle.assigners.mixture`."""
    rows, width = samples.shape
    low = torch.empty_like(valid)
    likelihood = torch.empty(rows, width, dtype=torch.float64, device=samples.device)
    # Numbers would arrive as float32, so the constants are compiled in.
    if rows and width:
        _fit[(rows,)](
            samples.contiguous(),
            valid.contiguous(),
            low,
            likelihood,
            width,
            TOLERANCE=tolerance,
            STEPS=steps,
            RIDGE=ridge,
            TINY=tiny,
            WIDTH=triton.next_power_of_2(width),
            num_warps=1,
        )
    return low, likelihood


@triton.jit
def _log_density(x, weight, mean, variance):
    constant = tl.log(weight) - tl.log(6.283185307179586 * variance) / 2
    return constant - (x - mean) * (x - mean) / (2 * variance)


@triton.jit
def _log_sum(first, second):
    return tl.maximum(first, second) + tl.log(1 + tl.exp(-tl.abs(first - second)))


@triton.jit
def _moments(x, share, RIDGE: tl.constexpr, TINY: tl.constexpr):
    mass = tl.sum(share, 0) + TINY
    mean = tl.sum(share * x, 0) / mass
    variance = tl.sum(share * (x - mean) * (x - mean), 0) / mass + RIDGE
    return mass, mean, variance


@triton.jit
def _fit(
    samples, valid, low, likelihood, width,
    TOLERANCE: tl.constexpr, STEPS: tl.constexpr, RIDGE: tl.constexpr, TINY: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Fit one row of samples."""
    column = tl.arange(0, WIDTH)
    within = column < width
    start = tl.program_id(0).to(tl.int64) * width
    counted = within & (tl.load(valid + start + column, within, 0) != 0)
    x = tl.where(counted, tl.load(samples + start + column, counted, 0.0), 0.0).to(tl.float64)
    one = counted.to(tl.float64)
    number = tl.sum(one, 0)
    # The samples ascend: the first is the smallest, the last valid one the largest.
    mean_low = tl.sum(tl.where(column == 0, x, 0.0), 0)
    mean_high = tl.sum(tl.where(column == tl.maximum(number - 1, 0).to(tl.int32), x, 0.0), 0)
    variance_low = number * 0 + 1
    variance_high = number * 0 + 1
    weight_low = number * 0 + 0.5
    weight_high = number * 0 + 0.5
    previous = number * 0 - float("inf")
    running = number >= 2
    step = 0
    while running & (step < STEPS):
        first = _log_density(x, weight_low, mean_low, variance_low)
        second = _log_density(x, weight_high, mean_high, variance_high)
        total = _log_sum(first, second)
        average = tl.sum(total * one, 0) / tl.maximum(number, 1)
        mass_low, mean_low, variance_low = _moments(x, tl.exp(first - total) * one, RIDGE, TINY)
        mass_high, mean_high, variance_high = _moments(x, tl.exp(second - total) * one, RIDGE, TINY)
        weight_low = mass_low / (mass_low + mass_high)
        weight_high = mass_high / (mass_low + mass_high)
        running = tl.abs(average - previous) >= TOLERANCE
        previous = average
        step += 1
    first = _log_density(x, weight_low, mean_low, variance_low)
    second = _log_density(x, weight_high, mean_high, variance_high)
    tl.store(low + start + column, counted & (first >= second), within)
    tl.store(likelihood + start + column, _log_sum(first, second), within)
