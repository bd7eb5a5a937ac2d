"""Necks: from a backbone's maps to the levels of a pyramid, all of one width."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ladle.detectors.layers import Block, ConvSpec, CspLayer, group_norm
from ladle.limits import Range

__all__ = ["FPN", "PAN", "Neck", "NeckNorm", "PanNeck"]

NeckNorm = Literal["none", "batch", "group"]


@dataclass(frozen=True)
class FPN:
    """torchvision's feature pyramid (Lin et al., CVPR 2017), with up to two coarser levels on top.

    Args:
        source: what the first of two coarser levels is made of: the coarsest ``output`` of the pyramid, or the
            coarsest map of the ``backbone`` (RetinaNet).
        rectified: whether the second one is made of the first behind a ReLU (torchvision) or not (mmdetection).

    Examples:
        >>> import torch
        >>> from ladle.detectors import FPN
        >>> neck = FPN().build((8, 16), width=12, extra=1)
        >>> [tuple(level.shape[1:]) for level in neck([torch.zeros(1, 8, 4, 4), torch.zeros(1, 16, 2, 2)])]
        [(12, 4, 4), (12, 2, 2), (12, 1, 1)]
    """

    source: Literal["output", "backbone"] = "output"
    rectified: bool = True

    def build(self, channels: Sequence[int], width: int, extra: int, norm: NeckNorm = "none") -> Neck:
        """The pyramid for maps of ``channels``, with ``norm`` behind its convolutions and ``extra`` coarser levels."""
        return Neck(self, channels, width, extra, norm)


class Neck(nn.Module):
    """The modules of an :class:`FPN`."""

    def __init__(self, spec: FPN, channels: Sequence[int], width: int, extra: int, norm: NeckNorm) -> None:
        super().__init__()
        from torchvision.ops import FeaturePyramidNetwork
        from torchvision.ops.feature_pyramid_network import LastLevelMaxPool, LastLevelP6P7

        source = width if spec.source == "output" else channels[-1]
        blocks = LastLevelMaxPool() if extra else None
        if extra == 2:
            blocks = LastLevelP6P7(source, width)
            blocks.use_P5 = spec.source == "output"  # torchvision goes by the widths, which may be equal
        self.levels, self.rectified = len(channels) + extra, spec.rectified
        layers = {"none": None, "batch": nn.BatchNorm2d, "group": group_norm}
        self.fpn = FeaturePyramidNetwork(list(channels), width, blocks, layers[norm])

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Maps of the backbone to pyramid levels of the same strides, and of coarser ones on top."""
        pyramid = tuple(self.fpn({str(index): level for index, level in enumerate(maps)}).values())[: self.levels]
        if self.rectified or self.levels < len(maps) + 2:
            return pyramid
        return (*pyramid[:-1], self.fpn.extra_blocks.p7(pyramid[-2]))


@dataclass(frozen=True)
class PAN:
    """A path aggregation network of cross-stage partial layers: down the pyramid and up again (Liu et al. 2018).

    Args:
        block: kind of the blocks.
        blocks: number of blocks in a layer.
        conv: the convolutions.
        inside: channels inside: those of the ``backbone`` at each level (RTMDet, YOLOX), or at all levels those of the
            ``output``, to which the backbone's maps are reduced first (NanoDet-Plus).
        last: side of the convolution that ends each level: 3 (RTMDet), 1 (YOLOX), or 0 for none, which needs
            ``inside="output"``.

    Examples:
        >>> import torch
        >>> from ladle.detectors import PAN
        >>> neck = PAN().build((8, 16, 32), width=12, extra=1)
        >>> maps = [torch.zeros(1, 8 * 2**level, 16 // 2**level, 16 // 2**level) for level in range(3)]
        >>> [tuple(level.shape[1:]) for level in neck(maps)]
        [(12, 16, 16), (12, 8, 8), (12, 4, 4), (12, 2, 2)]
    """

    block: Block = "cspnext"
    blocks: Annotated[int, Range(1, 64)] = 1
    conv: ConvSpec = field(default_factory=ConvSpec)
    inside: Literal["backbone", "output"] = "backbone"
    last: Literal[0, 1, 3] = 3

    def __post_init__(self) -> None:
        """Raise ValueError where levels would end with different numbers of channels."""
        if self.last == 0 and self.inside == "backbone":
            raise ValueError("a path aggregation network without last convolutions has the widths of the backbone")

    def build(self, channels: Sequence[int], width: int, extra: int) -> PanNeck:
        """The network for maps of ``channels``, with ``extra`` coarser levels on top of those of the backbone."""
        return PanNeck(self, channels, width, extra)


class PanNeck(nn.Module):
    """The modules of a :class:`PAN`."""

    def __init__(self, spec: PAN, channels: Sequence[int], width: int, extra: int) -> None:
        super().__init__()
        conv, count = spec.conv, len(channels)
        inside = tuple(channels) if spec.inside == "backbone" else (width,) * count
        lateral = [] if spec.inside == "backbone" else [conv.build(narrow, width, 1) for narrow in channels]
        self.lateral = nn.ModuleList(lateral)
        self.reduce = nn.ModuleList(conv.build(inside[n + 1], inside[n], 1) for n in range(count - 1))
        self.down = nn.ModuleList(_layer(spec, 2 * inside[n], inside[n]) for n in range(count - 1))
        self.shrink = nn.ModuleList(conv.build(inside[n], inside[n], 3, 2) for n in range(count - 1))
        self.up = nn.ModuleList(_layer(spec, 2 * inside[n], inside[n + 1]) for n in range(count - 1))
        self.last = nn.ModuleList(
            conv.build(narrow, width, spec.last) if spec.last else nn.Identity() for narrow in inside
        )
        self.extra = nn.ModuleList(conv.build(width, width, 3, 2) for _ in range(extra))

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Maps of the backbone to pyramid levels of the same strides, and of coarser ones on top."""
        levels = [layer(one) for layer, one in zip(self.lateral, maps, strict=True)] if self.lateral else [*maps]
        for n in reversed(range(len(levels) - 1)):
            levels[n + 1] = self.reduce[n](levels[n + 1])
            larger = F.interpolate(levels[n + 1], size=levels[n].shape[-2:], mode="nearest")
            levels[n] = self.down[n](torch.cat([larger, levels[n]], dim=1))
        for n in range(len(levels) - 1):
            levels[n + 1] = self.up[n](torch.cat([self.shrink[n](levels[n]), levels[n + 1]], dim=1))
        pyramid = [layer(one) for layer, one in zip(self.last, levels, strict=True)]
        for layer in self.extra:
            pyramid.append(layer(pyramid[-1]))
        return tuple(pyramid)


def _layer(spec: PAN, narrow: int, wide: int) -> CspLayer:
    return CspLayer(narrow, wide, spec.blocks, spec.block, spec.conv, shortcut=False)
