"""The input of a teacher made from the images of a student's batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

__all__ = ["Resize", "TeacherInput", "to_batch"]

Resize = Literal["stretch", "letterbox", "corner"]
"""How an image fills a fixed input: stretched to it; or scaled and padded, in the middle or in the top left corner."""


@dataclass(frozen=True)
class TeacherInput:
    """How a teacher takes images: size, range of values, order of channels.

    Args:
        height: of its input in pixels.
        width: of its input in pixels.
        mean: subtracted from the values 0 to 255, in the order of its channels.
        std: divisor after that; 255 for values from 0 to 1.
        bgr: whether the first channel is blue.
        resize: how images of other proportions fill the input.
        pad: value of the padding, 0 to 255.

    Examples:
        >>> import torch
        >>> from ladle.teachers import TeacherInput
        >>> taken, sizes = TeacherInput(32, 64), torch.tensor([[64, 64]])
        >>> taken.frame(sizes)  # scale x, scale y, shift x, shift y
        tensor([[1.0000, 0.5000, 0.0000, 0.0000]])
        >>> taken.images(torch.zeros(1, 3, 64, 64, dtype=torch.uint8), sizes).shape
        torch.Size([1, 3, 32, 64])
    """

    height: int
    width: int
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    bgr: bool = False
    resize: Resize = "stretch"
    pad: float = 114.0

    def frame(self, sizes: Int[Tensor, "B 2"]) -> Float[Tensor, "B 4"]:
        """Scale x, scale y, shift x and shift y by which pixels of each image become those of the input."""
        inner = sizes.new_tensor([self.height, self.width])
        scale = inner / sizes
        if self.resize != "stretch":
            scale = scale.amin(1, keepdim=True).expand(-1, 2)
        free = inner - (sizes * scale).round()
        shift = (free / 2).floor() if self.resize == "letterbox" else torch.zeros_like(scale)
        return torch.cat([scale.flip(1), shift.flip(1)], dim=1)

    def images(self, images: Tensor, sizes: Int[Tensor, "B 2"]) -> Float[Tensor, "B 3 H W"]:
        """The input for a padded batch of images, bytes or floats in [0, 1], of heights and widths ``sizes``.

        Resized linearly with antialiasing, each image by its own scale, as two products with matrices.
        """
        values = images.float() if images.dtype == torch.uint8 else images * 255
        frame = self.frame(sizes)
        down = _weights(frame[:, 1], frame[:, 3], sizes[:, 0], self.height, images.shape[2])
        across = _weights(frame[:, 0], frame[:, 2], sizes[:, 1], self.width, images.shape[3])
        resized = down.unsqueeze(1) @ values @ across.transpose(1, 2).unsqueeze(1)
        filled = down.sum(-1)[:, None, :, None] * across.sum(-1)[:, None, None, :]
        resized = resized + self.pad * (1 - filled)
        resized = resized.flip(1) if self.bgr else resized
        mean, std = (resized.new_tensor(each).view(1, 3, 1, 1) for each in (self.mean, self.std))
        return (resized - mean) / std


def to_batch(boxes: Float[Tensor, "B N 4"], frame: Float[Tensor, "B 4"]) -> Float[Tensor, "B N 4"]:
    """Boxes in pixels of the teacher's input as boxes in pixels of the batch's images."""
    scale, shift = frame[:, None, :2].repeat(1, 1, 2), frame[:, None, 2:].repeat(1, 1, 2)
    return (boxes - shift) / scale


def _weights(
    scale: Float[Tensor, " B"], shift: Float[Tensor, " B"], extent: Int[Tensor, " B"], length: int, before: int
) -> Float[Tensor, "B S T"]:
    """The weight of each of ``before`` pixels in each of ``length`` resized ones; rows outside the image are 0.

    A triangle around the resized pixel's center, as wide as a pixel of the coarser of the two images, summing to 1.
    """
    scale, shift, extent = (one.float().view(-1, 1, 1) for one in (scale, shift, extent))
    at = torch.arange(length, device=scale.device).view(1, -1, 1) + 0.5
    center = (at - shift) / scale
    pixel = torch.arange(before, device=scale.device).view(1, 1, -1)
    radius = (1 / scale).clamp(min=1)
    weight = (1 - (pixel + 0.5 - center).abs() / radius).clamp(min=0) * (pixel < extent)
    inside = (center > 0) & (center < extent)
    return inside * weight / weight.sum(-1, keepdim=True).clamp(min=1e-6)
