"""Convolutions with their normalization and activation, and the cross-stage partial blocks made of them.

The blocks are those of CSPDarknet (YOLOX, Ge et al. 2021) and of CSPNeXt (RTMDet, Lyu et al. 2022).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from torch import Tensor, nn

from ladle.limits import Range

__all__ = ["Block", "ConvSpec", "CspLayer", "PooledPyramid", "group_norm"]

Block = Literal["darknet", "cspnext"]
"""``darknet``: 1x1, then 3x3. ``cspnext``: 3x3, then a depthwise separable 5x5."""

_POOLS = (5, 9, 13)
"""Sides of the maxima of the pooled pyramid."""


def group_norm(channels: int) -> nn.GroupNorm:
    """The most groups, up to 32, of at least four channels each."""
    groups = next(n for n in (32, 16, 8, 4, 2, 1) if channels % n == 0 and (channels // n >= 4 or n == 1))
    return nn.GroupNorm(groups, channels)


@dataclass(frozen=True)
class ConvSpec:
    """How the convolutions of a network are followed and factored.

    Args:
        norm: normalization over the ``batch`` or over ``group`` of channels.
        eps: added to the variance of batch normalization.
        momentum: share of a new batch in the running statistics of batch normalization.
        activation: the function behind each normalization.
        depthwise: whether convolutions that are larger than 1x1 are factored into a depthwise and a 1x1 convolution,
            each with normalization and activation.

    Examples:
        >>> from ladle.detectors import ConvSpec
        >>> len(ConvSpec().layers(8, 16, 3)), len(ConvSpec(depthwise=True).layers(8, 16, 3))
        (3, 6)
    """

    norm: Literal["batch", "group"] = "batch"
    eps: Annotated[float, Range(0, 1, above=True)] = 1e-5
    momentum: Annotated[float, Range(0, 1, above=True)] = 0.1
    activation: Literal["relu", "silu", "hardswish"] = "silu"
    depthwise: bool = False

    def layers(self, narrow: int, wide: int, kernel: int, stride: int = 1) -> list[nn.Module]:
        """Convolution, normalization and activation; twice that where the convolution is factored."""
        if not self.depthwise or kernel == 1:
            return self._full(narrow, wide, kernel, stride)
        return self.separable(narrow, wide, kernel, stride)

    def separable(self, narrow: int, wide: int, kernel: int, stride: int = 1) -> list[nn.Module]:
        """A factored convolution, whatever ``depthwise`` is."""
        return [*self._full(narrow, narrow, kernel, stride, groups=narrow), *self._full(narrow, wide, 1, 1)]

    def build(self, narrow: int, wide: int, kernel: int, stride: int = 1) -> nn.Sequential:
        """The layers as one module."""
        return nn.Sequential(*self.layers(narrow, wide, kernel, stride))

    def normalization(self, channels: int) -> nn.Module:
        """A normalization of ``channels``."""
        return group_norm(channels) if self.norm == "group" else nn.BatchNorm2d(channels, self.eps, self.momentum)

    def rectifier(self) -> nn.Module:
        """An activation."""
        return {"relu": nn.ReLU, "silu": nn.SiLU, "hardswish": nn.Hardswish}[self.activation]()

    def _full(self, narrow: int, wide: int, kernel: int, stride: int, groups: int = 1) -> list[nn.Module]:
        conv = nn.Conv2d(narrow, wide, kernel, stride, kernel // 2, groups=groups, bias=False)
        return [conv, self.normalization(wide), self.rectifier()]


class CspLayer(nn.Module):
    """Blocks over half of the channels; the other half goes around them (Wang et al. 2020).

    Args:
        narrow: channels of the input.
        wide: channels of the output.
        blocks: number of blocks.
        block: kind of the blocks.
        conv: the convolutions.
        shortcut: whether each block's input is added to its output.
        attention: whether channels are weighted by their means before the last convolution.
    """

    def __init__(
        self,
        narrow: int,
        wide: int,
        blocks: int,
        block: Block,
        conv: ConvSpec,
        shortcut: bool = True,
        attention: bool = False,
    ) -> None:
        super().__init__()
        half = wide // 2
        self.main = conv.build(narrow, half, 1)
        self.short = conv.build(narrow, half, 1)
        self.final = conv.build(2 * half, wide, 1)
        self.blocks = nn.Sequential(*(_Block(half, block, conv, shortcut) for _ in range(blocks)))
        self.attention = _ChannelAttention(2 * half) if attention else None

    def forward(self, x: Tensor) -> Tensor:
        """Map (B,narrow,H,W) to (B,wide,H,W)."""
        both = torch.cat([self.blocks(self.main(x)), self.short(x)], dim=1)
        mixed: Tensor = self.final(both if self.attention is None else self.attention(both))
        return mixed


class _Block(nn.Module):
    """Two convolutions, around a shortcut if wanted."""

    def __init__(self, width: int, block: Block, conv: ConvSpec, shortcut: bool) -> None:
        super().__init__()
        self.shortcut = shortcut
        if block == "darknet":
            layers = [*conv.layers(width, width, 1), *conv.layers(width, width, 3)]
        else:
            layers = [*conv.layers(width, width, 3), *conv.separable(width, width, 5)]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        changed: Tensor = self.layers(x)
        return x + changed if self.shortcut else changed


class _ChannelAttention(nn.Module):
    """Each channel times a weight in [0, 1] that depends on the means of all channels."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * nn.functional.hardsigmoid(self.conv(x.mean((2, 3), keepdim=True)))


class PooledPyramid(nn.Module):
    """A map beside its maxima over windows of three sizes (spatial pyramid pooling, He et al. 2015)."""

    def __init__(self, width: int, conv: ConvSpec) -> None:
        super().__init__()
        self.first = conv.build(width, width // 2, 1)
        self.pools = nn.ModuleList(nn.MaxPool2d(side, 1, side // 2) for side in _POOLS)
        self.last = conv.build(width // 2 * (1 + len(_POOLS)), width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B,width,H,W) to the same shape."""
        x = self.first(x)
        mixed: Tensor = self.last(torch.cat([x, *(pool(x) for pool in self.pools)], dim=1))
        return mixed
