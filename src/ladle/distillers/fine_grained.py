"""Features are imitated near objects, where some prior overlaps one nearly as well as any does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ladle.distillers.joining import Joinable
from ladle.distillers.levels import Imitation, Level, Levels, at_locations, masked_mean, per_image, summarized
from ladle.distillers.protocol import Network, Summary
from ladle.distillers.regions import near_best
from ladle.networks import NetworkInfo
from ladle.types import GroundTruth, Output, Term

__all__ = ["FineGrained"]


@dataclass(frozen=True)
class FineGrained(Joinable):
    """Fine-grained feature imitation (Wang et al., CVPR 2019; released code).

    Imitated is every location with a prior whose IoU with an object exceeds ``share`` of the largest that any prior has
    with it. The squared difference is summed over channels and divided by twice the number of such locations, on each
    level by itself.

    Args:
        weight: of a level.
        share: of an object's largest IoU that makes a location near it.
        rectified: whether a ReLU stands behind the convolution, as in the release, whose maps are rectified too. A
            feature pyramid's are not: a student could not say half of what its teacher says.
        relative: whether maps are measured in units of the teacher's, see
            :class:`~ladle.distillers.levels.Levels`; the release takes them as they are.

    A trained 3 x 3 convolution stands behind the student's maps, also where the channels agree.

    Examples:
        >>> from ladle.distillers import FineGrained
        >>> from ladle.testing import example_network, example_output
        >>> student, truth, plan = example_output(seed=0)
        >>> teacher, _, _ = example_output(seed=1)
        >>> distil = FineGrained().build(example_network(), example_network())
        >>> sorted(distil(student, teacher, truth, plan))
        ['fine_grained']
    """

    features_only: ClassVar[bool] = True
    every_stage: ClassVar[bool] = False
    """It compares feature maps alone: the teacher need not predict at the student's priors."""

    weight: float = 0.01
    share: float = 0.5
    rectified: bool = False
    relative: bool = True

    def summarize(self, student: NetworkInfo, teacher: NetworkInfo, stage: int) -> Summary:
        """What is taught, and what is left out."""
        return summarized({"fine_grained": "squared differences near objects"}, student, teacher, kernel=3, always=True)

    def build(self, student: Network, teacher: Network) -> Imitation:
        """The distiller for two networks, with its convolutions."""
        levels = Levels(student.pyramid, teacher.pyramid, kernel=3, always=True, relative=self.relative)
        return Imitation(levels, self.compare)

    def compare(self, levels: list[Level], student: Output, teacher: Output, truth: GroundTruth) -> dict[str, Term]:
        """The term ``fine_grained``."""
        if not self.weight:
            return {}
        near = at_locations(near_best(student.priors, truth, self.share), student.priors, student.features)
        images, costs = len(truth.labels), []
        for level in levels:
            said = level._replace(own=level.own.relu()) if self.rectified else level
            summed = masked_mean(said, near[level.number]) * level.own.shape[1]
            costs.append(self.weight * images * summed / 2)
        return per_image("fine_grained", costs, images)
