"""A mixture of two Gaussians on a line, fitted to many samples sets at once.

The same expectation-maximisation as scikit-learn's ``GaussianMixture(2, "full")`` with its defaults, started as PAA
starts it; float64 throughout, because the float32 'diag' formula E[x^2] - E[x]^2 fails on tight clusters.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

__all__ = ["Mixture", "fit_two_gaussians"]

TOLERANCE, LONGEST, RIDGE = 1e-3, 100, 1e-6
_TINY = 10 * torch.finfo(torch.float64).eps


class Mixture(NamedTuple):
    """For every sample, whether it belongs to the component started at the smallest one, and its log-likelihood."""

    low: Bool[Tensor, "N K"]
    likelihood: Float[Tensor, "N K"]


class _Parameters(NamedTuple):
    weight: Float[Tensor, "N 1 2"]
    mean: Float[Tensor, "N 1 2"]
    variance: Float[Tensor, "N 1 2"]


def fit_two_gaussians(samples: Float[Tensor, "N K"], valid: Bool[Tensor, "N K"]) -> Mixture:
    """Fit each row on its own; ``samples`` ascend along a row, the ``valid`` ones stand first and are finite."""
    x = torch.where(valid, samples.double(), 0.0).unsqueeze(-1)
    count = valid.sum(-1)
    last = x.gather(1, (count - 1).clamp(min=0).view(-1, 1, 1))
    ends = torch.cat([x[:, :1], last], dim=-1)
    state = _Parameters(torch.full_like(ends, 0.5), ends, torch.ones_like(ends))
    previous = torch.full_like(x[:, 0, 0], -torch.inf)
    running = count >= 2
    for _ in range(LONGEST):
        if _surely_done(running):
            break
        density = _log_density(x, state)
        total = density.logsumexp(-1)
        mean_total = (total * valid).sum(-1) / count.clamp(min=1)
        step = _maximise(x, (density - total.unsqueeze(-1)).exp() * valid.unsqueeze(-1))
        move = running.view(-1, 1, 1)
        state = _Parameters(*(torch.where(move, new, old) for new, old in zip(step, state, strict=True)))
        running = running & ((mean_total - previous).abs() >= TOLERANCE)
        previous = mean_total
    density = _log_density(x, state)
    return Mixture(valid & (density[..., 0] >= density[..., 1]), density.logsumexp(-1))


def _log_density(x: Tensor, state: _Parameters) -> Float[Tensor, "N K 2"]:
    spread = math.log(2 * math.pi) + state.variance.log() + (x - state.mean).square() / state.variance
    return state.weight.log() - spread / 2


def _maximise(x: Tensor, share: Float[Tensor, "N K 2"]) -> _Parameters:
    mass = share.sum(1, keepdim=True) + _TINY
    mean = (share * x).sum(1, keepdim=True) / mass
    variance = (share * (x - mean).square()).sum(1, keepdim=True) / mass + RIDGE
    return _Parameters(mass / mass.sum(-1, keepdim=True), mean, variance)


def _surely_done(running: Tensor) -> bool:
    """Whether every row has converged, asked only where looking is free: on the CPU, outside a compiled graph."""
    return running.device.type == "cpu" and not torch.compiler.is_compiling() and not bool(running.any())
