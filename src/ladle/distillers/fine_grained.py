"""Fine-grained imitation: features are imitated at locations whose priors overlap an object almost best."""

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

    A location is imitated if one of its priors has an IoU with an object above ``share`` times the largest IoU of any
    prior with that object. The squared difference is summed over channels and divided by twice the number of these
    locations, separately for each level.

    Args:
        weight: loss weight of a level.
        share: fraction of an object's largest IoU above which a prior makes its location near the object.
        rectified: whether a ReLU follows the convolution. It does in the release, where the teacher's maps are
            rectified too. The maps of a feature pyramid are not: a rectified student could not imitate negative values.
        relative: whether both maps are first scaled by the RMS of the teacher's map, see
            :class:`~ladle.distillers.levels.Levels`; the released code does not scale them.

    A trained 3 x 3 convolution follows the student's maps, also if the numbers of channels are equal.

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
    """It compares feature maps only, so the teacher need not predict at the student's priors."""

    weight: float = 0.01
    share: float = 0.5
    rectified: bool = False
    relative: bool = True

    def summarize(self, student: NetworkInfo, teacher: NetworkInfo, stage: int) -> Summary:
        """What each term imitates, and which terms are left out."""
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
            rectified = level._replace(student=level.student.relu()) if self.rectified else level
            summed = masked_mean(rectified, near[level.number]) * level.student.shape[1]
            costs.append(self.weight * images * summed / 2)
        return per_image("fine_grained", costs, images)
