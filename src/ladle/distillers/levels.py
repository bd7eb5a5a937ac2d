"""Pairs of feature maps of student and teacher with the same channels and the same grid, level by level."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ladle.distillers.protocol import Summary
from ladle.networks import NetworkInfo
from ladle.types import Assignment, GroundTruth, Output, Priors, Pyramid, Term

__all__ = [
    "Imitation",
    "Level",
    "Levels",
    "Pairing",
    "Share",
    "at_locations",
    "channel_spread",
    "filled_cells",
    "level_pairs",
    "level_total",
    "masked_mean",
    "per_image",
    "summarized",
]

CHANNELS, CELLS = 256, 4480
"""Channels and cells of an average level of an image of 1333 x 800 pixels, for which the published weights of sums over
maps were tuned."""

UNIT = 0.3
"""The RMS to which a teacher's maps are scaled. With it the published weights of squared differences give losses of the
size of detection losses, whatever the magnitude of the features."""

SHARP = 2.0
"""The RMS to which a teacher's maps are scaled before a softmax over cells. With it the softmax is neither uniform
nor concentrated on one cell."""

Share = Literal["level", "cell"]
Pairing = Literal["stride", "index"]


class Level(NamedTuple):
    """The maps of one level in float32: the student's with the teacher's number of channels, the teacher's detached.

    ``filled`` marks the cells that are not padding; ``number`` is the index of the student's level.
    """

    student: Float[Tensor, "B C H W"]
    teacher: Float[Tensor, "B C H W"]
    filled: Bool[Tensor, "B 1 H W"]
    stride: int
    number: int


def level_pairs(
    student: Pyramid, teacher: Pyramid, by: Pairing = "stride", most: int | None = None
) -> tuple[tuple[int, int], ...]:
    """Index pairs of the student's and teacher's levels to compare; their strides differ by a factor of at most two.

    By ``stride`` each level of the student is paired with the teacher's nearest; by ``index`` the finest with the
    finest and so on. If the teacher has too few levels for that, or strides would differ more, levels are paired by
    stride. ``most`` bounds the number of pairs.
    """
    if by == "index":
        both = list(zip(student.strides[:most], teacher.strides, strict=False))
        if len(both) == len(student.strides[:most]) and all(_octaves(*pair) <= 1 for pair in both):
            return tuple((number, number) for number in range(len(both)))
    pairs = []
    for number, stride in enumerate(student.strides):
        octaves = [_octaves(stride, other) for other in teacher.strides]
        nearest = min(range(len(octaves)), key=octaves.__getitem__)
        if octaves[nearest] <= 1:
            pairs.append((number, nearest))
    return tuple(pairs[:most])


def _octaves(stride: int, other: int) -> float:
    return abs(math.log2(other / stride))


def summarized(
    terms: dict[str, str],
    student: NetworkInfo,
    teacher: NetworkInfo,
    kernel: int = 1,
    always: bool = False,
    most: int | None = None,
    by: Pairing = "stride",
) -> Summary:
    """The summary of a feature distiller: what each term compares, on which levels, through which convolutions."""
    ours, theirs = student.pyramid, teacher.pyramid
    near = level_pairs(ours, theirs, by)
    skips = [f"stride {stride}: the teacher has no map near it" for stride in _missing(ours, near)]
    pairs = level_pairs(ours, theirs, by, most)
    skips += [f"stride {ours.strides[number]}: the {most} finest levels count" for number, _ in near[len(pairs) :]]
    where = ", ".join(
        f"{ours.strides[a]}" if ours.strides[a] == theirs.strides[b] else f"{ours.strides[a]} with {theirs.strides[b]}"
        for a, b in pairs
    )
    widths = {(ours.channels[a], theirs.channels[b]) for a, b in pairs}
    through = " and ".join(f"{a} to {b} channels" for a, b in sorted(widths) if a != b or always)
    through = f", {kernel} x {kernel} convolutions from {through}" if through else ""
    first, *rest = terms.items()
    teaches = {first[0]: f"{first[1]}, maps of stride {where}{through}"} | dict(rest)
    name = first[0].partition("_")[0] if rest else first[0]
    return Summary(teaches, tuple(f"{name} at {reason}" for reason in skips))


def _missing(student: Pyramid, pairs: Sequence[tuple[int, int]]) -> list[int]:
    paired = {number for number, _ in pairs}
    return [stride for number, stride in enumerate(student.strides) if number not in paired]


class Levels(nn.Module):
    """Adapts the student's maps to the teacher's number of channels by trained convolutions, and both to one grid.

    A level whose numbers of channels are equal has no convolution, unless ``always``; it then starts as the identity,
    so that equal maps have loss 0. ``kernel`` is the size of the convolutions. ``by`` is how levels are paired, see
    :func:`level_pairs`. If the grids differ, the teacher's map is resampled bilinearly, or with ``onto="teacher"`` the
    student's. ``most`` bounds the number of levels, from the finest on. With ``relative`` both maps are divided by the
    RMS of the teacher's and multiplied by ``unit``.
    """

    def __init__(
        self,
        student: Pyramid,
        teacher: Pyramid,
        kernel: int = 1,
        always: bool = False,
        most: int | None = None,
        relative: bool = False,
        unit: float = UNIT,
        by: Pairing = "stride",
        onto: Literal["student", "teacher"] = "student",
    ) -> None:
        super().__init__()
        self.kernel, self.relative, self.unit, self.onto = kernel, relative, unit, onto
        self.strides, self.teacher_strides = student.strides, teacher.strides
        self.pairs = level_pairs(student, teacher, by, most)
        if not self.pairs:
            raise ValueError(
                f"no feature map of the teacher (strides {teacher.strides}) is near one of the student's "
                f"({student.strides}): their strides may differ by a factor of at most two"
            )
        self.adapters = nn.ModuleList(
            _adapter(student.channels[a], teacher.channels[b], kernel, always) for a, b in self.pairs
        )

    def forward(self, student: Output, teacher: Output) -> list[Level]:
        """The maps of both networks, level by level."""
        levels = []
        for (number, other), adapter in zip(self.pairs, self.adapters, strict=True):
            maps, target, stride = student.features[number], teacher.features[other].detach(), self.strides[number]
            filled = filled_cells(maps, student.sizes, stride)
            # A larger convolution reads cells next to a cell; those that are padding count as 0.
            adapted: Tensor = adapter(maps * filled if self.kernel > 1 else maps)
            pred, target = adapted.float(), target.float()
            if target.shape[-2:] != pred.shape[-2:] and self.onto == "teacher":
                pred, stride = _resampled(pred, target), self.teacher_strides[other]
                filled = filled_cells(pred, student.sizes, stride)
            elif target.shape[-2:] != pred.shape[-2:]:
                target = _resampled(target, pred)
            scale = self.unit / _rms(target, filled) if self.relative else 1.0
            levels.append(Level(pred * scale, target * scale, filled, stride, number))
        return levels


def _resampled(maps: Float[Tensor, "B C h w"], like: Float[Tensor, "B c H W"]) -> Float[Tensor, "B C H W"]:
    return F.interpolate(maps, like.shape[-2:], mode="bilinear", align_corners=False)


def _rms(maps: Float[Tensor, "B C H W"], filled: Bool[Tensor, "B 1 H W"]) -> Float[Tensor, ""]:
    """The root mean square over the filled cells."""
    count = (filled.sum() * maps.shape[1]).clamp(min=1)
    return ((maps.square() * filled).sum() / count).sqrt().clamp(min=1e-6)


Cost = Callable[[list[Level], Output, Output, GroundTruth], dict[str, Term]]


class Imitation(nn.Module):
    """A feature distiller with its convolutions: ``cost`` compares the maps that :class:`Levels` gives."""

    def __init__(self, levels: Levels, cost: Cost) -> None:
        super().__init__()
        self.levels = levels
        self.cost = cost

    def forward(self, student: Output, teacher: Output, truth: GroundTruth, assignment: Assignment) -> dict[str, Term]:
        """The terms of a batch; the assignment is not used."""
        return self.cost(self.levels(student, teacher), student, teacher, truth)


def level_total(values: Float[Tensor, "B C H W"], level: Level, share: Share) -> Float[Tensor, ""]:
    """The loss of one level from the losses of its cells, summed over images.

    ``cell`` is the plain sum of the released codes, in which the finest level has the largest weight and a small image
    has less weight than a large one. ``level`` is the mean over cells and channels, times their numbers on an average
    level of an image of 1333 x 800 pixels with 256 channels: published weights remain valid, and all levels have the
    same weight.
    """
    values = values * level.filled
    if share == "cell":
        return values.sum()
    cells = level.filled.sum((1, 2, 3)).clamp(min=1)
    return (values.mean(1).sum((1, 2)) / cells).sum() * (CHANNELS * CELLS)


def per_image(name: str, costs: Sequence[Float[Tensor, ""]], images: int) -> dict[str, Term]:
    """The term of ``costs``, one for each level and summed over images; it is divided by ``images``."""
    total = torch.stack(list(costs)).sum()
    return {name: Term(total, total.new_full((), float(images)), total.new_zeros(()))}


def filled_cells(maps: Tensor, sizes: Tensor | None, stride: int) -> Bool[Tensor, "B 1 H W"]:
    """The cells that are not padding: those whose priors are valid."""
    batch, _, height, width = maps.shape
    if sizes is None:
        return torch.ones(batch, 1, height, width, dtype=torch.bool, device=maps.device)
    rows, columns = (-(-sizes // stride)).unbind(-1)
    down = torch.arange(height, device=maps.device) < rows[:, None]
    across = torch.arange(width, device=maps.device) < columns[:, None]
    return (down[:, :, None] & across[:, None, :]).unsqueeze(1)


def channel_spread(
    maps: Float[Tensor, "B C H W"], filled: Bool[Tensor, "B 1 H W"]
) -> tuple[Float[Tensor, "1 C 1 1"], Float[Tensor, "1 C 1 1"]]:
    """Mean and standard deviation (unbiased) of each channel over the filled cells of all images."""
    count = filled.sum()
    mean = (maps * filled).sum((0, 2, 3), keepdim=True) / count.clamp(min=1)
    variance = ((maps - mean).square() * filled).sum((0, 2, 3), keepdim=True) / (count - 1).clamp(min=1)
    # The gradient of sqrt is infinite at 0: a constant channel has standard deviation 0 and no gradient.
    varies = variance > 0
    return mean, torch.where(varies, variance, 1.0).sqrt() * varies


def at_locations(
    marked: Bool[Tensor, "B P"], priors: Priors, maps: tuple[Tensor, ...]
) -> list[Bool[Tensor, "B 1 _H _W"]]:
    """The locations of each level at which at least one prior is marked."""
    levels = marked.split(priors.counts, dim=1)
    return [
        level.reshape(len(marked), *one.shape[-2:], -1).any(-1).unsqueeze(1)
        for level, one in zip(levels, maps, strict=True)
    ]


def masked_mean(level: Level, mask: Bool[Tensor, "B 1 H W"]) -> Float[Tensor, ""]:
    """The mean squared difference over the marked cells of all images and all channels."""
    mask = mask & level.filled
    difference = ((level.student - level.teacher).square() * mask).mean(1).sum()
    return difference / mask.sum().clamp(min=1)


def _adapter(student: int, teacher: int, kernel: int, always: bool) -> nn.Module:
    if student == teacher and not always:
        return nn.Identity()
    conv = nn.Conv2d(student, teacher, kernel, padding=kernel // 2)
    if student == teacher:
        nn.init.dirac_(conv.weight)
        nn.init.zeros_(conv.bias)  # type: ignore[arg-type]  # it has a bias
    return conv
