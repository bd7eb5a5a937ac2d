"""Where a dense detector predicts: anchors on a grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ladle.types import Priors

__all__ = ["Anchors"]


@dataclass(frozen=True)
class Anchors:
    """Boxes centred at ``(i + offset) * stride``, the same few at every location of a level.

    Args:
        scales: sides of a square anchor in strides.
        ratios: heights over widths at equal area. At one location the ratios vary slowest, as in mmdetection.
        offset: 0 for ATSS, PAA, GFL and RetinaNet (mmdetection), 0.5 for grids that sit in the cells' middles. A
            teacher must use its student's.
    """

    scales: tuple[float, ...] = (8.0,)
    ratios: tuple[float, ...] = (1.0,)
    offset: float = 0.0

    @property
    def per_location(self) -> int:
        """How many anchors stand at one location."""
        return len(self.scales) * len(self.ratios)

    def grid(
        self,
        shapes: Sequence[tuple[int, int]],
        strides: Sequence[int],
        sizes: Int[Tensor, "B 2"] | None,
        device: torch.device,
    ) -> Priors:
        """Lay the anchors over feature maps of ``shapes`` (height, width).

        ``sizes`` (B,2) are the heights and widths that the pictures fill; locations beyond are not valid. Without it
        everything is.
        """
        levels = [self._level(*shape, stride, device) for shape, stride in zip(shapes, strides, strict=True)]
        boxes = torch.cat(levels)
        counts = tuple(len(level) for level in levels)
        of_level = torch.arange(len(counts), device=device)
        repeats = torch.tensor(counts, device=device)
        level = of_level.repeat_interleave(repeats, output_size=len(boxes))
        stride = torch.tensor(strides, dtype=torch.float32, device=device)[level]
        valid = torch.ones(1, len(boxes), dtype=torch.bool, device=device)
        if sizes is not None:
            corner = ((boxes[:, :2] + boxes[:, 2:]) / 2 / stride[:, None]).floor()
            cells = torch.ceil(sizes.flip(-1)[:, None] / stride[None, :, None])
            valid = (corner < cells).all(-1)
        return Priors(boxes[None], stride, level, valid, counts)

    def _level(self, height: int, width: int, stride: int, device: torch.device) -> Float[Tensor, "N 4"]:
        scales = torch.tensor(self.scales, device=device)
        ratios = torch.tensor(self.ratios, device=device).sqrt()
        half_width = (scales[None] / ratios[:, None]).flatten() * (stride / 2)
        half_height = (scales[None] * ratios[:, None]).flatten() * (stride / 2)
        shape = torch.stack([-half_width, -half_height, half_width, half_height], dim=-1)
        y = (torch.arange(height, device=device) + self.offset) * stride
        x = (torch.arange(width, device=device) + self.offset) * stride
        y, x = torch.meshgrid(y, x, indexing="ij")
        center = torch.stack([x, y, x, y], dim=-1).reshape(-1, 1, 4)
        return (center + shape).reshape(-1, 4)
