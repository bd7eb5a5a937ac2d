"""Read a data set: detect its format, find its splits, and return one split, checked and repaired."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal, NamedTuple

from ladle.data import coco, voc, yolo
from ladle.data.dataset import DetectionDataset
from ladle.data.folders import is_companion
from ladle.data.raw_images import RawSplit
from ladle.data.repairs import OnDefect, Progress, check_and_repair, silent
from ladle.data.yolo_layouts import find_description
from ladle.errors import UserError

__all__ = ["Format", "detect_format", "meant", "read", "splits"]

Format = Literal["coco", "yolo", "voc"]

_STAND_INS = {"train": ("training",), "val": ("valid", "validation", "test")}
_ORDER = ("train", "training", "val", "valid", "validation", "test")
_SUFFIXES: dict[str, Format] = {".json": "coco", ".yaml": "yolo", ".yml": "yolo", ".data": "yolo"}
_LAYOUTS = (
    "COCO (annotations/instances_train.json), YOLO (data.yaml) or Pascal VOC (Annotations, JPEGImages, ImageSets/Main)"
)
_DEEPEST = 2
_MOST_FOLDERS = 1000
_SHOWN = 10

_Readers = dict[str, Callable[[], RawSplit]]
_SPLIT_FINDERS: dict[Format, Callable[[Path], _Readers]] = {
    "coco": coco.find_splits,
    "yolo": yolo.find_splits,
    "voc": voc.find_splits,
}


class _Found(NamedTuple):
    """A data set: its place, its format, and a reader for each split."""

    place: Path
    format: Format
    readers: _Readers


def read(
    data: Path | str,
    split: str = "train",
    on_defect: OnDefect = "repair",
    decode: bool | None = None,
    progress: Progress = silent,
) -> DetectionDataset:
    """Read one split of a COCO, YOLO or Pascal VOC data set.

    Args:
        data: a folder, a COCO JSON file or a YOLO YAML file.
        split: the name of the split. If there is no ``val``, ``valid``, ``validation`` or ``test`` is read instead. A
            year in the name (``train2017``) may be omitted. A JSON file is a single split and is read for any name.
        on_defect: ``repair`` repairs defects, records them in ``DetectionDataset.defects``, and raises an error for
            images that cannot be used; ``skip`` leaves such images out and records them; ``raise`` raises an error for
            any defect.
        decode: whether every image is decoded to find damaged ones, which is slow; by default only with ``skip``.
            Without it a damaged image raises an error when it is loaded.
        progress: called for every image with what is done, the number of images so far, and that of all images.

    Raises:
        UserError: if there is no such split, and for defects as stated above.
    """
    source, found = Path(data), _find(data)
    name, note = _choose(found, split)
    raw_split = found.readers[name]()
    notes = [note] if note else []
    if found.place != source:
        notes.append(f"the data set was found in {found.place}")
    return check_and_repair(
        replace(raw_split, notes=(*notes, *raw_split.notes)),
        on_defect,
        on_defect == "skip" if decode is None else decode,
        progress,
    )


def splits(data: Path | str) -> tuple[str, ...]:
    """The names of the splits of a data set, the training split first."""
    return tuple(_find(data).readers)


def meant(data: Path | str, split: str) -> tuple[str, str]:
    """The name of the split that is read as ``split``, and a note if it is another name, else "".

    Raises:
        UserError: if there is no such split.
    """
    return _choose(_find(data), split)


def detect_format(data: Path | str) -> Format:
    """The format of a folder or file; raises UserError if it has none of the three formats or several."""
    return _find(data).format


def _find(data: Path | str) -> _Found:
    """The data set in a folder or file, or the only one in the folders below it."""
    if data == "":
        raise UserError("--data is empty: expected a folder or a file, or . for the folder that you are in")
    source = Path(data)
    if not source.exists():
        raise UserError(f"{source}: expected a data set, found nothing there: correct --data")
    if source.is_file():
        return _of_file(source)
    found = _in_folder(source)
    if found:
        return found
    below = _below(source, _DEEPEST)
    if len(below) > 1:
        places = ", ".join(one.place.relative_to(source).as_posix() for one in below[:_SHOWN])
        raise UserError(f"{source}: expected one data set, found several below it ({places}): give one of them")
    if not below:
        raise UserError(
            f"{source}: expected {_LAYOUTS}, found none of them{_hint(source)}: "
            "give the folder that holds one, or the .json"
        )
    return below[0]


def _of_file(source: Path) -> _Found:
    if source.suffix.lower() not in _SUFFIXES:
        raise UserError(f"{source}: expected a folder, a COCO .json or a YOLO .yaml, found another kind of file")
    kind = _SUFFIXES[source.suffix.lower()]
    readers = _SPLIT_FINDERS[kind](source)
    if not readers:
        raise UserError(f"{source}: expected at least one split, found none: name one with the key 'train'")
    return _Found(source, kind, _ordered(readers))


def _in_folder(folder: Path) -> _Found | None:
    found = [
        _Found(folder, kind, _ordered(readers))
        for kind, find_splits in _SPLIT_FINDERS.items()
        if (readers := find_splits(folder))
    ]
    if len(found) > 1:
        kinds = " and ".join(one.format for one in found)
        raise UserError(f"{folder}: expected one format, found {kinds}: give the .json or .yaml file itself")
    return found[0] if found else None


def _ordered(readers: _Readers) -> _Readers:
    known = [name for name in readers if name in _ORDER]
    return {name: readers[name] for name in [*sorted(known, key=_ORDER.index), *(n for n in readers if n not in known)]}


def _below(source: Path, depth: int) -> list[_Found]:
    """The data sets in the folders below; the folders inside a data set are not searched."""
    folders = [path for path in sorted(source.glob("*")) if path.is_dir() and not path.name.startswith(".")]
    folders = [path for path in folders if not is_companion(path.name)]
    found: list[_Found] = []
    for folder in folders if len(folders) <= _MOST_FOLDERS else []:
        one = _in_folder(folder)
        found += [one] if one is not None else _below(folder, depth - 1) if depth > 1 else []
    return found


def _hint(source: Path) -> str:
    described = find_description(source)
    if described is not None:
        return f" ({described.name} names no split: give it the key 'train' with a folder of images)"
    if any(source.glob("labels/**/*.txt")):
        return " (labels/*.txt looks like YOLO: name its classes in a data.yaml or in classes.txt)"
    return ""


def _choose(found: _Found, split: str) -> tuple[str, str]:
    source, readers = found.place, found.readers
    if source.suffix.lower() == ".json":
        (name,) = readers
        note = f"{source.name} is one split by itself and is read as {split!r}, as it is for any other split"
        return name, "" if name == split else note
    for alias in (split, *_STAND_INS.get(split, ())):
        matches = [alias] if alias in readers else [name for name in readers if name.rstrip("0123456789") == alias]
        if len(matches) > 1:
            raise UserError(f"{source}: expected one split {alias!r}, found {', '.join(matches)}: name one of them")
        if matches:
            note = "" if alias == split else f"there is no split {split!r}; {matches[0]!r} stands in for it"
            return matches[0], note
    only = next(iter(readers))
    if split == "train" and len(readers) == 1 and only.rstrip("0123456789") not in _ORDER:
        return only, f"{only!r} is the only split and is read as 'train'"
    listed = ", ".join(list(readers)[:_SHOWN]) + (", …" if len(readers) > _SHOWN else "")
    raise UserError(f"{source}: expected a split {split!r}, found {listed}: {_advice(found, split)}")


def _advice(found: _Found, split: str) -> str:
    advice: dict[Format, str] = {
        "coco": f"put some images into a file of their own, such as annotations/instances_{split}.json",
        "yolo": f"put some images into a folder or list of their own, and name it under {split!r} in data.yaml",
        "voc": f"name some images in a list of their own, ImageSets/Main/{split}.txt",
    }
    return advice[found.format] if len(found.readers) == 1 else "name one of these"
