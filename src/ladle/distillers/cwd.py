"""Channel-wise distillation: each channel of the student's maps imitates where the teacher's channel is active."""

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
        weight: loss weight of a level.
        temperature: of the softmax over cells.
        relative: whether both maps are first scaled so that the teacher's has the RMS
            :data:`~ladle.distillers.levels.SHARP`; by default they are not scaled, as in the released code, and the
            softmax is sharper for larger features.

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
    """It compares feature maps only, so the teacher need not predict at the student's priors."""

    weight: float = 10.0
    temperature: float = 1.0
    relative: bool = False

    def summarize(self, student: NetworkInfo, teacher: NetworkInfo, stage: int) -> Summary:
        """What each term imitates, and which terms are left out."""
        return summarized({"cwd": "where each channel is active"}, student, teacher)

    def build(self, student: Network, teacher: Network) -> Imitation:
        """The distiller for two networks, with a convolution where their channels differ."""
        return Imitation(Levels(student.pyramid, teacher.pyramid, relative=self.relative, unit=SHARP), self.compare)

    def compare(self, levels: list[Level], student: Output, teacher: Output, truth: GroundTruth) -> dict[str, Term]:
        """The term ``cwd``."""
        if not self.weight:
            return {}
        costs = []
        for level in levels:
            log_prob, target = (self._log_probs(maps, level) for maps in (level.student, level.teacher))
            # Cells of the padding have probability 0 in both maps, and no part in the divergence.
            divergence = (target.exp() * (target - log_prob)).masked_fill(~level.filled.flatten(2), 0.0).sum(-1)
            costs.append(self.weight * self.temperature**2 * divergence.mean(1).sum())
        return per_image("cwd", costs, len(levels[0].student))

    def _log_probs(self, maps: Tensor, level: Level) -> Tensor:
        lowest = torch.finfo(torch.float32).min
        softened = (maps / self.temperature).masked_fill(~level.filled, lowest)
        return softened.flatten(2).log_softmax(-1)
