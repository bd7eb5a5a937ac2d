"""PKD: the student's feature maps correlate with the teacher's, whatever the scale of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from jaxtyping import Bool, Float
from torch import Tensor

from ladle.distillers.joining import Joinable
from ladle.distillers.levels import Imitation, Level, Levels, Pairing, channel_spread, per_image, summarized
from ladle.distillers.protocol import Network, Summary
from ladle.networks import NetworkInfo
from ladle.types import GroundTruth, Output, Term

__all__ = ["PKD"]

_FLOOR = 1e-6
"""Added to the standard deviation of a channel, so that it is never 0."""


@dataclass(frozen=True)
class PKD(Joinable):
    """Squared difference of standardized maps: Pearson's correlation (Cao et al., NeurIPS 2022; mmrazor).

    Each channel is standardized over the images of the batch and all cells, so that teachers of another architecture,
    whose features have another magnitude, can be imitated too.

    Args:
        weight: loss weight of a level: 6 with a two-stage teacher, 10 with a one-stage one.
        finest: number of levels that are imitated, from the finest on.
        pairs: which levels are compared. By ``index``: the finest with the finest and so on, with the student's maps
            resampled to the teacher's grids (mmrazor), if the strides differ by a factor of at most two. By
            ``stride``: those of the nearest stride, with the teacher's maps resampled.

    Statistics are those of the images on one device, as in the reference code, but without their padding.

    Examples:
        >>> from ladle.distillers import PKD
        >>> from ladle.testing import example_network, example_output
        >>> student, truth, plan = example_output(seed=0)
        >>> teacher, _, _ = example_output(seed=1)
        >>> distil = PKD().build(example_network(), example_network())
        >>> sorted(distil(student, teacher, truth, plan))
        ['pkd']
    """

    features_only: ClassVar[bool] = True
    every_stage: ClassVar[bool] = False
    """It compares feature maps only, so the teacher need not predict at the student's priors."""

    weight: float = 6.0
    finest: int = 4
    pairs: Pairing = "index"

    def summarize(self, student: NetworkInfo, teacher: NetworkInfo, stage: int) -> Summary:
        """What each term imitates, and which terms are left out."""
        return summarized({"pkd": "correlation of channels"}, student, teacher, most=self.finest, by=self.pairs)

    def build(self, student: Network, teacher: Network) -> Imitation:
        """The distiller for two networks, with a convolution where their channels differ."""
        onto: Literal["student", "teacher"] = "teacher" if self.pairs == "index" else "student"
        levels = Levels(student.pyramid, teacher.pyramid, most=self.finest, by=self.pairs, onto=onto)
        return Imitation(levels, self.compare)

    def compare(self, levels: list[Level], student: Output, teacher: Output, truth: GroundTruth) -> dict[str, Term]:
        """The term ``pkd``."""
        if not self.weight:
            return {}
        images = len(levels[0].student)
        costs = []
        for level in levels:
            pred, target = (_standardized(maps, level.filled) for maps in (level.student, level.teacher))
            difference = ((pred - target).square() * level.filled).mean(1).sum() / level.filled.sum().clamp(min=1)
            costs.append(self.weight / 2 * images * difference)
        return per_image("pkd", costs, images)


def _standardized(maps: Float[Tensor, "B C H W"], filled: Bool[Tensor, "B 1 H W"]) -> Float[Tensor, "B C H W"]:
    mean, spread = channel_spread(maps, filled)
    return (maps - mean) / (spread + _FLOOR)
