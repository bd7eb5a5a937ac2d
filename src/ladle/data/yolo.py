"""YOLO annotations: a ``data.yaml`` that names the classes and splits, and one text file for each picture.

A row is ``class cx cy width height`` in fractions of the picture. A sixth number is a confidence and is ignored; a row
of three or more points is a polygon and is replaced by its bounding box. The label file lies where the picture lies,
with the last folder called ``images`` replaced by ``labels`` and the suffix by ``.txt``; a picture without one is
background.
Category ids are the class numbers, picture ids the paths inside the split's folder.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from ladle.data.catalogue import Defect
from ladle.data.drafts import Draft, Sheet, read_text
from ladle.data.pictures import SUFFIXES, locate
from ladle.errors import UserError

__all__ = ["offers", "read_yolo"]

_SPLITS = ("train", "val", "test")
_YAML = (".yaml", ".yml")
_BOX_FIELDS = 5
_POLYGON_FIELDS = 7
_MOST_FRACTION = 2.0
"""No box that is worth clipping has a centre or a side beyond this; larger numbers are pixels."""


def offers(data: Path) -> dict[str, Callable[[], Sheet]]:
    """The splits of a YOLO folder or YAML file, each with the function that reads it."""
    file = data if data.is_file() else _find_yaml(data)
    if file is None:
        return {}
    document = _parse(file)
    return {split: partial(read_yolo, file, split) for split in _SPLITS if document.get(split)}


def _find_yaml(folder: Path) -> Path | None:
    named = [folder / f"data{suffix}" for suffix in _YAML if (folder / f"data{suffix}").is_file()]
    listing = [file for file in sorted(folder.glob("*.y*ml")) if file.suffix in _YAML]
    found = named or [file for file in listing if "names:" in file.read_text(encoding="utf-8-sig", errors="replace")]
    if len(found) > 1:
        names = ", ".join(file.name for file in found)
        raise UserError(f"{folder}: expected one YOLO file, found {names}: give the right one itself")
    return found[0] if found else None


def read_yolo(file: Path, split: str) -> Sheet:
    """Read one split of a YOLO YAML file; a label file that breaks the format makes its picture unusable."""
    document = _parse(file)
    defects: list[Defect] = []
    classes = _classes(document, file, defects)
    drafts: list[Draft] = []
    entries = document[split] if isinstance(document[split], list) else [document[split]]
    places = [_place(str(entry), split, document, file) for entry in entries]
    for place in places:
        drafts += _from_folder(place, defects) if place.is_dir() else _from_list(place, file)
    bare = sum(not _label_file(draft.file).is_file() for draft in drafts if not draft.faults)
    for draft in drafts:
        _fill(draft, len(classes), file.parent, defects)
    notes = (f"{bare} of {len(drafts)} pictures have no label file and count as background",) if bare else ()
    return Sheet(drafts, classes, tuple(range(len(classes))), defects, places[0] if len(places) == 1 else file, notes)


def _parse(file: Path) -> dict[str, Any]:
    try:
        document = yaml.safe_load(file.read_bytes().decode("utf-8-sig"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{file}: expected a YOLO data file, found YAML that cannot be read ({reason})") from error
    if not isinstance(document, dict) or "names" not in document:
        raise UserError(f"{file}: expected a YOLO data file with the keys 'names' and 'train', found no 'names'")
    return document


def _classes(document: dict[str, Any], file: Path, defects: list[Defect]) -> tuple[str, ...]:
    names, count = document["names"], document.get("nc")
    if isinstance(names, dict):
        if set(names) != set(range(len(names))):
            raise UserError(f"{file}: expected 'names' to number the classes from 0 without a gap, found {list(names)}")
        names = [names[number] for number in range(len(names))]
    if not isinstance(names, list) or not names:
        raise UserError(f"{file}: expected class names under 'names', found {names!r}")
    if count is not None and count != len(names):
        defects.append(Defect(file.name, f"nc is {count}, but there are {len(names)} names; the names count"))
    for name, times in Counter(map(str, names)).items():
        if times > 1:
            defects.append(Defect(f"{file.name}: class {name!r}", "name of several classes; kept apart", times))
    return tuple(map(str, names))


def _place(entry: str, split: str, document: dict[str, Any], file: Path) -> Path:
    """The folder or list a split names: under ``path``, beside the YAML, or there after a stray ``../``."""
    bases = [file.parent / str(document.get("path") or "."), file.parent]
    options = [base / entry for base in bases] + [file.parent / entry.removeprefix("../")]
    found = next((option for option in options if option.exists()), None)
    if found is None:
        raise UserError(
            f"{file}: expected pictures for {split!r} at {options[0]}, found nothing: correct 'path' and {split!r}"
        )
    return found


def _from_folder(folder: Path, defects: list[Defect]) -> list[Draft]:
    files = [f for f in sorted(folder.rglob("*")) if f.suffix.lower() in SUFFIXES and not f.name.startswith(".")]
    labels = _label_file(folder / "any").parent
    if not labels.is_dir():
        raise UserError(f"{folder}: expected its label files in {labels}, found no such folder")
    paired = {_label_file(file) for file in files}
    orphans = [file for file in sorted(labels.rglob("*.txt")) if file not in paired] if labels != folder else []
    defects += [
        Defect(f"{labels.name}/{f.relative_to(labels)}", "label file without a picture; ignored") for f in orphans
    ]
    return [Draft(name, name, file) for file in files for name in [file.relative_to(folder).as_posix()]]


def _from_list(listing: Path, file: Path) -> list[Draft]:
    names = filter(None, map(str.strip, read_text(listing).splitlines()))
    return [_listed(name, listing, file) for name in names]


def _listed(name: str, listing: Path, file: Path) -> Draft:
    draft = Draft(name.removeprefix("./"), name, listing.parent / name)
    try:
        draft.file = locate(listing.parent, name)
    except UserError as error:
        try:
            draft.file = locate(file.parent, name)
        except UserError:
            draft.faults.append(Defect(name, str(error).removeprefix(f"{name}: "), fatal=True))
    return draft


def _label_file(picture: Path) -> Path:
    parts = list(picture.parts)
    for place in range(len(parts) - 2, -1, -1):
        if parts[place] == "images":
            parts[place] = "labels"
            break
    return Path(*parts).with_suffix(".txt")


def _fill(draft: Draft, classes: int, base: Path, defects: list[Defect]) -> None:
    file = _label_file(draft.file)
    draft.fractions = True
    if draft.faults or not file.is_file():
        return
    draft.name = file.relative_to(base).as_posix() if file.is_relative_to(base) else str(file)
    for number, line in enumerate(read_text(file).splitlines(), start=1):
        if not line.strip():
            continue
        record = f"line {number}"
        try:
            label, corners, complaint = _row(line.split(), classes)
        except UserError as error:
            draft.faults.append(Defect(f"{draft.name}: {record}", str(error), fatal=True))
            continue
        draft.add(record, corners, label)
        if complaint:
            defects.append(Defect(f"{draft.name}: {record}", complaint))


def _row(words: list[str], classes: int) -> tuple[int, tuple[float, float, float, float], str | None]:
    """Class, corners in fractions, and what is odd about one row."""
    try:
        label, *values = map(float, words)
    except ValueError as error:
        raise UserError(f"expected numbers separated by blanks, found {' '.join(words)!r}") from error
    if label not in range(classes):
        raise UserError(f"expected a class from 0 to {classes - 1}, found {words[0]}")
    if any(abs(value) > _MOST_FRACTION for value in values if math.isfinite(value)):
        raise UserError(
            f"expected fractions of the picture between 0 and 1, found {' '.join(words)!r}: are these pixels?"
        )
    complaint = None if words[0].isdecimal() else "class is no whole number; read as one"
    if len(words) >= _POLYGON_FIELDS and len(words) % 2:
        across, down = values[0::2], values[1::2]
        return int(label), (min(across), min(down), max(across), max(down)), "polygon; its bounding box is used"
    if len(words) not in (_BOX_FIELDS, _BOX_FIELDS + 1):
        raise UserError(f"expected class, x, y, width and height, found {len(words)} fields")
    x, y, width, height = values[:4]
    complaint = complaint if len(words) == _BOX_FIELDS else "sixth number (a confidence); ignored"
    return int(label), (x - width / 2, y - height / 2, x + width / 2, y + height / 2), complaint
