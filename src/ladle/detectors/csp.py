"""The backbones CSPDarknet (YOLOX, Ge et al. 2021) and CSPNeXt (RTMDet, Lyu et al. 2022)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from ladle.detectors.layers import Block, ConvSpec, CspLayer, PooledPyramid

__all__ = ["CSP_NETWORKS", "CspNetwork", "CspSpec"]

_WIDTHS = (64, 128, 256, 512, 1024)
"""Channels at stride 2, 4, 8, 16 and 32 of the network of width 1."""


@dataclass(frozen=True)
class CspSpec:
    """A network of cross-stage partial layers.

    Args:
        block: kind of the blocks.
        depth: factor on the numbers of blocks.
        width: factor on the numbers of channels.
        conv: the convolutions.
        blocks: numbers of blocks at stride 4, 8, 16 and 32 of the network of depth 1.

    Examples:
        >>> from ladle.detectors.csp import CSP_NETWORKS
        >>> CSP_NETWORKS["cspnext_t"].channels
        (24, 48, 96, 192, 384)
    """

    block: Block
    depth: float
    width: float
    conv: ConvSpec
    blocks: tuple[int, int, int, int]

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels at stride 2, 4, 8, 16 and 32."""
        return tuple(int(self.width * channels) for channels in _WIDTHS)

    def build(self, norm: Literal["batch", "group"], levels: int) -> CspNetwork:
        """The network with the last ``levels`` maps as its output."""
        return CspNetwork(replace(self, conv=replace(self.conv, norm=norm)), levels)


class CspNetwork(nn.Module):
    """A stem, and for each further stride a convolution that halves the resolution and a cross-stage partial layer."""

    def __init__(self, spec: CspSpec, levels: int) -> None:
        super().__init__()
        self.levels = levels
        channels, last = spec.channels, len(spec.blocks) - 1
        self.stem = _Focus(channels[0], spec.conv) if spec.block == "darknet" else _three(channels[0], spec.conv)
        stages = []
        for number, (narrow, wide, blocks) in enumerate(zip(channels[:-1], channels[1:], spec.blocks, strict=True)):
            count, attention = max(1, round(blocks * spec.depth)), spec.block == "cspnext"
            layer = CspLayer(wide, wide, count, spec.block, spec.conv, shortcut=number < last, attention=attention)
            pooled = [PooledPyramid(wide, spec.conv)] if number == last else []
            stages.append(nn.Sequential(spec.conv.build(narrow, wide, 3, 2), *pooled, layer))
        self.stages = nn.ModuleList(stages)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Normalized images (B,3,H,W) to maps, finest first."""
        x, maps = self.stem(images), []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps[-self.levels :]


class _Focus(nn.Module):
    """The four pixels of every 2 x 2 square side by side as channels, then a convolution."""

    def __init__(self, width: int, conv: ConvSpec) -> None:
        super().__init__()
        self.conv = replace(conv, depthwise=False).build(12, width, 3)

    def forward(self, x: Tensor) -> Tensor:
        squares = [x[..., down::2, across::2] for across in (0, 1) for down in (0, 1)]
        focused: Tensor = self.conv(torch.cat(squares, dim=1))
        return focused


def _three(width: int, conv: ConvSpec) -> nn.Sequential:
    """CSPNeXt's stem: three convolutions, of which the first halves the resolution."""
    full, half = replace(conv, depthwise=False), width // 2
    return nn.Sequential(full.build(3, half, 3, 2), full.build(half, half, 3), full.build(half, width, 3))


def _cspnext(depth: float, width: float) -> CspSpec:
    return CspSpec("cspnext", depth, width, ConvSpec(), (3, 6, 6, 3))


def _cspdarknet(depth: float, width: float, depthwise: bool = False) -> CspSpec:
    return CspSpec("darknet", depth, width, ConvSpec(eps=1e-3, momentum=0.03, depthwise=depthwise), (3, 9, 9, 3))


CSP_NETWORKS = {
    "cspnext_n": _cspnext(0.167, 0.25),
    "cspnext_t": _cspnext(0.167, 0.375),
    "cspnext_s": _cspnext(0.33, 0.5),
    "cspnext_m": _cspnext(0.67, 0.75),
    "cspdarknet_n": _cspdarknet(0.33, 0.25, depthwise=True),
    "cspdarknet_t": _cspdarknet(0.33, 0.375),
    "cspdarknet_s": _cspdarknet(0.33, 0.5),
    "cspdarknet_m": _cspdarknet(0.67, 0.75),
}
"""The networks by name, of the published depths and widths; ``cspnext_n`` is narrower than any published one."""
