"""One image with its objects, and its transformations: pure functions from sample to sample.

Images are resized by torchvision. Boxes follow in plain arithmetic: torchvision's tv_tensors would take as long for a
few boxes as for the pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from ladle.data.color import recolored
from ladle.data.windows import coverage

__all__ = ["Sample", "crop", "fit", "flip", "recolor", "resize", "stretched", "unlabeled", "warp"]

Matrix = tuple[tuple[float, float], tuple[float, float]]
"""A linear map of points (x, y) in pixels, y pointing down."""


@dataclass(frozen=True)
class Sample:
    """One image with its objects.

    ``image`` is RGB, with any strides, and ``boxes`` are xyxy in its pixels. ``original`` is the height and width of
    the shown part in pixels of the file: multiplying a box by ``original / size`` and adding the offset of a crop gives
    pixels of the file.
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
    image = functional.resize_image(_interleaved(sample.image), [height, width], antialias=True)
    return replace(sample, image=_planar(image), boxes=stretched(sample.boxes, sample.size, (height, width)))


def stretched(boxes: Float[Tensor, "n 4"], before: tuple[int, int], now: tuple[int, int]) -> Float[Tensor, "n 4"]:
    """Boxes of an image of size ``before`` (h, w) in one that is resized to ``now``."""
    down, across = now[0] / before[0], now[1] / before[1]
    return _inside(boxes * boxes.new_tensor([across, down, across, down]), *now)


def flip(sample: Sample) -> Sample:
    """Flip horizontally."""
    x1, y1, x2, y2 = sample.boxes.unbind(1)
    width = sample.size[1]
    return replace(sample, image=sample.image.flip(2), boxes=torch.stack([width - x2, y1, width - x1, y2], dim=1))


def crop(sample: Sample, window: tuple[int, int, int, int], least_visible: float = 0.3) -> Sample:
    """Crop to ``window`` (left, top, right, bottom) and clip the boxes to it; the pixels are not copied.

    An object is dropped if less than ``least_visible`` of its box remains. A crowd region is kept if any part of it
    remains, because its objects must not become background.
    """
    left, top, right, bottom = window
    height, width = bottom - top, right - left
    shares = torch.from_numpy(coverage(sample.boxes.numpy(), np.array([window], np.float32))).squeeze(1)
    kept = torch.where(sample.crowd, shares > 0, shares >= least_visible)
    down, across = (disk / whole for disk, whole in zip(sample.original, sample.size, strict=True))
    return Sample(
        image=sample.image[:, top:bottom, left:right],
        boxes=_inside((sample.boxes - sample.boxes.new_tensor([left, top, left, top]))[kept], height, width),
        labels=sample.labels[kept],
        crowd=sample.crowd[kept],
        id=sample.id,
        original=(max(1, round(height * down)), max(1, round(width * across))),
    )


def warp(sample: Sample, matrix: Matrix, fill: int, least_visible: float = 0.3) -> Sample:
    """Map an image linearly about its center, in its former size; ``fill`` is the value of pixels without a source.

    A box becomes the axis-parallel box of its moved corners, clipped as in :func:`crop`. It may be larger than its
    object, since the corners of the object are not known.

    Examples:
        >>> import torch
        >>> from dataclasses import replace
        >>> from ladle.data.samples import unlabeled, warp
        >>> sample = unlabeled(torch.zeros(3, 10, 20, dtype=torch.uint8), "a")
        >>> boxes, labels, crowd = torch.tensor([[8.0, 4, 14, 5]]), torch.tensor([0]), torch.tensor([False])
        >>> one = replace(sample, boxes=boxes, labels=labels, crowd=crowd)
        >>> warp(one, ((0.0, -1.0), (1.0, 0.0)), fill=0).boxes  # a quarter turn about (10, 5)
        tensor([[10.,  3., 11.,  9.]])
    """
    height, width = sample.size
    linear = torch.tensor(matrix, dtype=torch.float64)
    half = torch.tensor([width / 2, height / 2], dtype=torch.float64)
    # Where each pixel comes from, in coordinates from -1 to 1, as grid_sample takes them.
    back = linear.inverse() * half / half.unsqueeze(1)
    places = F.affine_grid(F.pad(back, (0, 1)).float().unsqueeze(0), [1, 3, height, width], align_corners=False)
    values = F.grid_sample(sample.image.float().unsqueeze(0) - fill, places, align_corners=False)[0] + fill
    corners = sample.boxes.double()[:, [0, 1, 2, 1, 2, 3, 0, 3]].unflatten(1, (4, 2))
    moved = (corners - half) @ linear.T + half
    boxes = torch.cat([moved.amin(1), moved.amax(1)], dim=1).float()
    whole = replace(sample, image=values.round().clamp(0, 255).to(torch.uint8), boxes=boxes)
    return replace(crop(whole, (0, 0, width, height), least_visible), original=sample.original)


def recolor(sample: Sample, brightness: float, contrast: float, saturation: float, hue: float) -> Sample:
    """Scale brightness, contrast and saturation (1: no change) and shift the hue (in full turns, 0: no change)."""
    return replace(sample, image=recolored(sample.image, brightness, contrast, saturation, hue))


def _interleaved(image: UInt8[Tensor, "3 H W"]) -> UInt8[Tensor, "3 H W"]:
    """The same image with the three values of a pixel side by side, of which torch resizes twice as many a second."""
    if image.stride(0) == 1:
        return image
    pixels = np.empty((*image.shape[1:], 3), np.uint8)
    for channel, plane in enumerate(image.numpy()):  # numpy copies with strides several times as fast as torch
        pixels[..., channel] = plane
    return torch.from_numpy(pixels).permute(2, 0, 1)


def _planar(image: UInt8[Tensor, "3 H W"]) -> UInt8[Tensor, "3 H W"]:
    """The same image with one plane after the other, as recoloring and batches take it."""
    return image if image.is_contiguous() else torch.from_numpy(np.ascontiguousarray(image.numpy()))


def _inside(boxes: Float[Tensor, "n 4"], height: int, width: int) -> Float[Tensor, "n 4"]:
    return boxes.clamp(min=0).minimum(boxes.new_tensor([width, height, width, height]))
