"""Towers of convolutions in a dense head: one for all levels of the pyramid, or light ones with parts of their own."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor, nn

from ladle.detectors.layers import ConvSpec, group_norm

__all__ = ["LightSpec", "LightTower", "Tower", "each", "shared_tower"]


@dataclass(frozen=True)
class LightSpec:
    """A light head: the towers of levels differ, and predictions come from a small convolution of each level.

    Args:
        conv: the convolutions of the towers, with their normalization.
        kernel: side of these convolutions.
        shared: whether all levels have the same convolutions, each with normalizations of its own (RTMDet); otherwise
            each level has its own (YOLOX, NanoDet-Plus).
        joint: whether classes and boxes are predicted from one tower (NanoDet-Plus) instead of two.

    Examples:
        >>> from ladle.detectors import DenseSpec, LightSpec
        >>> heads = [DenseSpec(64, 2, light=light).build(3, (8, 16)) for light in (None, LightSpec())]
        >>> [sum(weight.numel() for weight in head.class_tower.parameters()) for head in heads]
        [73984, 74240]
    """

    conv: ConvSpec = field(default_factory=ConvSpec)
    kernel: Literal[3, 5] = 3
    shared: bool = True
    joint: bool = False


class Tower(nn.Sequential):
    """A tower that all levels share; its layers are convolution, normalization if there is one, and rectifier."""

    def run(self, x: Tensor, level: int, layers: slice) -> Tensor:
        """The map after some of the layers; ``level`` is not used."""
        return _applied(self[layers], x)


def shared_tower(width: int, depth: int, norm: bool) -> Tower:
    """``depth`` convolutions for all levels, with group normalization or none."""
    layers: list[nn.Module] = []
    for _ in range(depth):
        layers.append(nn.Conv2d(width, width, 3, padding=1, bias=not norm))
        layers += [group_norm(width)] if norm else []
        layers.append(nn.ReLU())
    return Tower(*layers)


class LightTower(nn.Module):
    """A tower whose normalizations, or all of whose layers, belong to one level."""

    def __init__(self, spec: LightSpec, width: int, depth: int, levels: int) -> None:
        super().__init__()
        towers = [
            [layer for _ in range(depth) for layer in spec.conv.layers(width, width, spec.kernel)]
            for _ in range(levels)
        ]
        self.rectifier = spec.conv.rectifier()
        self.convs = nn.ModuleList(nn.ModuleList(tower[0::3]) for tower in towers[: 1 if spec.shared else None])
        self.norms = nn.ModuleList(nn.ModuleList(tower[1::3]) for tower in towers)

    def run(self, x: Tensor, level: int, layers: slice) -> Tensor:
        """The map of a level after some of the layers."""
        return _applied(self._at(level)[layers], x)

    def _at(self, level: int) -> list[nn.Module]:
        convs = self.convs[level if len(self.convs) > 1 else 0]
        pairs = zip(_modules(convs), _modules(self.norms[level]), strict=True)
        return [layer for conv, norm in pairs for layer in (conv, norm, self.rectifier)]


def each(module: nn.Module, level: int) -> nn.Module:
    """The part of a level in a list of one module for each level; any other module is the same for all levels."""
    return module[level] if isinstance(module, nn.ModuleList) else module


def _modules(layers: nn.Module) -> Iterable[nn.Module]:
    assert isinstance(layers, nn.ModuleList)
    return layers


def _applied(layers: Iterable[nn.Module], x: Tensor) -> Tensor:
    for layer in layers:
        x = layer(x)
    return x
