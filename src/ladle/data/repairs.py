"""Check a raw split against its image files, repair its boxes, and record every repair.

The repairs:

* Image sizes are read from the files. If the annotations state other sizes, the boxes of all such images are assumed to
  be in pixels of the stated or of the actual sizes, whichever are smaller and contain the boxes, and are scaled to the
  file.
* Annotations of the stored, unrotated image stay so if EXIF rotates it by 90 degrees (``ImageInfo.upright`` is False).
* Corners in the wrong order are swapped; boxes are cut at the border of their image.
* Boxes that are not finite, are outside, have a side under half a pixel, or are within the first pixel are dropped.
* An entry without objects whose file is listed again is left out; exact copies of an object are kept and reported.

Boxes that exceed the image by less than half a pixel, which is rounding, are cut without a report.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Literal, NoReturn

import numpy as np
from jaxtyping import Bool, Float32, Float64

from ladle.data.dataset import Defect, DetectionDataset
from ladle.data.decoding import bounded
from ladle.data.forms import check_form, within_first_pixel
from ladle.data.header_cache import cached_headers
from ladle.data.images import Header, load_image
from ladle.data.packed import PackedImages, Texts
from ladle.data.raw_images import RawImage, RawSplit
from ladle.errors import UserError

__all__ = ["OnDefect", "Progress", "check_and_repair", "silent"]

Progress = Callable[[str, int, int], object]
"""Called for every image with what is done, the number of images so far, and that of all images."""


def silent(what: str, done: int, of: int) -> None:
    """Show no progress."""


OnDefect = Literal["repair", "skip", "raise"]
"""``repair`` repairs defects and refuses unusable images, ``skip`` leaves these out, ``raise`` refuses any defect."""

_HALF_PIXEL = 0.5
_SUSPICIOUS_SHARE = 0.1
_NAMED = 50


@dataclass(frozen=True, slots=True)
class _Frame:
    """The size to which boxes are clipped, the factors (x, y) to scale them to it, and whether EXIF is applied."""

    height: int
    width: int
    scale: tuple[float, float] = (1.0, 1.0)
    upright: bool = True


_WithHeader = tuple[RawImage, Header]


def check_and_repair(
    raw_split: RawSplit, on_defect: OnDefect, decode: bool, progress: Progress = silent
) -> DetectionDataset:
    """Check every raw image against its image file, repair its boxes, and return the data set.

    With ``decode`` every image is decoded to find damaged ones. ``progress`` is called for every image.

    Raises:
        UserError: for unusable images unless ``on_defect`` is ``skip``, for any defect if it is ``raise``, and if no
            image is left.
    """
    opened, fatal = _open(raw_split, decode, progress)
    if fatal and on_defect != "skip":
        _refuse(raw_split.source, fatal, "mend them, or leave these images out with --on-defect skip")
    if not opened:
        _refuse(raw_split.source, [*raw_split.defects, *fatal], "give it at least one usable image")
    opened, repeated = _once(opened)
    frames, contradictions = _frames(opened)
    images, repairs, notes = _images(opened, frames, raw_split)
    defects = [*raw_split.defects, *fatal, *repeated, *contradictions, *repairs]
    if defects and on_defect == "raise":
        _refuse(raw_split.source, defects, "mend them, or have them repaired with --on-defect repair")
    return DetectionDataset(
        images, raw_split.classes, raw_split.category_ids, tuple(defects), raw_split.source, (*raw_split.notes, *notes)
    )


def _refuse(source: Path, defects: Sequence[Defect], advice: str) -> NoReturn:
    """Raise a UserError with the defects (the first fifty of many) and the advice how to repair them."""
    named = "; ".join(str(defect) for defect in defects[:_NAMED])
    more = f"; and {len(defects) - _NAMED} more" if len(defects) > _NAMED else ""
    raise UserError(f"{source}: expected sound data, found {f'{named}{more}' or 'no images at all'} - {advice}")


def _open(raw_split: RawSplit, decode: bool, progress: Progress) -> tuple[list[_WithHeader], list[Defect]]:
    raw_images, opened = raw_split.raw_images, []
    with cached_headers(raw_split.source, len(raw_images)) as read_header:
        for number, raw_image in enumerate(raw_images, start=1):
            progress("headers", number, len(raw_images))
            if raw_image.faults:
                continue
            try:
                opened.append((raw_image, read_header(raw_image.file)))
            except UserError as error:
                raw_image.faults.append(_fault(raw_image, error))
    if decode:
        numbers = count(1)

        def is_whole(place: int) -> bool:
            progress("images decoded", next(numbers), len(opened))
            return _is_whole(opened[place][0])

        whole = bounded(is_whole, [header.displayed for _, header in opened])
        opened = [pair for pair, sound in zip(opened, whole, strict=True) if sound]
    return opened, [fault for raw_image in raw_images for fault in raw_image.faults]


def _is_whole(raw_image: RawImage) -> bool:
    """Whether the image can be decoded; if not, a fault is added to the raw image."""
    try:
        load_image(raw_image.file)
    except UserError as error:
        raw_image.faults.append(_fault(raw_image, error))
        return False
    return True


def _fault(raw_image: RawImage, error: UserError) -> Defect:
    """A fault of the image file; its name is used if the raw image is named after an annotation file."""
    name = raw_image.name if raw_image.name.endswith(raw_image.file.name) else str(raw_image.file)
    return Defect(name, str(error).removeprefix(f"{raw_image.file}: "), fatal=True)


def _once(opened: Sequence[_WithHeader]) -> tuple[list[_WithHeader], list[Defect]]:
    """Leave out repeated entries without objects of an image that has objects in another entry."""
    first: dict[Path, RawImage] = {}
    for raw_image, _ in opened:
        known = first.setdefault(raw_image.file, raw_image)
        if raw_image.corners and not known.corners:
            first[raw_image.file] = raw_image
    again = [raw_image for raw_image, _ in opened if first[raw_image.file] is not raw_image]
    kept = [pair for pair in opened if first[pair[0].file] is pair[0] or pair[0].corners]
    act = {
        True: "file listed more than once; all entries were kept",
        False: "file listed again without objects; left out",
    }
    return kept, [
        Defect(f"{raw_image.name}: image {raw_image.id}", act[bool(raw_image.corners)]) for raw_image in again
    ]


def _frames(opened: Sequence[_WithHeader]) -> tuple[list[_Frame], list[Defect]]:
    trusted = _trusts_stated(opened)
    frames, defects = [], []
    for raw_image, header in opened:
        height, width = header.displayed
        frame = _Frame(height, width, (float(width), float(height)) if raw_image.fractions else (1.0, 1.0))
        if _in_stored_frame(raw_image, header):
            frame = _Frame(header.height, header.width, upright=False)
            defects.append(Defect(raw_image.name, "annotated in its stored frame; its EXIF rotation is not applied"))
        elif raw_image.stated is not None and raw_image.stated != header.displayed:
            factors = (width / raw_image.stated[1], height / raw_image.stated[0])
            frame = _Frame(height, width, factors) if trusted else frame
            claim = f"{raw_image.stated[1]}x{raw_image.stated[0]}"
            act = "its boxes were scaled to the file" if trusted else "its boxes were taken to fit the file"
            defects.append(
                Defect(f"{raw_image.name} (stated {claim}, is {width}x{height})", f"stated size is wrong; {act}")
            )
        frames.append(frame)
    return frames, defects


def _in_stored_frame(raw_image: RawImage, header: Header) -> bool:
    return header.displayed != raw_image.stated == (header.height, header.width)


def _trusts_stated(opened: Sequence[_WithHeader]) -> bool:
    """Whether the boxes of images with a wrong stated size are in pixels of the stated sizes.

    If all boxes fit into the stated as well as the actual sizes, the smaller ones are chosen.
    """
    stated, actual, fits = 0.0, 0.0, np.array([True, True])
    for raw_image, header in opened:
        if raw_image.stated in (None, header.displayed, (header.height, header.width)) or not raw_image.corners:
            continue
        sizes = np.array([raw_image.stated, header.displayed], dtype=np.float64)
        stated, actual = stated + sizes[0].prod(), actual + sizes[1].prod()
        reach = np.nan_to_num(np.array(raw_image.corners).reshape(-1, 4)[:, 2:].max(axis=0)[::-1], nan=0.0)
        fits &= (reach <= sizes + _HALF_PIXEL).all(axis=1)
    return bool(fits[0] and (stated < actual or not fits[1]))


def _images(
    opened: Sequence[_WithHeader], frames: Sequence[_Frame], raw_split: RawSplit
) -> tuple[PackedImages, list[Defect], tuple[str, ...]]:
    """Repair the boxes of all images at once."""
    raw_images = [raw_image for raw_image, _ in opened]
    counts = [len(raw_image.labels) for raw_image in raw_images]
    owner = np.repeat(np.arange(len(raw_images)), counts)
    corners = np.concatenate([np.zeros(0), *(raw_image.corners for raw_image in raw_images)]).reshape(-1, 4)
    labels = np.fromiter((label for raw_image in raw_images for label in raw_image.labels), np.int64, sum(counts))
    crowd = np.fromiter((flag for raw_image in raw_images for flag in raw_image.crowd), np.bool_, sum(counts))
    scale = np.array([frame.scale for frame in frames], dtype=np.float64).reshape(-1, 2)[owner]
    limit = np.array([(frame.width, frame.height) for frame in frames], dtype=np.float64).reshape(-1, 2)[owner]

    fractions = np.array([raw_image.fractions for raw_image in raw_images], dtype=np.bool_)[owner]
    corners *= np.tile(scale, 2)
    tiny = ~fractions & within_first_pixel(corners, limit)
    check_form(raw_split, corners, limit, tiny)
    boxes, kept, defect_rows = _repair(corners, limit, tiny)
    defect_rows["exact copy of another object; kept"] = kept & _copies(owner, labels, crowd, boxes)
    starts = np.cumsum([0, *counts])
    defects = [
        Defect(f"{raw_images[at].name}: {raw_images[at].records[row - starts[at]]}", what)
        for what, rows in defect_rows.items()
        for row, at in zip(np.flatnonzero(rows), owner[rows], strict=True)
    ]
    images = PackedImages(
        files=Texts.of([str(one.file) for one in raw_images]),
        names=Texts.of([str(one.id) for one in raw_images]),
        numbered=np.array([isinstance(one.id, int) for one in raw_images], np.bool_),
        sizes=np.array([(frame.height, frame.width) for frame in frames], np.int32).reshape(-1, 2),
        upright=np.array([frame.upright for frame in frames], np.bool_),
        deep=np.array([header.deep for _, header in opened], np.bool_),
        ends=np.cumsum(np.bincount(owner[kept], minlength=len(raw_images)), dtype=np.int64),
        boxes=boxes[kept],
        labels=labels[kept],
        crowd=crowd[kept],
    )
    return images, defects, _suspicion(defect_rows, len(corners))


_OUTSIDE = "box outside the image; dropped"
_CUT = "box reached outside the image; cut at the border"


def _repair(
    corners: Float64[np.ndarray, "n 4"], limit: Float64[np.ndarray, "n 2"], tiny: Bool[np.ndarray, " n"]
) -> tuple[Float32[np.ndarray, "n 4"], Bool[np.ndarray, " n"], dict[str, Bool[np.ndarray, " n"]]]:
    """Clip boxes to ``limit`` (width, height); return them, which of them to keep, and the rows of each defect.

    ``tiny`` are boxes that seem to be fractions instead of pixels.
    """
    finite = np.isfinite(corners).all(axis=1)
    corners = np.where(finite[:, None], corners, 0.0)
    low, high = np.minimum(corners[:, :2], corners[:, 2:]), np.maximum(corners[:, :2], corners[:, 2:])
    boxes = np.concatenate([low.clip(0, limit), high.clip(0, limit)], axis=1)
    with np.errstate(over="ignore"):  # the width of a box with extreme coordinates overflows to infinity
        thin = finite & ~tiny & ((high - low) < _HALF_PIXEL).any(axis=1)
    kept = finite & ~tiny & (boxes[:, 2:] - boxes[:, :2] >= _HALF_PIXEL).all(axis=1)
    overhangs = (low < -_HALF_PIXEL).any(axis=1) | (high > limit + _HALF_PIXEL).any(axis=1)
    return (
        boxes.astype(np.float32),
        kept,
        {
            "coordinates that are no finite numbers; dropped": ~finite,
            "box between 0 and 1, perhaps in fractions of the image instead of pixels; dropped": tiny,
            "box with a side under half a pixel; dropped": thin,
            _OUTSIDE: finite & ~thin & ~tiny & ~kept,
            _CUT: kept & overhangs,
            "corners in the wrong order; swapped": kept & (corners[:, :2] > corners[:, 2:]).any(axis=1),
        },
    )


def _copies(owner: np.ndarray, labels: np.ndarray, crowd: np.ndarray, boxes: np.ndarray) -> Bool[np.ndarray, " n"]:
    """The rows that are equal to an earlier one."""
    columns = (owner, labels, crowd, *boxes.T)
    order = np.lexsort(columns)  # stable: of equal rows the first comes first
    again = np.ones(max(0, len(order) - 1), dtype=np.bool_)
    for column in columns:
        values = column[order]
        again &= values[1:] == values[:-1]
    copies = np.zeros(len(owner), dtype=np.bool_)
    copies[order[1:][again]] = True
    return copies


def _suspicion(defect_rows: dict[str, Bool[np.ndarray, " n"]], total: int) -> tuple[str, ...]:
    leaving = int((defect_rows[_OUTSIDE] | defect_rows[_CUT]).sum())
    if leaving <= _SUSPICIOUS_SHARE * total:
        return ()
    return (f"{leaving} of {total} boxes leave their image: are they in the right format, for this image size?",)
