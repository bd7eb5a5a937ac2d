"""General instances: features are imitated where the scores of student and teacher differ most."""

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

    On every level the priors are ranked by the largest difference between a class probability of the student and of the
    teacher. The first prior is an instance; its box is that of the network with the higher probability. Priors that
    overlap it are removed, and the next prior is taken, ``count`` times in all. Ground truth is not used: an instance
    may be where one of the networks is wrong.

    Args:
        weight: loss weight of a level; 2 in the released configuration.
        count: number of instances on a level of one image. The released code takes ten on a level of the whole batch,
            so that instances of one image suppress those of another.
        overlap: IoU with an instance above which a prior is removed.
        relative: whether both maps are first scaled by the RMS of the teacher's map, see
            :class:`~ladle.distillers.levels.Levels`; the released code does not scale them.

    The relation and response losses of the paper are left out, as in that released code.

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
        """What each term imitates, and which terms are left out."""
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
        pred, target, priors = student.predictions, teacher.predictions, student.priors
        difference = target.scores - pred.scores
        gap, best = difference.abs().max(-1)
        teacher_higher = difference.gather(-1, best.unsqueeze(-1)) >= 0
        boxes = torch.where(teacher_higher, target.boxes.float(), pred.boxes.float())
        gap = gap.masked_fill(~priors.valid, -1.0)
        parts = zip(gap.split(priors.counts, dim=1), boxes.split(priors.counts, dim=1), strict=True)
        return torch.cat([self._greedy(*part) for part in parts], dim=1)

    def _greedy(self, gap: Float[Tensor, "B n"], boxes: Float[Tensor, "B n 4"]) -> Bool[Tensor, "B n"]:
        """Greedy suppression, largest gap first, in a fixed number of steps for all images, without a device sync."""
        chosen = torch.zeros_like(gap, dtype=torch.bool)
        for _ in range(min(self.count, gap.shape[1])):
            value, best = gap.max(-1, keepdim=True)
            chosen = chosen.scatter(1, best, chosen.gather(1, best) | (value > 0))
            box = boxes.gather(1, best.unsqueeze(-1).expand(-1, -1, 4))
            same = pairwise_iou(boxes, box)[..., 0] > self.overlap
            gap = gap.masked_fill(same, -1.0).scatter(1, best, -1.0)
        return chosen
