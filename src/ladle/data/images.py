"""Image files: find them, read their size from the header, decode them to RGB.

All images are converted to three channels of 8 bits, also those with CMYK, 16 bits, a palette, one channel,
transparency or several frames. Transparent pixels are composited on white, 16 bits are converted with one value range
for all images, and of several frames the first is used. The format is determined by the content, not by the suffix. An
image that cannot be decoded completely is an error.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import ExifTags, Image, ImageFile
from PIL.TiffImagePlugin import TiffImageFile
from torch import Tensor

from ladle.data.depth import ALL_VALUES, ValueRange, is_deep, refusal, shallow
from ladle.data.raster import Opener, with_image
from ladle.errors import UserError

__all__ = ["SUFFIXES", "Header", "image_size", "load_image", "load_interleaved", "locate", "read_header"]

SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
"""The suffixes of images when a folder is listed; files named by an annotation may have any suffix."""

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""The transposition that undoes each EXIF orientation; other values of the tag are ignored."""
_BACK = {
    Image.Transpose.ROTATE_90: Image.Transpose.ROTATE_270,
    Image.Transpose.ROTATE_270: Image.Transpose.ROTATE_90,
}
"""The transposition that undoes each of these; all others undo themselves."""
_TIFF_WIDTH, _TIFF_HEIGHT = 256, 257
"""The TIFF tags of the stored size."""
_LYING = frozenset({5, 6, 7, 8})
_WHITE = (255, 255, 255, 255)


@dataclass(frozen=True, slots=True)
class Header:
    """The header of an image file: the stored size, whether EXIF rotates it by 90 degrees (``lying``), its depth.

    ``deep`` is True for 16 bits per channel.
    """

    height: int
    width: int
    lying: bool
    deep: bool = False

    @property
    def displayed(self) -> tuple[int, int]:
        """Height and width after the EXIF rotation."""
        return (self.width, self.height) if self.lying else (self.height, self.width)


def load_image(file: Path, upright: bool = True, value_range: ValueRange = ALL_VALUES) -> UInt8[Tensor, "3 H W"]:
    """Decode an image to RGB bytes.

    Args:
        file: the image file.
        upright: whether to apply the rotation of its EXIF tag.
        value_range: the values of 16-bit channels that become 0 and 255.

    Raises:
        UserError: with the name of the file, if it is missing, damaged, truncated or not an image, or so large that it
            may be a decompression bomb; the latter before memory for pixels is allocated.
    """
    pixels = load_interleaved(file, upright, value_range).permute(1, 2, 0).numpy()
    return torch.from_numpy(np.array(pixels.transpose(2, 0, 1), order="C"))


def load_interleaved(file: Path, upright: bool = True, value_range: ValueRange = ALL_VALUES) -> UInt8[Tensor, "3 H W"]:
    """Decode an image as :func:`load_image`, with the three values of a pixel side by side, as resizing takes it."""
    pixels = with_image(file, lambda open_image: _decoded(open_image, file, upright, value_range))
    return torch.from_numpy(np.array(pixels, order="C")).permute(2, 0, 1)


def image_size(file: Path) -> tuple[int, int]:
    """Height and width of an image as displayed, from its header alone."""
    return read_header(file).displayed


def read_header(file: Path) -> Header:
    """Read the header of an image file without decoding pixels.

    Raises:
        UserError: as :func:`load_image`, and for pixel formats that are not supported.
    """
    return with_image(file, lambda open_image: _header(open_image(), file))


def locate(root: Path, name: str) -> Path:
    r"""Find the file with the name that an annotation states, inside ``root``.

    The name is tried as written, then with ``/`` instead of Windows' ``\``, then in the other Unicode normal forms.
    Upper and lower case must agree.

    Raises:
        UserError: for a missing file, for an absolute name, and for a name that leads outside ``root``.
    """
    path = PureWindowsPath(name)
    if path.drive or path.root or ".." in path.parts or not path.parts:
        raise UserError(f"{name}: expected a file name inside {root}, found one that leaves it: make the name relative")
    for form in _spellings(name):
        if _exists(root / form):
            return root / form
    raise UserError(f"{name}: expected an image in {root}, found none{_hint(root, name)}")


def _spellings(name: str) -> tuple[str, ...]:
    posix = name.replace("\\", "/")
    return name, posix, unicodedata.normalize("NFC", posix), unicodedata.normalize("NFD", posix)


def _hint(root: Path, name: str) -> str:
    path = Path(name)
    for other in (path.with_suffix(path.suffix.swapcase()), Path(name.lower()), Path(name.upper())):
        if _exists(root / other):
            return f", though {other} is there: upper and lower case must agree"
    return ""


def _exists(file: Path) -> bool:
    try:
        return file.exists()
    except (OSError, ValueError):  # a name too long, or with a null byte in it
        return False


def _header(image: ImageFile.ImageFile, file: Path) -> Header:
    _check_kind(image, file)
    # Pillow gives the size of a TIFF file as displayed.
    tags = image.tag_v2 if isinstance(image, TiffImageFile) else {}
    width, height = tags.get(_TIFF_WIDTH, image.width), tags.get(_TIFF_HEIGHT, image.height)
    return Header(height, width, lying=_orientation(image) in _LYING, deep=is_deep(image))


def _decoded(open_image: Opener, file: Path, upright: bool, value_range: ValueRange) -> UInt8[np.ndarray, "H W 3"]:
    image = open_image()
    _check_kind(image, file)
    is_turned = isinstance(image, TiffImageFile)  # Pillow applies the orientation of these itself
    turn = _TURNS.get(_orientation(image)) if upright != is_turned else None
    if is_turned and turn is not None:
        turn = _BACK.get(turn, turn)
    pixels = _rgb(shallow(image, open_image, value_range) if is_deep(image) else image)
    return np.asarray(pixels if turn is None else pixels.transpose(turn))


def _check_kind(image: ImageFile.ImageFile, file: Path) -> None:
    reason = refusal(image)
    if reason is not None:
        raise UserError(f"{file}: {reason}")


def _orientation(image: Image.Image) -> int:
    # For a PNG without EXIF in its header, Pillow would decode all pixels to search for one behind them.
    if image.format == "PNG" and "exif" not in image.info:
        return 1
    try:
        tag = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # an unreadable tag block does not mean that the image is damaged
        return 1
    return tag if isinstance(tag, int) else 1


def _rgb(image: Image.Image) -> Image.Image:
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, _WHITE), layer).convert("RGB")
    return image.convert("RGB")
