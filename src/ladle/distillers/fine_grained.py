"""Features are imitated near objects, where some prior overlaps one nearly as well as any does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ladle.distillers.levels import Imitation, Level, Levels, at_locations, masked_mean, outlined, per_picture
from ladle.distillers.protocol import Network, Outline, Voice
from ladle.distillers.regions import near_best
from ladle.types import GroundTruth, Output, Term

__all__ = ["FineGrained"]


@dataclass(frozen=True)
class FineGrained:
    """Fine-grained feature imitation (Wang et al., CVPR 2019).

    Imitated is every location with a prior whose IoU with an object exceeds ``share`` of the largest that any prior has
    with it. The squared difference is summed over channels and divided by twice the number of such locations, on each
    level by itself, then averaged over channels so that the width of the maps does not matter.

    Args:
        weight: of a level.
        share: of an object's largest IoU that makes a location near it.
        relative: whether maps are measured in units of the teacher's, see
            :class:`~ladle.distillers.levels.Levels`; the release takes them as they are.

    A trained 1 x 1 convolution stands behind the student's maps, also where the channels agree.
    """

    features_only: ClassVar[bool] = True
    """It compares feature maps alone: the teacher need not predict at the student's priors."""

    weight: float = 2.0
    share: float = 0.5
    relative: bool = True

    def outline(self, student: Voice, teacher: Voice) -> Outline:
        """What is taught, and what is left out."""
        return outlined({"fine_grained": "squared differences near objects"}, student, teacher, always=True)

    def build(self, student: Network, teacher: Network) -> Imitation:
        """The distiller for two networks, with its convolutions."""
        return Imitation(Levels(student.pyramid, teacher.pyramid, always=True, relative=self.relative), self.compare)

    def compare(self, levels: list[Level], student: Output, teacher: Output, truth: GroundTruth) -> dict[str, Term]:
        """The term ``fine_grained``."""
        if not self.weight:
            return {}
        near = at_locations(near_best(student.priors, truth, self.share), student.priors, student.features)
        pictures = len(truth.labels)
        costs = [self.weight * pictures * masked_mean(level, near[level.number]) / 2 for level in levels]
        return per_picture("fine_grained", costs, pictures)
