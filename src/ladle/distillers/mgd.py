"""Masked generative distillation: a small network restores the teacher's maps from the student's masked maps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from ladle.distillers.joining import Joinable
from ladle.distillers.levels import Level, Levels, Share, level_total, per_image, summarized
from ladle.distillers.protocol import Network, Summary
from ladle.networks import NetworkInfo
from ladle.types import Assignment, GroundTruth, Output, Term

__all__ = ["MGD"]


@dataclass(frozen=True)
class MGD(Joinable):
    """Masked generative distillation (Yang et al., ECCV 2022; released code).

    A random fraction of the cells of the student's maps is set to 0. Two convolutions then generate the teacher's maps
    from the remaining cells. They are trained along with the student and not saved with it.

    Args:
        weight: loss weight of a level: 2e-5 for one-stage detectors, 5e-7 for two-stage ones.
        erased: fraction of the cells that are set to 0: 0.65 and 0.45.
        finest: number of levels that are imitated, from the finest on; all by default, and for two-stage detectors all
            but the pooled one.
        share: whether each ``level`` or each ``cell`` has the same weight, see
            :func:`~ladle.distillers.levels.level_total`.
        relative: whether both maps are first scaled by the RMS of the teacher's map, see
            :class:`~ladle.distillers.levels.Levels`; the released code does not scale them.

    The masks are drawn from the global random generator of the device.

    Examples:
        >>> from ladle.distillers import MGD
        >>> from ladle.testing import example_network, example_output
        >>> student, truth, plan = example_output(seed=0)
        >>> teacher, _, _ = example_output(seed=1)
        >>> distil = MGD().build(example_network(), example_network())
        >>> sorted(distil(student, teacher, truth, plan))
        ['mgd']
    """

    features_only: ClassVar[bool] = True
    every_stage: ClassVar[bool] = False
    """It compares feature maps only, so the teacher need not predict at the student's priors."""

    weight: float = 2e-5
    erased: float = 0.65
    finest: int | None = None
    share: Share = "level"
    relative: bool = True

    def summarize(self, student: NetworkInfo, teacher: NetworkInfo, stage: int) -> Summary:
        """What each term imitates, and which terms are left out."""
        what = f"maps generated from {1 - self.erased:.0%} of the cells"
        return summarized({"mgd": what}, student, teacher, most=self.finest)

    def build(self, student: Network, teacher: Network) -> nn.Module:
        """The distiller for two networks, with its generators."""
        levels = Levels(student.pyramid, teacher.pyramid, most=self.finest, relative=self.relative)
        return _Masked(self, levels, teacher.pyramid.channels)


class _Masked(nn.Module):
    def __init__(self, spec: MGD, levels: Levels, channels: tuple[int, ...]) -> None:
        super().__init__()
        self.spec = spec
        self.levels = levels
        self.generators = nn.ModuleList(_generator(channels[number]) for _, number in levels.pairs)

    def forward(self, student: Output, teacher: Output, truth: GroundTruth, assignment: Assignment) -> dict[str, Term]:
        """The term ``mgd``."""
        if not self.spec.weight:
            return {}
        levels: list[Level] = self.levels(student, teacher)
        costs = []
        for level, generate in zip(levels, self.generators, strict=True):
            kept = torch.rand_like(level.student[:, :1]) <= 1 - self.spec.erased
            restored: Tensor = generate(level.student * (kept & level.filled))
            difference = (restored.float() - level.teacher).square()
            costs.append(self.spec.weight * level_total(difference, level, self.spec.share))
        return per_image("mgd", costs, len(levels[0].student))


def _generator(channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU(), nn.Conv2d(channels, channels, 3, padding=1)
    )
