"""A mixture of two Gaussians on a line, fitted to many sets of samples at once.

The same expectation-maximisation as scikit-learn's ``GaussianMixture(2, "full")`` with its defaults, started as PAA
starts it; float64 throughout, because the float32 'diag' formula E[x^2] - E[x]^2 fails on tight clusters.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ladle.overlaps import may_look

__all__ = ["Mixture", "fit_two_gaussians"]

TOLERANCE, LONGEST, RIDGE = 1e-3, 100, 1e-6
_TINY = 10 * torch.finfo(torch.float64).eps


class Mixture(NamedTuple):
    """For every sample, whether it belongs to the component started at the smallest one, and its log-likelihood."""

    low: Bool[Tensor, "N K"]
    likelihood: Float[Tensor, "N K"]


class _Parameters(NamedTuple):
    """Of the two components, low one first: component-major, so that a row's samples lie side by side."""

    weight: Float[Tensor, "2 N 1"]
    mean: Float[Tensor, "2 N 1"]
    variance: Float[Tensor, "2 N 1"]

    def at(self, rows: Int[Tensor, " n"]) -> _Parameters:
        return _Parameters(*(values.index_select(1, rows) for values in self))


def fit_two_gaussians(samples: Float[Tensor, "N K"], valid: Bool[Tensor, "N K"]) -> Mixture:
    """Fit each row on its own; ``samples`` ascend along a row, the ``valid`` ones stand first and are finite."""
    x = torch.where(valid, samples.double(), 0.0)
    count = valid.sum(-1)
    ends = torch.stack([x[:, :1], x.gather(1, (count - 1).clamp(min=0).unsqueeze(-1))])
    state = _Parameters(torch.full_like(ends, 0.5), ends, torch.ones_like(ends))
    state = _climb(x, valid.double(), state, torch.full_like(x[:, 0], -torch.inf), count >= 2, LONGEST)
    density = _log_density(x, state)
    return Mixture(valid & (density[0] >= density[1]), _log_sum(density))


def _climb(
    x: Tensor, counted: Tensor, state: _Parameters, previous: Tensor, running: Bool[Tensor, " N"], steps: int
) -> _Parameters:
    """Take at most ``steps`` in the rows that are running; go on with those alone once they are fewer than half."""
    count = counted.sum(-1).clamp(min=1)
    for step in range(steps):
        if may_look(running):
            rows = running.nonzero().squeeze(1)
            if not len(rows):
                break
            if 2 * len(rows) < len(running):
                some = _climb(x[rows], counted[rows], state.at(rows), previous[rows], running[rows], steps - step)
                return _Parameters(*(old.index_copy(1, rows, new) for old, new in zip(state, some, strict=True)))
        density = _log_density(x, state)
        total = _log_sum(density)
        mean_total = (total * counted).sum(-1) / count
        proposed = _maximise(x, (density - total).exp_() * counted)
        move = running.unsqueeze(-1)
        state = _Parameters(*(torch.where(move, new, old) for new, old in zip(proposed, state, strict=True)))
        running = running & ((mean_total - previous).abs() >= TOLERANCE)
        previous = mean_total
    return state


def _log_density(x: Tensor, state: _Parameters) -> Float[Tensor, "2 N K"]:
    constant = state.weight.log() - (2 * math.pi * state.variance).log() / 2
    return constant - (x - state.mean).square() / (2 * state.variance)


def _log_sum(density: Float[Tensor, "2 N K"]) -> Float[Tensor, "N K"]:
    """``logaddexp`` of both components, which PyTorch computes number by number on a processor."""
    return density.amax(0) + (1 + (density[0] - density[1]).abs_().neg_().exp_()).log_()


def _maximise(x: Tensor, share: Float[Tensor, "2 N K"]) -> _Parameters:
    mass = share.sum(-1, keepdim=True) + _TINY
    mean = (share * x).sum(-1, keepdim=True) / mass
    variance = (share * (x - mean).square()).sum(-1, keepdim=True) / mass + RIDGE
    return _Parameters(mass / mass.sum(0, keepdim=True), mean, variance)
