"""One-dimensional mixtures of two Gaussians, fitted to many sets of samples at once.

The expectation-maximization of scikit-learn's ``GaussianMixture(2, covariance_type="full")`` with its defaults,
initialized as in PAA: the means at the smallest and the largest sample, variances 1, weights 0.5. All in float64:
``E[x^2] - E[x]^2`` in float32, which "diag" uses, loses all digits on tight clusters.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ladle.device import fused, may_look

__all__ = ["Mixture", "fit_two_gaussians"]

TOLERANCE, LONGEST, RIDGE = 1e-3, 100, 1e-6
TINY = 10 * torch.finfo(torch.float64).eps


class Mixture(NamedTuple):
    """Whether each sample belongs to the component that started at the smallest sample, and its log-likelihood."""

    low: Bool[Tensor, "N K"]
    likelihood: Float[Tensor, "N K"]


class _Parameters(NamedTuple):
    """The parameters of both components of N mixtures; the one that started at the smallest sample comes first."""

    weight: Float[Tensor, "2 N 1"]
    mean: Float[Tensor, "2 N 1"]
    variance: Float[Tensor, "2 N 1"]

    def at(self, rows: Int[Tensor, " n"]) -> _Parameters:
        return _Parameters(*(values.index_select(1, rows) for values in self))


def fit_two_gaussians(samples: Float[Tensor, "N K"], valid: Bool[Tensor, "N K"]) -> Mixture:
    """Fit one mixture to each row.

    The ``valid`` samples of a row come first, are finite, and ascend. Rows with fewer than two samples are not fitted.
    """
    if may_look(samples):
        return Mixture(*_fit(samples, valid))
    return Mixture(*_FIT(samples, valid, TOLERANCE, LONGEST, RIDGE, TINY))


def _fit(samples: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """:func:`fit_two_gaussians` in plain operations."""
    x = torch.where(valid, samples.double(), 0.0)
    count = valid.sum(-1)
    # (2, N, 1): the smallest and the largest valid sample of each row.
    ends = torch.stack([x[:, :1], x.gather(1, (count - 1).clamp(min=0).unsqueeze(-1))])
    state = _Parameters(torch.full_like(ends, 0.5), ends, torch.ones_like(ends))
    state = _iterate(x, valid.double(), state, torch.full_like(x[:, 0], -torch.inf), count >= 2, LONGEST)
    density = _log_density(x, state)  # (2, N, K)
    return valid & (density[0] >= density[1]), _log_sum(density)


def _iterate(
    x: Tensor, counted: Tensor, state: _Parameters, previous: Tensor, running: Bool[Tensor, " N"], steps: int
) -> _Parameters:
    """At most ``steps`` EM iterations for the rows that are ``running``, until their mean log-likelihood converges.

    Rows converge after different numbers of iterations. On the CPU, once fewer than half of the rows are running, the
    iteration continues on a copy of these rows alone. ``counted`` is 1 for valid samples and 0 for padding;
    ``previous`` (N,) is the mean log-likelihood of the last iteration.
    """
    count = counted.sum(-1).clamp(min=1)
    for step in range(steps):
        if may_look(running):
            rows = running.nonzero().squeeze(1)
            if not len(rows):
                break
            if 2 * len(rows) < len(running):
                some = _iterate(x[rows], counted[rows], state.at(rows), previous[rows], running[rows], steps - step)
                return _Parameters(*(old.index_copy(1, rows, new) for old, new in zip(state, some, strict=True)))
        density = _log_density(x, state)
        total = _log_sum(density)
        mean_total = (total * counted).sum(-1) / count
        # E-step: (density - total).exp() are the responsibilities. M-step: _maximize. Only running rows are changed.
        proposed = _maximize(x, (density - total).exp_() * counted)
        move = running.unsqueeze(-1)
        state = _Parameters(*(torch.where(move, new, old) for new, old in zip(proposed, state, strict=True)))
        running = running & ((mean_total - previous).abs() >= TOLERANCE)
        previous = mean_total
    return state


def _log_density(x: Tensor, state: _Parameters) -> Float[Tensor, "2 N K"]:
    constant = state.weight.log() - (2 * math.pi * state.variance).log() / 2
    return constant - (x - state.mean).square() / (2 * state.variance)


def _log_sum(density: Float[Tensor, "2 N K"]) -> Float[Tensor, "N K"]:
    """``torch.logaddexp`` of both components in vectorized operations, which are faster on the CPU."""
    return density.amax(0) + (1 + (density[0] - density[1]).abs_().neg_().exp_()).log_()


def _maximize(x: Tensor, responsibility: Float[Tensor, "2 N K"]) -> _Parameters:
    """The M-step: weighted means and variances, with scikit-learn's ``reg_covariance`` added to the variances."""
    mass = responsibility.sum(-1, keepdim=True) + TINY
    mean = (responsibility * x).sum(-1, keepdim=True) / mass
    variance = (responsibility * (x - mean).square()).sum(-1, keepdim=True) / mass + RIDGE
    return _Parameters(mass / mass.sum(0, keepdim=True), mean, variance)


def _fit_with(
    samples: Tensor, valid: Tensor, tolerance: float, steps: int, ridge: float, tiny: float
) -> tuple[Tensor, Tensor]:
    """:func:`_fit`, which has these constants already; a kernel does not."""
    return _fit(samples, valid)


_FIT = fused(
    "fit_mixtures(Tensor samples, Tensor valid, float tolerance, int steps, float ridge, float tiny) "
    "-> (Tensor, Tensor)",
    _fit_with,
    module="mixture",
    launches=1,
)
