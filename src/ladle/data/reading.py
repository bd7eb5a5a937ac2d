"""Read a data set: detect its format, find its splits, and return one of them checked and repaired."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

from ladle.data import coco, voc, yolo
from ladle.data.catalogue import Catalogue
from ladle.data.drafts import Sheet
from ladle.data.repairs import OnDefect, settle
from ladle.errors import UserError

__all__ = ["Format", "detect_format", "meant", "read", "splits"]

Format = Literal["coco", "yolo", "voc"]

_STAND_INS = ("valid", "validation", "test")
_ORDER = ("train", "val", *_STAND_INS)
_SUFFIXES: dict[str, Format] = {".json": "coco", ".yaml": "yolo", ".yml": "yolo"}
_LAYOUTS = (
    "COCO (annotations/instances_train.json), YOLO (data.yaml) or Pascal VOC (Annotations, JPEGImages, ImageSets/Main)"
)

_Readers = dict[str, Callable[[], Sheet]]
_OFFERS: dict[Format, Callable[[Path], _Readers]] = {"coco": coco.offers, "yolo": yolo.offers, "voc": voc.offers}


def read(
    data: Path | str, split: str = "train", on_defect: OnDefect = "repair", decode: bool | None = None
) -> Catalogue:
    """Read one split of a COCO, YOLO or Pascal VOC data set, given as its folder, its COCO JSON or its YOLO YAML.

    ``repair`` mends what can be mended, records it in ``Catalogue.defects``, and raises UserError naming every picture
    that cannot be used; ``skip`` leaves such pictures out and records them; ``raise`` refuses any defect. ``decode``
    decodes every picture to find damaged ones, which is slow; by default only ``skip`` does. Otherwise a damaged
    picture raises UserError when it is loaded. A ``val`` that is missing is looked for as ``valid``, ``validation`` and
    ``test``; a year after the name (``train2017``) may be left out; a JSON file is one split, whatever is asked.
    """
    source = Path(data)
    offered = _offers(source)
    name, note = _choose(source, split, offered)
    sheet = offered[name]()
    notes = (note, *sheet.notes) if note else sheet.notes
    return settle(replace(sheet, notes=notes), on_defect, on_defect == "skip" if decode is None else decode)


def splits(data: Path | str) -> tuple[str, ...]:
    """The splits a data set offers, by their own names, training first."""
    return tuple(_offers(Path(data)))


def meant(data: Path | str, split: str) -> tuple[str, str]:
    """The own name of the split that is read as ``split``, and a remark where that is another one, else "".

    Raises UserError where there is none.
    """
    source = Path(data)
    return _choose(source, split, _offers(source))


def detect_format(data: Path | str) -> Format:
    """Which of the three formats a folder or file holds; raises UserError for none, and for a folder with several."""
    source = Path(data)
    if not source.exists():
        raise UserError(f"{source}: expected a data set, found nothing there: correct --data")
    if source.is_file():
        if source.suffix.lower() not in _SUFFIXES:
            raise UserError(f"{source}: expected a folder, a COCO .json or a YOLO .yaml, found another kind of file")
        return _SUFFIXES[source.suffix.lower()]
    found = [kind for kind, offers in _OFFERS.items() if offers(source)]
    if not found:
        raise UserError(
            f"{source}: expected {_LAYOUTS}, found none of them: give the folder that holds one, or the .json"
        )
    if len(found) > 1:
        raise UserError(
            f"{source}: expected one format, found {' and '.join(found)}: give the .json or .yaml file itself"
        )
    return found[0]


def _offers(source: Path) -> _Readers:
    offered = _OFFERS[detect_format(source)](source)
    if not offered:
        raise UserError(f"{source}: expected at least one split, found none: name one with the key 'train'")
    known = [name for name in offered if name in _ORDER]
    return {name: offered[name] for name in [*sorted(known, key=_ORDER.index), *(n for n in offered if n not in known)]}


def _choose(source: Path, split: str, offered: _Readers) -> tuple[str, str]:
    if source.suffix.lower() == ".json":
        (name,) = offered
        return name, "" if name == split else f"{source.name} is one split by itself and is read as {split!r}"
    for wanted in (split, *_STAND_INS) if split == "val" else (split,):
        matches = [wanted] if wanted in offered else [name for name in offered if name.rstrip("0123456789") == wanted]
        if len(matches) > 1:
            raise UserError(f"{source}: expected one split {wanted!r}, found {', '.join(matches)}: name one of them")
        if matches:
            note = "" if wanted == split else f"there is no split 'val'; {matches[0]!r} stands in for it"
            return matches[0], note
    raise UserError(f"{source}: expected a split {split!r}, found {', '.join(offered)}: name one of these")
