"""Images with 16 bits per channel: their values, and their conversion to 8 bits.

Cameras of 10, 12 or 14 bits store their values in 16 bits without scaling, so that dividing by 256 would give a dark
image with few levels. A *value range* states which value becomes black and which becomes white. There is one range for
a whole data set and not one per image, because that would remove differences of brightness between images.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
from jaxtyping import UInt8, UInt16
from PIL import Image, ImageFile
from PIL.TiffImagePlugin import TiffImageFile

from ladle.data.raster import Opener, with_image
from ladle.errors import UserError

__all__ = ["ALL_VALUES", "ValueRange", "extremes", "fitting", "is_deep", "parse_range", "refusal", "shallow", "spelled"]

ValueRange = tuple[int, int]
"""The 16-bit values that become black and white; lower values are black as well, higher ones white."""

ALL_VALUES: ValueRange = (0, 65535)
"""The range of images that use all 16 bits."""

_BITS = (8, 10, 12, 14, 16)
"""Bit depths of camera sensors."""
_SWAPPED = {
    f"{bands};16{order}": f"{bands};16{'L' if order == 'B' else 'B'}"
    for bands in ("RGB", "RGBA", "RGBX")
    for order in "BLN"
}
"""Layouts of which Pillow keeps the upper byte of each value; in the other byte order it reads the lower byte."""
_GREY_ALPHA = "LA;16B"
_PLANES, _SEPARATE, _BITS_PER_SAMPLE = 284, 2, 258
"""TIFF tag PlanarConfiguration, its value for separate planes, and TIFF tag BitsPerSample."""


def is_deep(image: ImageFile.ImageFile) -> bool:
    """Whether an image that is not decoded yet has 16 bits per channel."""
    return image.mode.startswith("I;16") or _layout(image) in (*_SWAPPED, _GREY_ALPHA)


def refusal(image: ImageFile.ImageFile) -> str | None:
    """The reason why an image that is not decoded yet cannot be read; None if it can."""
    if image.mode in ("I", "F"):
        return "expected 8 or 16 bits a channel without a sign, found 32 bits or a sign: save the image with 8 or 16"
    tags = image.tag_v2 if isinstance(image, TiffImageFile) else {}
    if tags.get(_PLANES) == _SEPARATE and max(tags.get(_BITS_PER_SAMPLE, (8,))) > 8:  # Pillow reads some of them wrong
        return "expected the channels of a pixel side by side, found 16 bits in separate planes: save it interleaved"
    return None


def shallow(image: ImageFile.ImageFile, again: Opener, value_range: ValueRange) -> Image.Image:
    """Convert an image of 16 bits per channel to 8 bits: L, LA, RGB or RGBA. ``again`` opens it a second time."""
    if value_range == ALL_VALUES and not image.mode.startswith("I;16"):
        return image  # the upper byte, which Pillow gives
    values = _values(image, again)
    pixels = _table(*value_range)[values]
    key = image.info.get("transparency")
    if values.shape[2] == 1 and isinstance(key, int):
        pixels = np.concatenate([pixels, np.where(values == key, np.uint8(0), np.uint8(255))], axis=2)
    return Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)


def extremes(file: Path) -> tuple[int, int]:
    """The smallest and the largest value of an image with 16 bits a channel."""
    values = with_image(file, lambda open_image: _values(open_image(), open_image))
    return int(values.min()), int(values.max())


def fitting(largest: int) -> ValueRange:
    """The range of the smallest bit depth of a sensor that contains ``largest``."""
    return 0, next(2**bits - 1 for bits in _BITS if largest < 2**bits)


def parse_range(text: str) -> ValueRange:
    """A range as a user writes it: ``0,4095``."""
    words = text.split(",")
    if len(words) == 2 and all(word.isascii() and word.strip().isdecimal() for word in words):
        low, high = map(int, words)
        if low < high <= ALL_VALUES[1]:
            return low, high
    raise UserError(
        f"--value-range {text}: expected the values of 16-bit images that become black and white, such as 0,4095"
    )


def spelled(value_range: ValueRange) -> str:
    """A range as a user writes it."""
    return f"{value_range[0]},{value_range[1]}"


def _layout(image: ImageFile.ImageFile) -> str:
    """Pillow's name for the layout of the values in an image's file."""
    args = image.tile[0].args if image.tile else ""
    first = args[0] if isinstance(args, tuple) and args else args
    return first if isinstance(first, str) else ""


def _values(image: ImageFile.ImageFile, again: Opener) -> UInt16[np.ndarray, "H W C"]:
    layout = _layout(image)
    if image.mode.startswith("I;16"):
        return np.asarray(image).astype(np.uint16, copy=False)[..., None]
    if layout == _GREY_ALPHA:  # as many bytes as RGBA of 8 bits, and so read without loss
        pairs = np.asarray(_read_as(image, "RGBA"))
        upper, lower = pairs[..., 0::2], pairs[..., 1::2]
    else:
        upper, lower = np.asarray(image), np.asarray(_read_as(again(), _SWAPPED[layout]))
    values: UInt16[np.ndarray, "H W C"] = upper.astype(np.uint16) << 8 | lower
    return values


def _read_as(image: ImageFile.ImageFile, layout: str) -> ImageFile.ImageFile:
    """The same image, set to be decoded as another layout."""
    image.tile = [
        tile._replace(args=(layout, *tile.args[1:]) if isinstance(tile.args, tuple) else layout) for tile in image.tile
    ]
    return image


@lru_cache
def _table(low: int, high: int) -> UInt8[np.ndarray, " v"]:
    """The 8-bit value of each 16-bit value."""
    values = (np.arange(2**16, dtype=np.float64) - low) * (255 / (high - low))
    table: UInt8[np.ndarray, " v"] = np.rint(values.clip(0, 255)).astype(np.uint8)
    return table
