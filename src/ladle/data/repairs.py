"""From what an annotation file claims to what can be trained on: measure the pictures, mend the boxes, record it all.

The readers of COCO, YOLO and VOC hand over drafts; here every draft is held against its picture file. The repairs:

* Picture sizes come from the files. Where the annotations claim another size, the boxes of all such pictures are taken
  to be in the smaller of the two frames that holds them, and scaled to the file.
* Annotations in the stored frame of a picture that EXIF turns on its side stay there (``Picture.upright`` is False).
* Corners in the wrong order are swapped; boxes are cut at the border of their picture.
* Boxes that are not finite, lie outside, have a side under half a pixel, or lie within the first pixel are dropped.
* An entry without objects whose file is listed elsewhere is left out; exact copies of an object are kept and reported.

An overhang under half a pixel is rounding and is cut without a word.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NoReturn

import numpy as np
from jaxtyping import Bool, Float32, Float64

from ladle.data.catalogue import Catalogue, Defect, Picture
from ladle.data.decoding import bounded
from ladle.data.drafts import Draft, Sheet
from ladle.data.forms import check_form, within_first_pixel
from ladle.data.pictures import Header, load_picture, read_header
from ladle.errors import UserError

__all__ = ["OnDefect", "settle"]

OnDefect = Literal["repair", "skip", "raise"]
"""Mend what can be mended and refuse the rest; also leave unusable pictures out; or refuse any defect at all."""

_HALF_PIXEL = 0.5
_SUSPICIOUS_SHARE = 0.1
_NAMED = 50


@dataclass(frozen=True)
class _Frame:
    """The size boxes are clipped to, the factors (x, y) that bring them there, and the way up of the picture."""

    height: int
    width: int
    scale: tuple[float, float] = (1.0, 1.0)
    upright: bool = True


_Sighted = tuple[Draft, Header]


def settle(sheet: Sheet, on_defect: OnDefect, decode: bool) -> Catalogue:
    """Hold every draft against its picture and return what can be trained on; ``decode`` also looks for damaged pixels.

    Raises UserError naming every unusable picture unless ``on_defect`` is ``skip``, naming every defect if it is
    ``raise``, and when no picture is left.
    """
    sighted, fatal = _open(sheet.drafts, decode)
    if fatal and on_defect != "skip":
        _refuse(sheet.source, fatal, "mend them, or leave these pictures out with --on-defect skip")
    if not sighted:
        _refuse(sheet.source, [*sheet.defects, *fatal], "give it at least one usable image")
    sighted, repeated = _once(sighted)
    frames, contradictions = _frames(sighted)
    pictures, repairs, notes = _pictures([draft for draft, _ in sighted], frames, sheet)
    pictures = tuple(replace(one, deep=header.deep) for one, (_, header) in zip(pictures, sighted, strict=True))
    defects = [*sheet.defects, *fatal, *repeated, *contradictions, *repairs]
    if defects and on_defect == "raise":
        _refuse(sheet.source, defects, "mend them, or have them repaired with --on-defect repair")
    return Catalogue(pictures, sheet.classes, sheet.category_ids, tuple(defects), sheet.source, (*sheet.notes, *notes))


def _refuse(source: Path, defects: Sequence[Defect], mend: str) -> NoReturn:
    """Raise the UserError that names the defects (the first fifty of many) and says what mends them."""
    named = "; ".join(str(defect) for defect in defects[:_NAMED])
    more = f"; and {len(defects) - _NAMED} more" if len(defects) > _NAMED else ""
    raise UserError(f"{source}: expected sound data, found {f'{named}{more}' or 'no images at all'} - {mend}")


def _open(drafts: Sequence[Draft], decode: bool) -> tuple[list[_Sighted], list[Defect]]:
    sighted = []
    for draft in drafts:
        if draft.faults:
            continue
        try:
            sighted.append((draft, read_header(draft.file)))
        except UserError as error:
            draft.faults.append(_fault(draft, error))
    if decode:
        whole = bounded(lambda place: _is_whole(sighted[place][0]), [header.displayed for _, header in sighted])
        sighted = [pair for pair, sound in zip(sighted, whole, strict=True) if sound]
    return sighted, [fault for draft in drafts for fault in draft.faults]


def _is_whole(draft: Draft) -> bool:
    """Whether the picture can be decoded; if not, the draft has a fault more."""
    try:
        load_picture(draft.file)
    except UserError as error:
        draft.faults.append(_fault(draft, error))
        return False
    return True


def _fault(draft: Draft, error: UserError) -> Defect:
    """A fault of the image file, which many a draft is not called by: its annotations have a file of their own."""
    name = draft.name if draft.name.endswith(draft.file.name) else str(draft.file)
    return Defect(name, str(error).removeprefix(f"{draft.file}: "), fatal=True)


def _once(sighted: Sequence[_Sighted]) -> tuple[list[_Sighted], list[Defect]]:
    """Leave out repeated entries that teach "no object here" about a picture which has some."""
    first: dict[Path, Draft] = {}
    for draft, _ in sighted:
        known = first.setdefault(draft.file, draft)
        if draft.corners and not known.corners:
            first[draft.file] = draft
    again = [draft for draft, _ in sighted if first[draft.file] is not draft]
    kept = [pair for pair in sighted if first[pair[0].file] is pair[0] or pair[0].corners]
    act = {
        True: "file listed more than once; all entries were kept",
        False: "file listed again without objects; left out",
    }
    return kept, [Defect(f"{draft.name}: image {draft.id}", act[bool(draft.corners)]) for draft in again]


def _frames(sighted: Sequence[_Sighted]) -> tuple[list[_Frame], list[Defect]]:
    trusted = _trusts_stated(sighted)
    frames, defects = [], []
    for draft, header in sighted:
        height, width = header.displayed
        frame = _Frame(height, width, (float(width), float(height)) if draft.fractions else (1.0, 1.0))
        if _in_stored_frame(draft, header):
            frame = _Frame(header.height, header.width, upright=False)
            defects.append(Defect(draft.name, "annotated in its stored frame; its EXIF rotation is not applied"))
        elif draft.stated is not None and draft.stated != header.displayed:
            factors = (width / draft.stated[1], height / draft.stated[0])
            frame = _Frame(height, width, factors) if trusted else frame
            claim = f"{draft.stated[1]}x{draft.stated[0]}"
            act = "its boxes were scaled to the file" if trusted else "its boxes were taken to fit the file"
            defects.append(
                Defect(f"{draft.name} (stated {claim}, is {width}x{height})", f"stated size is wrong; {act}")
            )
        frames.append(frame)
    return frames, defects


def _in_stored_frame(draft: Draft, header: Header) -> bool:
    return header.displayed != draft.stated == (header.height, header.width)


def _trusts_stated(sighted: Sequence[_Sighted]) -> bool:
    """Whether boxes of pictures with a wrong size are in the stated frames: the smaller that holds them all wins."""
    stated, actual, fits = 0.0, 0.0, np.array([True, True])
    for draft, header in sighted:
        if draft.stated in (None, header.displayed, (header.height, header.width)) or not draft.corners:
            continue
        sizes = np.array([draft.stated, header.displayed], dtype=np.float64)
        stated, actual = stated + sizes[0].prod(), actual + sizes[1].prod()
        reach = np.nan_to_num(np.array(draft.corners)[:, 2:].max(axis=0)[::-1], nan=0.0)
        fits &= (reach <= sizes + _HALF_PIXEL).all(axis=1)
    return bool(fits[0] and (stated < actual or not fits[1]))


def _pictures(
    drafts: Sequence[Draft], frames: Sequence[_Frame], sheet: Sheet
) -> tuple[tuple[Picture, ...], list[Defect], tuple[str, ...]]:
    """Mend the boxes of all pictures at once."""
    counts = [len(draft.corners) for draft in drafts]
    owner = np.repeat(np.arange(len(drafts)), counts)
    corners = np.array([box for draft in drafts for box in draft.corners], dtype=np.float64).reshape(-1, 4)
    labels = np.array([label for draft in drafts for label in draft.labels], dtype=np.int64)
    crowd = np.array([flag for draft in drafts for flag in draft.crowd], dtype=np.bool_)
    places = [f"{draft.name}: {record}" for draft in drafts for record in draft.records]
    scale = np.array([frame.scale for frame in frames], dtype=np.float64).reshape(-1, 2)[owner]
    limit = np.array([(frame.width, frame.height) for frame in frames], dtype=np.float64).reshape(-1, 2)[owner]

    fractions = np.array([draft.fractions for draft in drafts], dtype=np.bool_)[owner]
    corners *= np.tile(scale, 2)
    tiny = ~fractions & within_first_pixel(corners, limit)
    check_form(sheet, corners, limit, tiny)
    boxes, kept, verdicts = _mend(corners, limit, tiny)
    verdicts["exact copy of another object; kept"] = kept & _copies(owner, labels, crowd, boxes)
    defects = [Defect(places[row], what) for what, rows in verdicts.items() for row in np.flatnonzero(rows)]
    ends = np.cumsum(np.bincount(owner[kept], minlength=len(drafts)))[:-1]
    parts = [np.split(values[kept], ends) for values in (boxes, labels, crowd)]
    pictures = tuple(
        Picture(draft.id, draft.file, frame.height, frame.width, shapes, names, ignored, frame.upright)
        for draft, frame, shapes, names, ignored in zip(drafts, frames, *parts, strict=True)
    )
    return pictures, defects, _suspicion(verdicts, len(corners))


_OUTSIDE = "box outside the picture; dropped"
_CUT = "box reached outside the picture; cut at the border"


def _mend(
    corners: Float64[np.ndarray, "n 4"], limit: Float64[np.ndarray, "n 2"], tiny: Bool[np.ndarray, " n"]
) -> tuple[Float32[np.ndarray, "n 4"], Bool[np.ndarray, " n"], dict[str, Bool[np.ndarray, " n"]]]:
    """Clip boxes to ``limit`` (width, height); return them, which of them to keep, and which rows had what defect.

    ``tiny`` are those that look like fractions where pixels belong.
    """
    finite = np.isfinite(corners).all(axis=1)
    corners = np.where(finite[:, None], corners, 0.0)
    low, high = np.minimum(corners[:, :2], corners[:, 2:]), np.maximum(corners[:, :2], corners[:, 2:])
    boxes = np.concatenate([low.clip(0, limit), high.clip(0, limit)], axis=1)
    with np.errstate(over="ignore"):  # the width of a box from one end of the numbers to the other is infinite
        thin = finite & ~tiny & ((high - low) < _HALF_PIXEL).any(axis=1)
    kept = finite & ~tiny & (boxes[:, 2:] - boxes[:, :2] >= _HALF_PIXEL).all(axis=1)
    overhangs = (low < -_HALF_PIXEL).any(axis=1) | (high > limit + _HALF_PIXEL).any(axis=1)
    return (
        boxes.astype(np.float32),
        kept,
        {
            "coordinates that are no finite numbers; dropped": ~finite,
            "box between 0 and 1, perhaps in fractions of the picture instead of pixels; dropped": tiny,
            "box with a side under half a pixel; dropped": thin,
            _OUTSIDE: finite & ~thin & ~tiny & ~kept,
            _CUT: kept & overhangs,
            "corners in the wrong order; swapped": kept & (corners[:, :2] > corners[:, 2:]).any(axis=1),
        },
    )


def _copies(*columns: np.ndarray) -> Bool[np.ndarray, " n"]:
    rows = np.column_stack(columns)
    _, first = np.unique(rows, axis=0, return_index=True)
    copies = np.ones(len(rows), dtype=np.bool_)
    copies[first] = False
    return copies


def _suspicion(verdicts: dict[str, Bool[np.ndarray, " n"]], total: int) -> tuple[str, ...]:
    leaving = int((verdicts[_OUTSIDE] | verdicts[_CUT]).sum())
    if leaving <= _SUSPICIOUS_SHARE * total:
        return ()
    return (f"{leaving} of {total} boxes leave their picture: are they in the right format, for this picture size?",)
