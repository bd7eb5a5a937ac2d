"""Small images with marked boxes, for pages that must stay small."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from typing import NamedTuple

from jaxtyping import UInt8
from PIL import Image, ImageDraw
from torch import Tensor

from ladle.visual.images import Rectangle
from ladle.visual.lettering import Label, image_font
from ladle.visual.palette import ink_on

__all__ = ["Mark", "thumbnail"]

_SIDES = (480, 400, 320, 240, 160, 96)
"""The longer side in pixels; smaller ones are tried until the file is small enough."""
_QUALITY = 78
_CLEARLY = 1.2
_FONT = 12
_DASH = 5


class Mark(NamedTuple):
    """A box of an image in shares of its width and height, its color, its label or None, and whether it is dashed."""

    box: Rectangle
    color: str
    label: Label | None = None
    dashed: bool = False


def thumbnail(image: UInt8[Tensor, "3 H W"], marks: Sequence[Mark], most: int) -> bytes:
    """A JPEG of at most ``most`` bytes with all marks, later ones on top; no longer side is above 480 pixels.

    The smallest size is taken even if it is larger than ``most``.
    """
    canvas = Image.fromarray(image.permute(1, 2, 0).contiguous().cpu().numpy())
    data, tried = b"", _SIDES[0]
    for side in _SIDES:
        # A file is about as large as its area: what would clearly be too large is not tried.
        if side > _SIDES[-1] and len(data) * (side / tried) ** 2 > _CLEARLY * most:
            continue
        data, tried = _jpeg(_drawn(canvas, marks, side)), side
        if len(data) <= most:
            break
    return data


def _drawn(image: Image.Image, marks: Sequence[Mark], side: int) -> Image.Image:
    scale = side / max(image.size)
    width, height = (max(1, round(one * scale)) for one in image.size)
    canvas = image.resize((width, height), Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(canvas)
    for mark in marks:
        x1, x2 = sorted(one * (width - 1) for one in (mark.box[0], mark.box[2]))
        y1, y2 = sorted(one * (height - 1) for one in (mark.box[1], mark.box[3]))
        if mark.dashed:
            _dashed_rectangle(pen, (x1, y1, x2, y2), mark.color)
        else:
            pen.rectangle((x1, y1, x2, y2), outline=mark.color, width=2)
        if mark.label is not None:
            _write(pen, (x1, y1), mark.label, mark.color, (width, height))
    return canvas


def _dashed_rectangle(pen: ImageDraw.ImageDraw, box: Rectangle, color: str) -> None:
    x1, y1, x2, y2 = box
    for start in range(int(x1), int(x2) + 1, 2 * _DASH):
        for y in (y1, y2):
            pen.line((start, y, min(start + _DASH, x2), y), fill=color, width=2)
    for start in range(int(y1), int(y2) + 1, 2 * _DASH):
        for x in (x1, x2):
            pen.line((x, start, x, min(start + _DASH, y2)), fill=color, width=2)


def _write(
    pen: ImageDraw.ImageDraw, corner: tuple[float, float], label: Label, color: str, bounds: tuple[int, int]
) -> None:
    """Write a label above the corner of a box, inside the image."""
    font = image_font(label, _FONT)
    wide = pen.textlength(label.text, font=font) + 4
    left = max(0.0, min(corner[0], bounds[0] - wide))
    top = max(0.0, corner[1] - _FONT - 2)
    pen.rectangle((left, top, left + wide, top + _FONT + 2), fill=color)
    pen.text((left + 2, top + _FONT / 2 + 1), label.text, fill=ink_on(color), font=font, anchor="lm")


def _jpeg(image: Image.Image) -> bytes:
    stream = BytesIO()
    image.save(stream, "jpeg", quality=_QUALITY, optimize=True)
    return stream.getvalue()
