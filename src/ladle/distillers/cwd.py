"""Every channel of the student looks where that of its teacher looks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ladle.distillers.joining import Joinable
from ladle.distillers.levels import SHARP, Imitation, Level, Levels, per_image, summarized
from ladle.distillers.protocol import Network, Summary
from ladle.networks import NetworkInfo
from ladle.types import GroundTruth, Output, Term

__all__ = ["CWD"]


@dataclass(frozen=True)
class CWD(Joinable):
    """KL divergence between the channels' distributions over the map (Shu et al., ICCV 2021; mmrazor).

    Args:
        weight: of a level.
        temperature: that softens the softmax over cells.
        relative: whether maps are brought to one size, :data:`~ladle.distillers.levels.SHARP`, before the softmax; by
            default they are taken as they are, as in the release, and the softmax is as sharp as features are large.

    Examples:
        >>> from ladle.distillers import CWD
        >>> from ladle.testing import example_network, example_output
        >>> student, truth, plan = example_output(seed=0)
        >>> teacher, _, _ = example_output(seed=1)
        >>> distil = CWD().build(example_network(), example_network())
        >>> sorted(distil(student, teacher, truth, plan))
        ['cwd']
    """

    features_only: ClassVar[bool] = True
    every_stage: ClassVar[bool] = False
    """It compares feature maps alone: the teacher need not predict at the student's priors."""

    weight: float = 10.0
    temperature: float = 1.0
    relative: bool = False

    def summarize(self, student: NetworkInfo, teacher: NetworkInfo, stage: int) -> Summary:
        """What is taught, and what is left out."""
        return summarized({"cwd": "where each channel looks"}, student, teacher)

    def build(self, student: Network, teacher: Network) -> Imitation:
        """The distiller for two networks, with a convolution where their channels differ."""
        return Imitation(Levels(student.pyramid, teacher.pyramid, relative=self.relative, unit=SHARP), self.compare)

    def compare(self, levels: list[Level], student: Output, teacher: Output, truth: GroundTruth) -> dict[str, Term]:
        """The term ``cwd``."""
        if not self.weight:
            return {}
        costs = []
        for level in levels:
            own, guide = (self._log_chances(maps, level) for maps in (level.own, level.guide))
            # Cells of the padding have no prob in either, and no part in the difference.
            apart = (guide.exp() * (guide - own)).masked_fill(~level.filled.flatten(2), 0.0).sum(-1)
            costs.append(self.weight * self.temperature**2 * apart.mean(1).sum())
        return per_image("cwd", costs, len(levels[0].own))

    def _log_chances(self, maps: Tensor, level: Level) -> Tensor:
        lowest = torch.finfo(torch.float32).min
        softened = (maps / self.temperature).masked_fill(~level.filled, lowest)
        return softened.flatten(2).log_softmax(-1)
