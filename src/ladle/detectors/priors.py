"""The priors of dense detectors: anchors on a grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Annotated

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ladle.limits import Length, Range
from ladle.types import Grid, Priors

__all__ = ["Anchors"]


_Sizes = Annotated[tuple[Annotated[float, Range(0, 1000, above=True)], ...], Length(1, 100)]


@dataclass(frozen=True)
class Anchors:
    """Boxes centered at ``(i + offset) * stride``, the same few at every location of a level.

    A point is represented by a square around it, so that assigners that use IoU work for anchor-free detectors too.

    Args:
        scales: sides of a square anchor in strides.
        ratios: heights over widths at equal area. At one location the ratios vary slowest, as in mmdetection.
        offset: 0 for ATSS, PAA, GFL, RetinaNet and AutoAssign (mmdetection), 0.5 for grids at the
            centers of the cells (FCOS, YOLOX). Teacher and student must have the same.
        rounded: whether half sides are whole pixels (torchvision).
    """

    scales: _Sizes = (8.0,)
    ratios: _Sizes = (1.0,)
    offset: Annotated[float, Range(0, 1)] = 0.0
    rounded: bool = False

    @property
    def per_location(self) -> int:
        """The number of anchors at each location."""
        return len(self.scales) * len(self.ratios)

    def halves(self) -> Float[Tensor, "A 2"]:
        """Half the width and half the height of every anchor of a location, in strides."""
        scales, ratios = torch.tensor(self.scales), torch.tensor(self.ratios).sqrt()
        widths, heights = scales[None] / ratios[:, None], scales[None] * ratios[:, None]
        return torch.stack([widths.flatten(), heights.flatten()], dim=-1) / 2

    def grid(
        self,
        shapes: Sequence[tuple[int, int]],
        strides: Sequence[int],
        sizes: Int[Tensor, "B 2"] | None,
        device: torch.device,
    ) -> Priors:
        """Lay the anchors over feature maps of ``shapes`` (height, width).

        ``sizes`` (B,2) are the heights and widths of the images without padding; locations outside are not valid.
        Without it all locations are valid.
        """
        grid = _lay(self, tuple(shapes), tuple(strides), device)
        return grid if sizes is None else self.masked(grid, sizes)

    def over(self, features: Sequence[Tensor], strides: Sequence[int], sizes: Int[Tensor, "B 2"] | None) -> Priors:
        """Lay the anchors over feature maps (B, C, H, W), as :meth:`grid` does."""
        shapes = [(int(maps.shape[-2]), int(maps.shape[-1])) for maps in features]
        return self.grid(shapes, strides, sizes, features[0].device)

    def masked(self, grid: Priors, sizes: Int[Tensor, "B 2"]) -> Priors:
        """The priors of a grid; those beyond the heights and widths that the images fill are not valid."""
        cell = (grid.centers / grid.stride[:, None] - self.offset).round()
        filled = torch.ceil(sizes.flip(-1)[:, None] / grid.stride[None, :, None])
        return replace(grid, valid=(cell < filled).all(-1))

    def level(self, height: int, width: int, stride: int, device: torch.device) -> Float[Tensor, "N 4"]:
        """The anchors of one level, row by row; one location's stand side by side."""
        half = self.halves().to(device) * stride
        half = half.round() if self.rounded else half
        shape = torch.cat([-half, half], dim=-1)
        y = (torch.arange(height, device=device) + self.offset) * stride
        x = (torch.arange(width, device=device) + self.offset) * stride
        y, x = torch.meshgrid(y, x, indexing="ij")
        center = torch.stack([x, y, x, y], dim=-1).reshape(-1, 1, 4)
        return (center + shape).reshape(-1, 4)


@lru_cache(maxsize=64)
def _lay(
    anchors: Anchors, shapes: tuple[tuple[int, int], ...], strides: tuple[int, ...], device: torch.device
) -> Priors:
    """The grid without padding, cached for the few shapes of a training run: making it needs a device sync."""
    with torch.inference_mode(mode=False):
        levels = [anchors.level(*shape, stride, device) for shape, stride in zip(shapes, strides, strict=True)]
        counts = tuple(len(level) for level in levels)
        level = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts)).to(device)
        strides_of = torch.tensor(strides, dtype=torch.float32, device=device)[level]
        valid = torch.ones(1, len(level), dtype=torch.bool, device=device)
        grids = tuple(
            Grid(*shape, float(stride), anchors.offset, anchors.per_location)
            for shape, stride in zip(shapes, strides, strict=True)
        )
        return Priors(torch.cat(levels)[None], strides_of, level, valid, counts, grids)
