"""Open image files of the supported formats only, with clear errors.

Only regular files are opened, and only by Pillow's readers of :data:`FORMATS`: some other readers start programs
(PostScript).
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, TypeVar

from PIL import Image, ImageFile, UnidentifiedImageError

from ladle.errors import UserError
from ladle.files import open_regular

__all__ = ["FORMATS", "Opener", "with_image"]

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")
"""The formats that Pillow may open. MPO is among them, as a JPEG of several frames."""

Opener = Callable[[], ImageFile.ImageFile]
"""Opens the image of a file from its beginning; each call returns an image that is not decoded yet."""

T = TypeVar("T")

_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_PIXELS = frozenset({b"IHDR", b"PLTE", b"tRNS", b"eXIf", b"IDAT", b"IEND"})
"""The chunks that are needed for pixels and orientation."""


def with_image(file: Path, use: Callable[[Opener], T]) -> T:
    """Call ``use`` with a function that opens the image in ``file``, and return its result.

    Raises:
        UserError: with the name of the file, if it is missing, not a regular file, not an image of :data:`FORMATS`,
            damaged, or so large that it may be a decompression bomb; the latter before memory for pixels is allocated.
    """
    with open_regular(file) as stream:
        if os.fstat(stream.fileno()).st_size == 0:  # as the kernel's own files are, which may be without end
            raise UserError(f"{file}: expected an image, found an empty file")
        try:
            return _used(stream, use)
        except UserError:
            raise
        except Exception as error:  # on damaged files Pillow's plugins raise whatever their parser ran into
            raise UserError(f"{file}: expected a whole image, found {_trouble(error)}") from error


def _used(stream: BinaryIO, use: Callable[[Opener], T]) -> T:
    try:
        return use(lambda: _open(stream))
    except ValueError as error:
        # Pillow refuses a PNG with long texts or a large color profile; these chunks are not needed.
        stream.seek(0)
        if isinstance(error, UserError) or stream.read(len(_PNG)) != _PNG:
            raise
    plain = _pixels_alone(stream)
    return use(lambda: _open(plain))


def _open(stream: BinaryIO | BytesIO) -> ImageFile.ImageFile:
    try:
        return Image.open(stream, formats=FORMATS)
    except UnidentifiedImageError:
        for name in FORMATS:
            factory, accept = Image.OPEN[name]
            stream.seek(0)
            if accept is not None and accept(stream.read(16)):
                stream.seek(0)
                factory(stream, "")  # the file begins like this format: raise the error that Image.open hides
        raise


def _pixels_alone(stream: BinaryIO) -> BytesIO:
    """A copy of a PNG without the chunks that are not needed for its pixels."""
    end = os.fstat(stream.fileno()).st_size
    stream.seek(len(_PNG))
    kept = [_PNG]
    while len(head := stream.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        if kind in _PNG_PIXELS:
            kept += [head, stream.read(min(length + 4, end))]
        else:
            stream.seek(length + 4, os.SEEK_CUR)
    return BytesIO(b"".join(kept))


def _trouble(error: Exception) -> str:
    formats = ", ".join(FORMATS)
    known: tuple[tuple[type[Exception], str], ...] = (
        (UnidentifiedImageError, f"content that is no image of a format that is read ({formats})"),
        (Image.DecompressionBombError, f"too large a one, cut it into tiles ({error})"),
        (MemoryError, "one that does not fit into memory"),
    )
    return next((words for kind, words in known if isinstance(error, kind)), f"a damaged one ({error})")
