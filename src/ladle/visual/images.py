"""Images with detected boxes, drawn with PIL in the pixels of the image."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, UInt8
from PIL import Image, ImageDraw
from torch import Tensor

from ladle.errors import UserError
from ladle.files import write_atomically
from ladle.types import Detections
from ladle.visual.lettering import Label, image_font, labels_of
from ladle.visual.palette import INK, color, ink_on

__all__ = ["Panel", "Rectangle", "draw_detections", "free_place", "side_by_side"]

Rectangle = tuple[float, float, float, float]
"""``x1 y1 x2 y2``."""

_EM = 0.62
"""Mean width of a letter, relative to the height of its font."""
_READABLE = 640
"""Images with a longer side below this are enlarged by an integer factor, so that their labels are readable."""


class Panel(NamedTuple):
    """One image of :func:`side_by_side`: boxes in pixels of the image, ``scores`` None for ground truth."""

    title: str
    image: UInt8[Tensor, "3 H W"]
    boxes: Float[Tensor, "n 4"]
    labels: Int[Tensor, " n"]
    scores: Float[Tensor, " n"] | None = None


def draw_detections(
    image: UInt8[Tensor, "3 H W"], detections: Detections, classes: Sequence[str], path: Path | str
) -> Path:
    """Draw all detections with class and score; remove those of low score first if there are many.

    Images smaller than 640 pixels are enlarged by an integer factor.
    """
    panel = Panel("", image, detections.boxes, detections.labels, detections.scores)
    return _save(_annotated(panel, classes), path)


def side_by_side(panels: Sequence[Panel], classes: Sequence[str], path: Path | str) -> Path:
    """Draw images next to each other with titles, for example ground truth, student and teacher."""
    if not panels:
        raise UserError("side_by_side got no panels, expected at least one: give it a Panel an image")
    drawn = [_annotated(panel, classes) for panel in panels]
    width, height = max(p.width for p in drawn), max(p.height for p in drawn)
    size = max(18, height // 30)
    titles = labels_of([panel.title for panel in panels], "panel", most=max(8, round(width / size / _EM)), bold=True)
    gap, band = max(12, width // 40), round(size * 2.2)
    sheet = Image.new("RGB", ((width + gap) * len(drawn) + gap, height + band + gap), "white")
    pen = ImageDraw.Draw(sheet)
    for number, (title, image) in enumerate(zip(titles, drawn, strict=True)):
        left = gap + number * (width + gap)
        if panels[number].title:
            pen.text((left, band / 2), title.text, fill=INK, font=image_font(title, size), anchor="lm")
        sheet.paste(image, (left, band + (height - image.height) // 2))
    return _save(sheet, path)


def free_place(
    box: Rectangle,
    size: tuple[float, float],
    taken: Sequence[Rectangle] | Float[np.ndarray, "n 4"],
    bounds: tuple[float, float],
) -> Rectangle:
    """The place of a label of ``size`` (width, height) at ``box`` that covers the least of ``taken``.

    Tried in order: on the upper edge at the left and the right, below the lower edge, inside the box, beside it; all
    inside ``bounds`` (width, height).
    """
    (x1, y1, x2, y2), (wide, high) = box, size
    corners = [(x1, y1 - high), (x2 - wide, y1 - high), (x1, y2), (x2 - wide, y2)]
    corners += [(x1, y1), (x2 - wide, y1), (x1, y2 - high), (x2 - wide, y2 - high)]
    corners += [(x2, y1), (x1 - wide, y1), (x2, y2 - high), (x1 - wide, y2 - high)]
    inside = [(x, y) for x, y in corners if 0 <= y <= bounds[1] - high]
    places = [_shifted_in(x, y, size, bounds) for x, y in inside or corners]
    covered = _shared(np.array(places), np.asarray(taken, dtype=np.float64).reshape(-1, 4))
    return places[int(covered.sum(axis=1).argmin())]


def _shifted_in(x: float, y: float, size: tuple[float, float], bounds: tuple[float, float]) -> Rectangle:
    left, top = (max(0.0, min(at, end - long)) for at, long, end in zip((x, y), size, bounds, strict=True))
    return left, top, left + size[0], top + size[1]


def _shared(first: Float[np.ndarray, "m 4"], second: Float[np.ndarray, "n 4"]) -> Float[np.ndarray, "m n"]:
    """The intersection area of each first with each second box."""
    sides = np.minimum(first[:, None, 2:], second[:, 2:]) - np.maximum(first[:, None, :2], second[:, :2])
    return np.asarray(sides.clip(min=0).prod(axis=-1))


def _annotated(panel: Panel, classes: Sequence[str]) -> Image.Image:
    """The image with boxes and labels; labels of higher score are placed first and drawn on top."""
    image, factor = _canvas(panel.image)
    pen = ImageDraw.Draw(image)
    line, size = max(2, round(max(image.size) / 400)), max(13, round(max(image.size) / 54))
    order = list(range(len(panel.boxes)))
    if panel.scores is not None:
        order = panel.scores.argsort(descending=True, stable=True).tolist()
    boxes = [tuple(factor * side for side in box) for box in panel.boxes.tolist()]
    shades = [color(label) for label in panel.labels.tolist()]
    for i in reversed(order):
        pen.rectangle(_ordered(boxes[i]), outline=shades[i], width=line)
    bounds = (float(image.width), float(image.height))
    names = labels_of(classes, most=min(40, max(8, round(image.width / size / _EM) - len(" 0.00"))))
    captions = [_caption(panel, i, names) for i in order]
    places = np.zeros((len(order), 4))
    for number, (i, caption) in enumerate(zip(order, captions, strict=True)):
        wide = pen.textlength(caption.text, font=image_font(caption, size))
        places[number] = free_place(boxes[i], (wide + size * 0.7, size * 1.35), places[:number], bounds)
    for i, caption, (x1, y1, x2, y2) in reversed(list(zip(order, captions, places.tolist(), strict=True))):
        _tag(pen, (x1, y1, x2, y2), caption, shades[i], size)
    return image


def _canvas(image: UInt8[Tensor, "3 H W"]) -> tuple[Image.Image, int]:
    canvas = Image.fromarray(image.permute(1, 2, 0).cpu().numpy())
    factor = ceil(_READABLE / max(canvas.size)) if max(canvas.size) < _READABLE else 1
    return canvas.resize((canvas.width * factor, canvas.height * factor), Image.Resampling.BICUBIC), factor


def _ordered(box: Rectangle) -> Rectangle:
    # PIL refuses a rectangle with swapped corners, which a detector early in training may predict.
    return min(box[0], box[2]), min(box[1], box[3]), max(box[0], box[2]), max(box[1], box[3])


def _caption(panel: Panel, index: int, names: Sequence[Label]) -> Label:
    label = int(panel.labels[index])
    if not 0 <= label < len(names):
        raise UserError(f"label {label} has no name among {len(names)} classes: give the classes of this data set")
    name = names[label]
    return name if panel.scores is None else name._replace(text=f"{name.text} {float(panel.scores[index]):.2f}")


def _tag(pen: ImageDraw.ImageDraw, place: Rectangle, caption: Label, shade: str, size: int) -> None:
    pen.rectangle(place, fill=shade)
    middle = ((place[0] + place[2]) / 2, (place[1] + place[3]) / 2)
    pen.text(middle, caption.text, fill=ink_on(shade), font=image_font(caption, size), anchor="mm")


def _save(image: Image.Image, path: Path | str) -> Path:
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, image.save)
    return path
