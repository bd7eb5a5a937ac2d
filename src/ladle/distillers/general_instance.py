"""Features are imitated at the instances about which student and teacher disagree most."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ladle.boxes import pairwise_iou
from ladle.distillers.joining import Joinable
from ladle.distillers.levels import Imitation, Level, Levels, at_locations, masked_mean, per_image, summarized
from ladle.distillers.protocol import Network, Summary
from ladle.networks import NetworkInfo
from ladle.types import GroundTruth, Output, Term

__all__ = ["GeneralInstance"]


@dataclass(frozen=True)
class GeneralInstance(Joinable):
    """Feature imitation at general instances (Dai et al., CVPR 2021; as in the released code of LD).

    On every level the priors are ranked by the largest difference of a class probability between the two. The best is
    an instance, with the box of whoever is surer; what overlaps it is dropped; and so on, ``count`` times. Ground truth
    has no say: an instance may be where one of them is wrong.

    Args:
        weight: of a level; 2 in the released configuration.
        count: instances of a level in one image. The released code takes ten on a level of the whole batch, so that
            images drop each other's.
        overlap: IoU with an instance above which another is the same.
        relative: whether maps are measured in units of the teacher's, see
            :class:`~ladle.distillers.levels.Levels`; the release takes them as they are.

    The relations and the responses of the paper are left out, as they are there.

    Examples:
        >>> from ladle.distillers import GeneralInstance
        >>> from ladle.testing import example_network, example_output
        >>> student, truth, plan = example_output(seed=0)
        >>> teacher, _, _ = example_output(seed=1)
        >>> distil = GeneralInstance().build(example_network(), example_network())
        >>> sorted(distil(student, teacher, truth, plan))
        ['general_instance']
    """

    features_only: ClassVar[bool] = False
    every_stage: ClassVar[bool] = False

    weight: float = 2.0
    count: int = 10
    overlap: float = 0.3
    relative: bool = True

    def summarize(self, student: NetworkInfo, teacher: NetworkInfo, stage: int) -> Summary:
        """What is taught, and what is left out."""
        return summarized(
            {"general_instance": f"squared differences at {self.count} instances a level"}, student, teacher
        )

    def build(self, student: Network, teacher: Network) -> Imitation:
        """The distiller for two networks, with a convolution where their channels differ."""
        return Imitation(Levels(student.pyramid, teacher.pyramid, relative=self.relative), self.compare)

    def compare(self, levels: list[Level], student: Output, teacher: Output, truth: GroundTruth) -> dict[str, Term]:
        """The term ``general_instance``."""
        if not self.weight:
            return {}
        chosen = at_locations(self.instances(student, teacher), student.priors, student.features)
        images = len(truth.labels)
        costs = [self.weight * images * masked_mean(level, chosen[level.number]) for level in levels]
        return per_image("general_instance", costs, images)

    @torch.no_grad()
    def instances(self, student: Output, teacher: Output) -> Bool[Tensor, "B P"]:
        """The priors that are instances, at most ``count`` on every level of every image."""
        own, guide, priors = student.predictions, teacher.predictions, student.priors
        apart = guide.scores - own.scores
        gap, best = apart.abs().max(-1)
        surer = apart.gather(-1, best.unsqueeze(-1)) >= 0
        boxes = torch.where(surer, guide.boxes.float(), own.boxes.float())
        gap = gap.masked_fill(~priors.valid, -1.0)
        parts = zip(gap.split(priors.counts, dim=1), boxes.split(priors.counts, dim=1), strict=True)
        return torch.cat([self._greedy(*part) for part in parts], dim=1)

    def _greedy(self, gap: Float[Tensor, "B n"], boxes: Float[Tensor, "B n 4"]) -> Bool[Tensor, "B n"]:
        """Suppression, best first, in a fixed number of steps for all images: nothing waits for the device."""
        chosen = torch.zeros_like(gap, dtype=torch.bool)
        for _ in range(min(self.count, gap.shape[1])):
            value, best = gap.max(-1, keepdim=True)
            chosen = chosen.scatter(1, best, chosen.gather(1, best) | (value > 0))
            box = boxes.gather(1, best.unsqueeze(-1).expand(-1, -1, 4))
            same = pairwise_iou(boxes, box)[..., 0] > self.overlap
            gap = gap.masked_fill(same, -1.0).scatter(1, best, -1.0)
        return chosen
