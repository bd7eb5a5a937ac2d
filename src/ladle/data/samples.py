"""One picture with its objects, and what can be done to it: pure functions from sample to sample."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from ladle.boxes import clip, pairwise_coverage

__all__ = ["Sample", "crop", "fit", "flip", "recolour", "resize"]

_LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class Sample:
    """One picture with its objects.

    ``image`` is RGB and ``boxes`` are xyxy in its pixels. ``original`` is the height and width of what the picture
    shows in pixels of the file: a box goes back there by ``original / size``, and through a crop by an offset more.
    """

    image: UInt8[Tensor, "3 H W"]
    boxes: Float[Tensor, "n 4"]
    labels: Int[Tensor, " n"]
    crowd: Bool[Tensor, " n"]
    id: int | str
    original: tuple[int, int]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of ``image``."""
        return self.image.shape[1], self.image.shape[2]


def fit(size: tuple[int, int], imgsz: int | tuple[int, int]) -> tuple[int, int]:
    """The height and width that ``size`` takes at the same ratio: longer side ``imgsz``, or at most (short, long).

    A side never becomes 0, however thin the picture.
    """
    short, long = (imgsz, imgsz) if isinstance(imgsz, int) else imgsz
    scale = min(long / max(size), short / min(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def resize(sample: Sample, height: int, width: int) -> Sample:
    """Stretch the picture to ``height`` x ``width``, smoothly also when it shrinks."""
    from torchvision.transforms.v2 import functional

    old_height, old_width = sample.size
    if (height, width) == (old_height, old_width):
        return sample
    x, y = width / old_width, height / old_height
    boxes = sample.boxes * sample.boxes.new_tensor([x, y, x, y])
    image = functional.resize(sample.image, [height, width], antialias=True)
    return replace(sample, image=image, boxes=clip(boxes, torch.tensor([height, width])))


def flip(sample: Sample) -> Sample:
    """Mirror left and right."""
    left, top, right, bottom = sample.boxes.unbind(1)
    width = sample.image.shape[2]
    boxes = torch.stack([width - right, top, width - left, bottom], dim=1)
    return replace(sample, image=sample.image.flip(2), boxes=boxes)


def crop(sample: Sample, window: tuple[int, int, int, int], least_visible: float = 0.3) -> Sample:
    """Cut out ``window`` (left, top, right, bottom) and clip the boxes to it.

    An object of which less than ``least_visible`` of its box remains is dropped. A crowd region stays while anything
    of it does, since what it hides must not become background.
    """
    left, top, right, bottom = window
    height, width = bottom - top, right - left
    shares = pairwise_coverage(sample.boxes, sample.boxes.new_tensor([window])).squeeze(1)
    kept = torch.where(sample.crowd, shares > 0, shares >= least_visible)
    boxes = sample.boxes[kept] - sample.boxes.new_tensor([left, top, left, top])
    down, across = (disk / whole for disk, whole in zip(sample.original, sample.size, strict=True))
    return Sample(
        image=sample.image[:, top:bottom, left:right],
        boxes=clip(boxes, torch.tensor([height, width])),
        labels=sample.labels[kept],
        crowd=sample.crowd[kept],
        id=sample.id,
        original=(max(1, round(height * down)), max(1, round(width * across))),
    )


def recolour(sample: Sample, brightness: float, contrast: float, saturation: float, hue: float) -> Sample:
    """Scale brightness, contrast and saturation (1 changes nothing) and turn the hue (in turns, 0 changes nothing).

    All four are one affine map of RGB; the hue turns about the grey axis.
    """
    luma = torch.tensor(_LUMA, dtype=torch.float64)
    saturate = torch.lerp(luma.expand(3, 3), torch.eye(3, dtype=torch.float64), saturation)
    linear = brightness * contrast * _hue_turn(hue) @ saturate
    # Whole-number sums: the mean, and so every byte, is the same for any number of threads.
    mean = luma @ (sample.image.sum((1, 2), dtype=torch.int64).double() / sample.image[0].numel())
    offset = brightness * (1 - contrast) * float(mean) + 0.5
    red, green, blue = linear.float()[:, :, None, None].unbind(1)
    r, g, b = sample.image.float()
    return replace(sample, image=(red * r + green * g + blue * b + offset).clamp(0, 255).to(torch.uint8))


def _hue_turn(turns: float) -> Tensor:
    """The rotation (3,3) of RGB about the grey axis."""
    cos, sin = math.cos(2 * math.pi * turns), math.sin(2 * math.pi * turns) / math.sqrt(3)
    same, next_, last = (1 + 2 * cos) / 3, (1 - cos) / 3 - sin, (1 - cos) / 3 + sin
    return torch.tensor([[same, next_, last], [last, same, next_], [next_, last, same]], dtype=torch.float64)
