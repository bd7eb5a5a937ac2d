"""Focal and global distillation: separate losses for objects, background, attention and global relations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ladle.distillers.joining import Joinable
from ladle.distillers.levels import CELLS, CHANNELS, Level, Levels, Share, level_total, per_image, summarized
from ladle.distillers.protocol import Network, Summary
from ladle.distillers.regions import cells_of_objects
from ladle.networks import NetworkInfo
from ladle.overlaps import object_slices
from ladle.types import Assignment, GroundTruth, Output, Term

__all__ = ["FGD"]


@dataclass(frozen=True)
class FGD(Joinable):
    """Focal and global distillation (Yang et al., CVPR 2022; released code).

    Focal: squared differences of the feature maps inside objects and, as a separate term, outside of them, weighted by
    the teacher's attention over cells and channels; and absolute differences of the attentions. Global: squared
    differences of the outputs of two GCNet blocks, one for the student and one for the teacher, that add global context
    to every cell.

    Args:
        foreground: loss weight of the cells in objects; the cell weights of each object sum to 1: 1e-3; 5e-5 for
            two-stage detectors, 1.6e-3 for FCOS.
        background: loss weight of all other cells, whose cell weights sum to 1: half of that.
        attention: loss weight of the attentions: 5e-4; 5e-5, 8e-4.
        relation: loss weight of the relations: 5e-6; 5e-7, 8e-6.
        temperature: of the softmax of the attentions: 0.5; 0.8 for FCOS.
        finest: number of levels that are imitated, from the finest on; all by default, and for two-stage detectors all
            but the pooled one.
        share: whether each ``level`` or each ``cell`` has the same weight, see
            :func:`~ladle.distillers.levels.level_total`.
        relative: whether both maps are first scaled by the RMS of the teacher's map, see
            :class:`~ladle.distillers.levels.Levels`; the released code does not scale them.

    An object covers whole cells, rounded outward; a cell of several objects has the weight of the smallest one.

    Examples:
        >>> from ladle.distillers import FGD
        >>> from ladle.testing import example_network, example_output
        >>> student, truth, plan = example_output(seed=0)
        >>> teacher, _, _ = example_output(seed=1)
        >>> distil = FGD().build(example_network(), example_network())
        >>> sorted(distil(student, teacher, truth, plan))
        ['fgd_attention', 'fgd_background', 'fgd_foreground', 'fgd_relation']
    """

    features_only: ClassVar[bool] = True
    every_stage: ClassVar[bool] = False
    """It compares feature maps only, so the teacher need not predict at the student's priors."""

    foreground: float = 1e-3
    background: float = 5e-4
    attention: float = 5e-4
    relation: float = 5e-6
    temperature: float = 0.5
    finest: int | None = None
    share: Share = "level"
    relative: bool = True

    def summarize(self, student: NetworkInfo, teacher: NetworkInfo, stage: int) -> Summary:
        """What each term imitates, and which terms are left out."""
        return summarized(
            {
                "fgd_foreground": "squared differences in objects, where the teacher attends",
                "fgd_background": "outside of them",
                "fgd_attention": "attention over cells and channels",
                "fgd_relation": "global context of the cells",
            },
            student,
            teacher,
            most=self.finest,
        )

    def build(self, student: Network, teacher: Network) -> nn.Module:
        """The distiller for two networks, with its convolutions and context blocks."""
        levels = Levels(student.pyramid, teacher.pyramid, most=self.finest, relative=self.relative)
        return _FocalAndGlobal(self, levels, teacher.pyramid.channels)


class _Attention(NamedTuple):
    cells: Float[Tensor, "B 1 H W"]
    channels: Float[Tensor, "B C 1 1"]


class _FocalAndGlobal(nn.Module):
    def __init__(self, spec: FGD, levels: Levels, channels: tuple[int, ...]) -> None:
        super().__init__()
        self.spec = spec
        self.levels = levels
        widths = [channels[number] for _, number in levels.pairs]
        self.student_context = nn.ModuleList(_Context(width) for width in widths)
        self.teacher_context = nn.ModuleList(_Context(width) for width in widths)

    def forward(self, student: Output, teacher: Output, truth: GroundTruth, assignment: Assignment) -> dict[str, Term]:
        """Terms ``fgd_foreground``, ``fgd_background``, ``fgd_attention`` and ``fgd_relation``."""
        spec, images = self.spec, len(truth.labels)
        costs: dict[str, list[Tensor]] = {}
        levels: list[Level] = self.levels(student, teacher)
        for level, student_context, teacher_context in zip(
            levels, self.student_context, self.teacher_context, strict=True
        ):
            attentions = self._attention(level.student, level), self._attention(level.teacher, level)
            front, back = self._focal(level, attentions[1], truth)
            related = (student_context(level.student, level) - teacher_context(level.teacher, level)).square()
            found = {
                "fgd_foreground": spec.foreground * front,
                "fgd_background": spec.background * back,
                "fgd_attention": spec.attention * self._attention_loss(attentions, level),
                "fgd_relation": spec.relation * level_total(related, level, spec.share),
            }
            for name, cost in found.items():
                costs.setdefault(name, []).append(cost)
        weights = (spec.foreground, spec.background, spec.attention, spec.relation)
        kept = [item for item, weight in zip(costs.items(), weights, strict=True) if weight]
        return {name: term for item in kept for name, term in per_image(*item, images).items()}

    def _attention(self, maps: Tensor, level: Level) -> _Attention:
        """The attention of every cell and every channel, 1 on average; 0 for padding."""
        size, filled = maps.abs(), level.filled
        count = filled.sum((2, 3), keepdim=True)
        over = size.mean(1, keepdim=True).div(self.spec.temperature).masked_fill(~filled, -torch.inf)
        cells = over.flatten(1).softmax(-1).view_as(over) * count
        mean = (size * filled).sum((2, 3), keepdim=True) / count.clamp(min=1)
        return _Attention(cells, (mean / self.spec.temperature).softmax(1) * maps.shape[1])

    def _focal(self, level: Level, attention: _Attention, truth: GroundTruth) -> tuple[Tensor, Tensor]:
        """Weighted squared differences inside and outside of objects, summed over images."""
        difference = (attention.channels * (level.student - level.teacher).square()).sum(1, keepdim=True)
        if self.spec.share == "level":
            difference = difference * (CHANNELS / level.student.shape[1])
        difference = difference * attention.cells
        front = _object_share(level, truth)
        outside = (front == 0) & level.filled
        back = outside / outside.sum((2, 3), keepdim=True).clamp(min=1)
        return (front * difference).sum(), (back * difference).sum()

    def _attention_loss(self, attentions: tuple[_Attention, _Attention], level: Level) -> Tensor:
        """Absolute differences of the attentions, student first; the gradient flows through the student's."""
        cells = (attentions[0].cells - attentions[1].cells).abs()
        channels = (attentions[0].channels - attentions[1].channels).abs()
        if self.spec.share == "cell":
            return cells.sum() + channels.sum()
        count = level.filled.sum((1, 2, 3)).clamp(min=1)
        return CELLS * (cells.sum((1, 2, 3)) / count).sum() + CHANNELS * channels.mean(1).sum()


class _Context(nn.Module):
    """GCNet's block at half its width: adds one vector of global context to every cell."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        narrow = max(channels // 2, 1)
        self.attend = nn.Conv2d(channels, 1, 1)
        nn.init.kaiming_normal_(self.attend.weight, nonlinearity="relu")
        nn.init.zeros_(self.attend.bias)  # type: ignore[arg-type]  # it has a bias
        self.transform = nn.Sequential(
            nn.Linear(channels, narrow), nn.LayerNorm(narrow), nn.ReLU(), nn.Linear(narrow, channels)
        )
        # At the start nothing is added, so that the two outputs differ only as the maps do.
        for parameter in self.transform[-1].parameters():
            nn.init.zeros_(parameter)

    def forward(self, maps: Tensor, level: Level) -> Tensor:
        prob = self.attend(maps).float().masked_fill(~level.filled, -torch.inf).flatten(2).softmax(-1)
        whole = (maps.flatten(2) * prob).sum(-1)
        added: Tensor = self.transform(whole).float()
        return maps + added[..., None, None]


@torch.no_grad()
def _object_share(level: Level, truth: GroundTruth) -> Float[Tensor, "B 1 H W"]:
    """1 / number of cells of the smallest object that covers a cell; 0 for a cell without an object."""
    batch, _, height, width = level.student.shape
    share = torch.zeros(batch, height, width, device=level.student.device)
    for part in object_slices(batch, height * width, truth.labels.shape[1], truth.boxes):
        rows, columns = cells_of_objects(truth, (height, width), level.stride, part, outward=True)
        each = 1 / (rows.sum(-1) * columns.sum(-1)).clamp(min=1)
        covered = rows[..., :, None] & columns[..., None, :]
        share = share.maximum((covered * each[..., None, None]).amax(1))
    return share.unsqueeze(1) * level.filled
