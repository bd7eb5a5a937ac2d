"""FitNet: the student's feature maps imitate the teacher's, with the same weight at every cell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ladle.distillers.joining import Joinable
from ladle.distillers.levels import Imitation, Level, Levels, per_image, summarized
from ladle.distillers.protocol import Network, Summary
from ladle.networks import NetworkInfo
from ladle.types import GroundTruth, Output, Term

__all__ = ["FitNet"]


@dataclass(frozen=True)
class FitNet(Joinable):
    """Squared difference of the feature maps, the mean of each level, summed over levels (Romero et al., ICLR 2015).

    Args:
        weight: loss weight of a level.
        relative: whether both maps are first scaled by the RMS of the teacher's map, see
            :class:`~ladle.distillers.levels.Levels`; the released code does not scale them.

    A trained 1 x 1 convolution follows the student's maps on every level. If the numbers of channels are equal, it
    starts as the identity.

    Examples:
        >>> from ladle.distillers import FitNet
        >>> from ladle.testing import example_network, example_output
        >>> student, truth, plan = example_output(seed=0)
        >>> teacher, _, _ = example_output(seed=1)
        >>> distil = FitNet().build(example_network(), example_network())
        >>> sorted(distil(student, teacher, truth, plan))
        ['fitnet']
    """

    features_only: ClassVar[bool] = True
    every_stage: ClassVar[bool] = False
    """It compares feature maps only, so the teacher need not predict at the student's priors."""

    weight: float = 10.0
    relative: bool = True

    def summarize(self, student: NetworkInfo, teacher: NetworkInfo, stage: int) -> Summary:
        """What each term imitates, and which terms are left out."""
        return summarized({"fitnet": "squared differences"}, student, teacher, always=True)

    def build(self, student: Network, teacher: Network) -> Imitation:
        """The distiller for two networks, with its convolutions."""
        return Imitation(Levels(student.pyramid, teacher.pyramid, always=True, relative=self.relative), self.compare)

    def compare(self, levels: list[Level], student: Output, teacher: Output, truth: GroundTruth) -> dict[str, Term]:
        """The term ``fitnet``."""
        if not self.weight:
            return {}
        costs = []
        for level in levels:
            difference = ((level.student - level.teacher).square() * level.filled).mean(1).sum((1, 2))
            costs.append(self.weight * (difference / level.filled.sum((1, 2, 3)).clamp(min=1)).sum())
        return per_image("fitnet", costs, len(levels[0].student))
