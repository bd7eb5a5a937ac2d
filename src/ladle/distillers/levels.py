"""Feature maps of two networks side by side: the same level, the same channels, the same grid."""

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
"""A level of an image of 1333 x 800 pixels: what the published weights of sums over maps were tuned for."""

UNIT = 0.3
"""The root mean square that a teacher's maps are brought to: with it the published weights of squared differences give
losses of about the size of a detector's own, whatever the size of its features."""

SHARP = 2.0
"""The root mean square that a teacher's maps are brought to before a softmax over their cells: with it a softmax tells
cells apart and yet looks at more than one."""

Share = Literal["level", "cell"]
Pairing = Literal["stride", "index"]


class Level(NamedTuple):
    """The maps of one level, the student's brought to its teacher's channels; float32, the teacher's a constant.

    ``filled`` are the cells that are not padding, ``number`` is the level of the student.
    """

    own: Float[Tensor, "B C H W"]
    guide: Float[Tensor, "B C H W"]
    filled: Bool[Tensor, "B 1 H W"]
    stride: int
    number: int


def level_pairs(
    student: Pyramid, teacher: Pyramid, by: Pairing = "stride", most: int | None = None
) -> tuple[tuple[int, int], ...]:
    """The levels of student and teacher that go together, a factor of two apart in stride at most; ``most`` of them.

    Those of the nearest strides, or by ``index`` the finest with the finest and so on. Where the teacher lacks a level
    for that, or one would be too far, they go by stride.
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
    """The outline of a distiller of feature maps: what each term does with them, on which levels, through what."""
    own, guide = student.pyramid, teacher.pyramid
    near = level_pairs(own, guide, by)
    skips = [f"stride {stride}: the teacher has no map near it" for stride in _missing(own, near)]
    pairs = level_pairs(own, guide, by, most)
    skips += [f"stride {own.strides[number]}: the {most} finest levels count" for number, _ in near[len(pairs) :]]
    where = ", ".join(
        f"{own.strides[a]}" if own.strides[a] == guide.strides[b] else f"{own.strides[a]} with {guide.strides[b]}"
        for a, b in pairs
    )
    widths = {(own.channels[a], guide.channels[b]) for a, b in pairs}
    through = " and ".join(f"{a} to {b} channels" for a, b in sorted(widths) if a != b or always)
    through = f", {kernel} x {kernel} convolutions from {through}" if through else ""
    first, *rest = terms.items()
    teaches = {first[0]: f"{first[1]}, maps of stride {where}{through}"} | dict(rest)
    name = first[0].partition("_")[0] if rest else first[0]
    return Summary(teaches, tuple(f"{name} at {reason}" for reason in skips))


def _missing(own: Pyramid, pairs: Sequence[tuple[int, int]]) -> list[int]:
    met = {number for number, _ in pairs}
    return [stride for number, stride in enumerate(own.strides) if number not in met]


class Levels(nn.Module):
    """Brings the student's maps to its teacher's channels by convolutions that are trained, and the grids together.

    Where the channels agree nothing is trained, unless ``always``; such a convolution starts as the identity, so that
    agreement costs nothing. ``kernel`` is its width. ``by`` says which levels meet. Where they are on different grids
    the teacher's map is resampled bilinearly, or with ``onto="teacher"`` the student's. ``most`` takes only so many
    levels, the finest. With ``relative`` both maps are divided by the root mean square of the teacher's and multiplied
    by ``unit``.
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
        self.relative, self.unit, self.onto = relative, unit, onto
        self.strides, self.guide_strides = student.strides, teacher.strides
        self.pairs = level_pairs(student, teacher, by, most)
        if not self.pairs:
            raise ValueError(
                f"no feature map of the teacher (strides {teacher.strides}) is near one of the student's "
                f"({student.strides}): features can be imitated at most a factor of two apart"
            )
        self.adapters = nn.ModuleList(
            _adapter(student.channels[own], teacher.channels[guide], kernel, always) for own, guide in self.pairs
        )

    def forward(self, student: Output, teacher: Output) -> list[Level]:
        """Both networks' maps, level by level."""
        levels = []
        for (number, other), adapter in zip(self.pairs, self.adapters, strict=True):
            own: Tensor = adapter(student.features[number])
            own, guide, stride = own.float(), teacher.features[other].detach().float(), self.strides[number]
            if guide.shape[-2:] != own.shape[-2:] and self.onto == "teacher":
                own, stride = _resampled(own, guide), self.guide_strides[other]
            elif guide.shape[-2:] != own.shape[-2:]:
                guide = _resampled(guide, own)
            filled = filled_cells(own, student.sizes, stride)
            scale = self.unit / _size(guide, filled) if self.relative else 1.0
            levels.append(Level(own * scale, guide * scale, filled, stride, number))
        return levels


def _resampled(maps: Float[Tensor, "B C h w"], like: Float[Tensor, "B c H W"]) -> Float[Tensor, "B C H W"]:
    return F.interpolate(maps, like.shape[-2:], mode="bilinear", align_corners=False)


def _size(maps: Float[Tensor, "B C H W"], filled: Bool[Tensor, "B 1 H W"]) -> Float[Tensor, ""]:
    """The root mean square of the filled cells."""
    count = (filled.sum() * maps.shape[1]).clamp(min=1)
    return ((maps.square() * filled).sum() / count).sqrt().clamp(min=1e-6)


Cost = Callable[[list[Level], Output, Output, GroundTruth], dict[str, Term]]


class Imitation(nn.Module):
    """A feature distiller with the convolutions it needs: ``cost`` compares the maps that :class:`Levels` lines up."""

    def __init__(self, levels: Levels, cost: Cost) -> None:
        super().__init__()
        self.levels = levels
        self.cost = cost

    def forward(self, student: Output, teacher: Output, truth: GroundTruth, assignment: Assignment) -> dict[str, Term]:
        """The terms of a batch; the assignment has no say."""
        return self.cost(self.levels(student, teacher), student, teacher, truth)


def level_total(values: Float[Tensor, "B C H W"], level: Level, share: Share) -> Float[Tensor, ""]:
    """The sum of what a map costs, over images too.

    ``cell`` is the plain sum of the releases, in which the finest level outweighs all others and a small image costs
    less than a large one. ``level`` is the mean over cells and channels, times those of an average level of an image
    of 1333 x 800 pixels with 256 channels: weights keep their published meaning and no level dwarfs the rest.
    """
    values = values * level.filled
    if share == "cell":
        return values.sum()
    cells = level.filled.sum((1, 2, 3)).clamp(min=1)
    return (values.mean(1).sum((1, 2)) / cells).sum() * (CHANNELS * CELLS)


def per_image(name: str, costs: Sequence[Float[Tensor, ""]], images: int) -> dict[str, Term]:
    """The term of costs that are summed over levels and over ``images``."""
    total = torch.stack(list(costs)).sum()
    return {name: Term(total, total.new_tensor(float(images)), total.new_zeros(()))}


def filled_cells(maps: Tensor, sizes: Tensor | None, stride: int) -> Bool[Tensor, "B 1 H W"]:
    """The cells of each image whose location lies in it, as those of its priors do."""
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
    # The root of 0 has no gradient that is a number: a dead channel has the deviation 0 and stays where it is.
    alive = variance > 0
    return mean, torch.where(alive, variance, 1.0).sqrt() * alive


def at_locations(
    marked: Bool[Tensor, "B P"], priors: Priors, maps: tuple[Tensor, ...]
) -> list[Bool[Tensor, "B 1 _H _W"]]:
    """The locations of each level at which a prior is marked."""
    levels = marked.split(priors.counts, dim=1)
    return [
        level.reshape(len(marked), *one.shape[-2:], -1).any(-1).unsqueeze(1)
        for level, one in zip(levels, maps, strict=True)
    ]


def masked_mean(level: Level, mask: Bool[Tensor, "B 1 H W"]) -> Float[Tensor, ""]:
    """The mean squared difference over the marked cells of all images and all channels."""
    mask = mask & level.filled
    apart = ((level.own - level.guide).square() * mask).mean(1).sum()
    return apart / mask.sum().clamp(min=1)


def _adapter(own: int, guide: int, kernel: int, always: bool) -> nn.Module:
    if own == guide and not always:
        return nn.Identity()
    conv = nn.Conv2d(own, guide, kernel, padding=kernel // 2)
    if own == guide:
        nn.init.dirac_(conv.weight)
        nn.init.zeros_(conv.bias)  # type: ignore[arg-type]  # it has one
    return conv
