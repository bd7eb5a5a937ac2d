"""The student's feature maps go along with those of its teacher, whatever their scale."""

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
"""Least deviation of a channel, added to it."""


@dataclass(frozen=True)
class PKD(Joinable):
    """Squared difference of standardised maps, which is Pearson's correlation (Cao et al., NeurIPS 2022; mmrazor).

    Each channel is standardised over the images of the batch and all cells, so that teachers of another kind, whose
    features are of another size, can be imitated too.

    Args:
        weight: of a level: 6 of a teacher in two stages, 10 of one in one stage.
        finest: how many levels are imitated, the finest ones.
        pairs: which levels meet: by ``index`` the finest with the finest and so on, the student's maps resampled to the
            teacher's grids (mmrazor), where they are a factor of two apart at most; or those of the nearest ``stride``,
            the teacher's maps resampled.

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
    """It compares feature maps alone: the teacher need not predict at the student's priors."""

    weight: float = 6.0
    finest: int = 4
    pairs: Pairing = "index"

    def summarize(self, student: NetworkInfo, teacher: NetworkInfo, stage: int) -> Summary:
        """What is taught, and what is left out."""
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
        images = len(levels[0].own)
        costs = []
        for level in levels:
            own, guide = (_standardised(maps, level.filled) for maps in (level.own, level.guide))
            apart = ((own - guide).square() * level.filled).mean(1).sum() / level.filled.sum().clamp(min=1)
            costs.append(self.weight / 2 * images * apart)
        return per_image("pkd", costs, images)


def _standardised(maps: Float[Tensor, "B C H W"], filled: Bool[Tensor, "B 1 H W"]) -> Float[Tensor, "B C H W"]:
    mean, spread = channel_spread(maps, filled)
    return (maps - mean) / (spread + _FLOOR)
