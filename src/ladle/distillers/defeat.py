"""Features of objects and of background are imitated apart."""

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

_HOME_SIDE = 14.0
"""Strides of a level that the smallest object at home on it is wide: 56 pixels at stride 4."""


@dataclass(frozen=True)
class DeFeat(Joinable):
    """Decoupled features (Guo et al., CVPR 2021; released code for VOC).

    An object counts on one level alone, that of its size. Squared differences inside objects and outside of them are
    averaged each by itself, so that the few cells of objects are not drowned.

    Args:
        foreground: weight of the cells in objects.
        background: weight of all others.
        relative: whether maps are measured in units of the teacher's, see
            :class:`~ladle.distillers.levels.Levels`; the release takes them as they are.

    A trained 3 x 3 convolution stands behind the student's maps. What the release does with a second stage's proposals
    is left out; so is the weight that fades during training: give the distiller an end instead.

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
    """It compares feature maps alone: the teacher need not predict at the student's priors."""

    foreground: float = 3.0
    background: float = 12.0
    relative: bool = True

    def summarize(self, student: NetworkInfo, teacher: NetworkInfo, stage: int) -> Summary:
        """What is taught, and what is left out."""
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
            inside = _home_cells(level, truth, strides, rank)
            apart = (level.own - level.guide).square()
            front.append(_half_mean(apart, inside & level.filled))
            back.append(_half_mean(apart, ~inside & level.filled))
        share = images / len(levels)
        terms: dict[str, Term] = {}
        if self.foreground:
            terms |= per_image("defeat_foreground", [self.foreground * share * cost for cost in front], images)
        if self.background:
            terms |= per_image("defeat_background", [self.background * share * cost for cost in back], images)
        return terms


def _half_mean(apart: Tensor, mask: Bool[Tensor, "B 1 H W"]) -> Tensor:
    """Half the mean over the marked cells and all channels."""
    return (apart * mask).sum() / (2 * mask.sum() * apart.shape[1]).clamp(min=1)


@torch.no_grad()
def _home_cells(level: Level, truth: GroundTruth, strides: list[int], rank: int) -> Bool[Tensor, "B 1 H W"]:
    """The cells of the objects whose size belongs to this level, the ``rank``-th of ``strides``."""
    batch, _, height, width = level.own.shape
    side = (truth.boxes[..., 2:] - truth.boxes[..., :2] + 1).clamp(min=1).prod(-1).sqrt()
    home = (side / (_HOME_SIDE * strides[0]) + 1e-6).log2().floor().clamp(0, len(strides) - 1)
    found = torch.zeros(batch, height, width, dtype=torch.bool, device=level.own.device)
    for part in object_slices(batch, height * width, truth.labels.shape[1]):
        rows, columns = cells_of_objects(truth, (height, width), level.stride, part, outward=False)
        here = (home[:, part] == rank)[..., None, None]
        found = found | (rows[..., :, None] & columns[..., None, :] & here).any(1)
    return found.unsqueeze(1)
