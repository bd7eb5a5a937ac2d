"""Changes of brightness, contrast, saturation and hue, in few passes over the planes of an image.

The results are those of torchvision's functions on float images, rounded to bytes. Every operation here gives the same
result for any number of threads: reductions are numpy's, and products are not fused with sums.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Float, Int16, UInt8
from torch import Tensor

__all__ = ["recolored"]

_GRAY = (0.2989, 0.587, 0.114)
"""The shares of red, green and blue in the gray value, as in torchvision."""
_UNITS = 16
"""Units of a gray level in the integers of a hue shift."""


def recolored(
    image: UInt8[Tensor, "3 H W"], brightness: float, contrast: float, saturation: float, hue: float
) -> UInt8[Tensor, "3 H W"]:
    """Scale brightness, contrast and saturation (1: no change), then shift the hue (in full turns, 0: no change).

    Examples:
        >>> import torch
        >>> red = torch.tensor([200, 20, 20], dtype=torch.uint8).view(3, 1, 1)
        >>> recolored(red, 1.0, 1.0, 1.0, 1 / 3).flatten().tolist()
        [20, 200, 20]
        >>> recolored(red, 0.5, 1.0, 1.0, 0.0).flatten().tolist()
        [100, 10, 10]
    """
    planes = _clamped(image.float().mul_(brightness), brightness)
    planes = _saturated(_contrasted(planes, contrast), saturation)
    fixed = planes.mul_(_UNITS).to(torch.int16)
    # One step shifts by a sextant or less.
    steps = math.ceil(abs(6 * hue))
    for _ in range(steps):
        fixed = _turned(fixed, 6 * hue / steps)
    return fixed.add_(_UNITS // 2).bitwise_right_shift_(int(math.log2(_UNITS))).to(torch.uint8)


def _contrasted(planes: Float[Tensor, "3 H W"], factor: float) -> Float[Tensor, "3 H W"]:
    if factor == 1:
        return planes
    rows = np.einsum("chw->ch", planes.numpy())  # rows first, so that float32 sums stay short and exact enough
    mean = float(np.dot(_GRAY, rows.mean(axis=1, dtype=np.float64))) / planes.shape[2]
    return _clamped(planes.mul_(factor).add_((1 - factor) * mean), factor)


def _saturated(planes: Float[Tensor, "3 H W"], factor: float) -> Float[Tensor, "3 H W"]:
    if factor == 1:
        return planes
    red, green, blue = (plane * ((1 - factor) * share) for plane, share in zip(planes, _GRAY, strict=True))
    return _clamped(planes.mul_(factor).add_(red.add_(green).add_(blue)), factor)


def _clamped(planes: Float[Tensor, "3 H W"], factor: float) -> Float[Tensor, "3 H W"]:
    """Clamp to the values of bytes; a factor of at most 1 leaves none of them."""
    return planes.clamp_(0, 255) if factor > 1 else planes


def _turned(planes: Int16[Tensor, "3 H W"], sextants: float) -> Int16[Tensor, "3 H W"]:
    """Shift the hue by up to one sextant, with the largest and the smallest channel of each pixel unchanged.

    The value of a channel is a trapezoid of the distance between the pixel's hue and the channel's: with both in
    sextants, ``low + chroma * clamp(2 - distance, 0, 1)``. The distance times the chroma is
    ``chroma + v_1 + v_2 + v_3 - 2 v`` for the values ``v`` above the lowest. So no division and no table is needed.
    A shift adds to the distance or subtracts from it, on the side on which the pixel's hue lies.
    """
    red, green, blue = planes.unbind(0)
    high = torch.maximum(torch.maximum(red, green), blue)
    low = torch.minimum(torch.minimum(red, green), blue)
    chroma = high - low
    change = torch.empty_like(planes)
    for plane, after, before in zip(change, (green, blue, red), (blue, red, green), strict=True):
        torch.sub(after, before, out=plane)
    change.clamp_(-1, 1).mul_((chroma * sextants).to(torch.int16))
    # With v = plane - low and middle the second largest channel, 2 v + chroma - (v_1 + v_2 + v_3) is
    # 2 plane - low - middle, and low + middle is the sum of all channels without the largest.
    without_high = (red + green).add_(blue).sub_(high)
    values = (planes + planes).sub_(without_high).sub_(change).clamp_(min=0)
    return torch.minimum(values, chroma, out=values).add_(low)
