"""Decoupled feature distillation: features of objects and of background have separate losses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool
from torch import Tensor

from ladle.distillers.joining import Joinable
from ladle.distillers.levels import Imitation, Level, Levels, per_image, summarized
from ladle.distillers.protocol import Network, Summary
from ladle.distillers.regions import cells_of_objects
from ladle.networks import NetworkInfo
from ladle.overlaps import object_slices
from ladle.types import GroundTruth, Output, Term

__all__ = ["DeFeat"]

_LEVEL_SIDE = 14.0
"""Side of the smallest object of a level, in strides: 56 pixels at stride 4."""


@dataclass(frozen=True)
class DeFeat(Joinable):
    """Decoupled features (Guo et al., CVPR 2021; released code for VOC).

    Each object belongs to one level, by its size. Squared differences are averaged separately inside and outside of
    objects, so that the many background cells do not outweigh the few object cells.

    Args:
        foreground: loss weight of the cells in objects.
        background: loss weight of all other cells.
        relative: whether both maps are first scaled by the RMS of the teacher's map, see
            :class:`~ladle.distillers.levels.Levels`; the released code does not scale them.

    A trained 3 x 3 convolution follows the student's maps. The release also distils the proposals of a second stage,
    and decreases the loss weight during training; both are left out here. To end the distillation early, use
    :class:`~ladle.lessons.Scheduled`.

    Examples:
        >>> from ladle.distillers import DeFeat
        >>> from ladle.testing import example_network, example_output
        >>> student, truth, plan = example_output(seed=0)
        >>> teacher, _, _ = example_output(seed=1)
        >>> distil = DeFeat().build(example_network(), example_network())
        >>> sorted(distil(student, teacher, truth, plan))
        ['defeat_background', 'defeat_foreground']
    """

    features_only: ClassVar[bool] = True
    every_stage: ClassVar[bool] = False
    """It compares feature maps only, so the teacher need not predict at the student's priors."""

    foreground: float = 3.0
    background: float = 12.0
    relative: bool = True

    def summarize(self, student: NetworkInfo, teacher: NetworkInfo, stage: int) -> Summary:
        """What each term imitates, and which terms are left out."""
        return summarized(
            {"defeat_foreground": "squared differences in objects", "defeat_background": "outside of them"},
            student,
            teacher,
            kernel=3,
            always=True,
        )

    def build(self, student: Network, teacher: Network) -> Imitation:
        """The distiller for two networks, with its convolutions."""
        return Imitation(
            Levels(student.pyramid, teacher.pyramid, kernel=3, always=True, relative=self.relative), self.compare
        )

    def compare(self, levels: list[Level], student: Output, teacher: Output, truth: GroundTruth) -> dict[str, Term]:
        """Terms ``defeat_foreground`` and ``defeat_background``."""
        images = len(truth.labels)
        front: list[Tensor] = []
        back: list[Tensor] = []
        strides = [level.stride for level in levels]
        for rank, level in enumerate(levels):
            inside = _object_cells(level, truth, strides, rank)
            difference = (level.student - level.teacher).square()
            front.append(_half_mean(difference, inside & level.filled))
            back.append(_half_mean(difference, ~inside & level.filled))
        share = images / len(levels)
        terms: dict[str, Term] = {}
        if self.foreground:
            terms |= per_image("defeat_foreground", [self.foreground * share * cost for cost in front], images)
        if self.background:
            terms |= per_image("defeat_background", [self.background * share * cost for cost in back], images)
        return terms


def _half_mean(difference: Tensor, mask: Bool[Tensor, "B 1 H W"]) -> Tensor:
    """Half the mean over the marked cells and all channels."""
    return (difference * mask).sum() / (2 * mask.sum() * difference.shape[1]).clamp(min=1)


@torch.no_grad()
def _object_cells(level: Level, truth: GroundTruth, strides: list[int], rank: int) -> Bool[Tensor, "B 1 H W"]:
    """The cells of the objects whose size belongs to this level, the ``rank``-th of ``strides``."""
    batch, _, height, width = level.student.shape
    side = (truth.boxes[..., 2:] - truth.boxes[..., :2] + 1).clamp(min=1).prod(-1).sqrt()
    level_of = (side / (_LEVEL_SIDE * strides[0]) + 1e-6).log2().floor().clamp(0, len(strides) - 1)
    found = torch.zeros(batch, height, width, dtype=torch.bool, device=level.student.device)
    for part in object_slices(batch, height * width, truth.labels.shape[1], truth.boxes):
        rows, columns = cells_of_objects(truth, (height, width), level.stride, part, outward=False)
        here = (level_of[:, part] == rank)[..., None, None]
        found = found | (rows[..., :, None] & columns[..., None, :] & here).any(1)
    return found.unsqueeze(1)
