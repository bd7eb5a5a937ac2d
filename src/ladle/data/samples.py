"""One image with its objects, and its transformations: pure functions from sample to sample.

Pixels and boxes are transformed together by torchvision's v2 transforms, as tv_tensors.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from ladle.boxes import clip, pairwise_coverage

__all__ = ["Sample", "crop", "fit", "flip", "recolor", "resize", "unlabeled"]


@dataclass(frozen=True)
class Sample:
    """One image with its objects.

    ``image`` is RGB and ``boxes`` are xyxy in its pixels. ``original`` is the height and width of the shown part in
    pixels of the file: multiplying a box by ``original / size`` and adding the offset of a crop gives pixels of the
    file.
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


def unlabeled(image: UInt8[Tensor, "3 H W"], name: str) -> Sample:
    """An image without annotations."""
    nothing = torch.zeros(0, 4), torch.zeros(0, dtype=torch.long), torch.zeros(0, dtype=torch.bool)
    return Sample(image, *nothing, id=name, original=(image.shape[1], image.shape[2]))


def fit(size: tuple[int, int], imgsz: int | tuple[int, int]) -> tuple[int, int]:
    """Height and width scaled to the longer side ``imgsz``, or to at most (short, long), with the same aspect ratio.

    A side is at least 1 pixel.
    """
    short, long = (imgsz, imgsz) if isinstance(imgsz, int) else imgsz
    scale = min(long / max(size), short / min(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def resize(sample: Sample, height: int, width: int) -> Sample:
    """Resize the image to ``height`` x ``width`` with antialiasing."""
    from torchvision.transforms.v2 import functional

    if (height, width) == sample.size:
        return sample
    image, boxes = _as_tv_tensors(sample)
    size = [height, width]
    stretched = functional.resize(boxes, size)
    return replace(sample, image=_plain(functional.resize(image, size, antialias=True)), boxes=_inside(stretched, size))


def flip(sample: Sample) -> Sample:
    """Flip horizontally."""
    from torchvision.transforms.v2 import functional

    image, boxes = _as_tv_tensors(sample)
    mirrored, moved = functional.horizontal_flip(image), functional.horizontal_flip(boxes)
    return replace(sample, image=_plain(mirrored), boxes=_plain(moved))


def crop(sample: Sample, window: tuple[int, int, int, int], least_visible: float = 0.3) -> Sample:
    """Crop to ``window`` (left, top, right, bottom) and clip the boxes to it.

    An object is dropped if less than ``least_visible`` of its box remains. A crowd region is kept if any part of it
    remains, because its objects must not become background.
    """
    from torchvision.transforms.v2 import functional

    left, top, right, bottom = window
    height, width = bottom - top, right - left
    shares = pairwise_coverage(sample.boxes, sample.boxes.new_tensor([window])).squeeze(1)
    kept = torch.where(sample.crowd, shares > 0, shares >= least_visible)
    image, boxes = _as_tv_tensors(sample)
    # The same call crops pixels and boxes, so that they cannot become inconsistent.
    cut, moved = (functional.crop(part, top, left, height, width) for part in (image, boxes))
    down, across = (disk / whole for disk, whole in zip(sample.original, sample.size, strict=True))
    return Sample(
        image=_plain(cut),
        boxes=_inside(moved, [height, width])[kept],
        labels=sample.labels[kept],
        crowd=sample.crowd[kept],
        id=sample.id,
        original=(max(1, round(height * down)), max(1, round(width * across))),
    )


def recolor(sample: Sample, brightness: float, contrast: float, saturation: float, hue: float) -> Sample:
    """Scale brightness, contrast and saturation (1: no change) and shift the hue (in full turns, 0: no change)."""
    from torchvision.transforms.v2 import functional

    image = functional.adjust_brightness(sample.image, brightness)
    image = functional.adjust_contrast(image, contrast)
    image = functional.adjust_saturation(image, saturation)
    return replace(sample, image=functional.adjust_hue(image, hue))


def _as_tv_tensors(sample: Sample) -> tuple[Any, Any]:
    from torchvision.tv_tensors import BoundingBoxes, Image

    boxes = BoundingBoxes(sample.boxes, format="XYXY", canvas_size=sample.size)
    return Image(sample.image), boxes


def _plain(tv_tensor: Any) -> Tensor:
    tensor: Tensor = tv_tensor.as_subclass(Tensor)
    return tensor


def _inside(boxes: Any, size: list[int]) -> Tensor:
    return clip(_plain(boxes), torch.tensor(size))
