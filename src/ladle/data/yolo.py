"""YOLO annotations: a file that names the classes and splits, and one text file of rows for each picture.

A row is ``class cx cy width height`` in fractions of the picture. A sixth number between 0 and 1 is a confidence and is
ignored; a row of three or more points is a polygon and is replaced by its bounding box; where ``kpt_shape`` is given
the key points behind a box are ignored. A picture without a label file is background.
Category ids are the class numbers, picture ids the paths inside the split's folder; where two folders of a split would
share one, those inside the data set.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from ladle.data.catalogue import Defect
from ladle.data.documents import read_text
from ladle.data.drafts import Draft, Sheet
from ladle.data.finding import find_root
from ladle.data.folders import is_companion, list_folder, pictures_of
from ladle.data.yolo_labels import label_folder, label_of
from ladle.data.yolo_layouts import CLASS_LISTS, Description, describe, find_description
from ladle.data.yolo_rows import read_row
from ladle.errors import UserError

__all__ = ["offers", "read_yolo"]


@dataclass
class _Split:
    """What is gathered about one split while it is read."""

    about: Description
    defects: list[Defect] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    labels: dict[Path, list[str]] = field(default_factory=dict)
    sixths: list[tuple[Draft, str, float]] = field(default_factory=list)


def offers(data: Path) -> dict[str, Callable[[], Sheet]]:
    """The splits of a YOLO folder or of the file that describes it, each with the function that reads it."""
    file = find_description(data)
    return {split: partial(read_yolo, file, split) for split in describe(file).splits} if file is not None else {}


def read_yolo(file: Path, split: str) -> Sheet:
    """Read one split of a YOLO data set; a label file that breaks the format makes its picture unusable."""
    about = describe(file)
    state = _Split(about, list(about.defects), list(about.notes))
    places = [_place(entry, split, about) for entry in about.splits[split]]
    state.notes += _overlaps(places, split, about)
    drafts = _once([draft for place in places for draft in _drafts(place, state)], state)
    for draft in drafts:
        _fill(draft, state)
    _judge_sixths(state)
    _note_missing(drafts, places, state)
    source = places[0] if len(places) == 1 else file
    ids = tuple(range(len(about.classes)))
    return Sheet(drafts, about.classes, ids, state.defects, source, tuple(state.notes), form="center and size")


def _place(entry: str, split: str, about: Description) -> Path:
    """The folder or list a split names: under ``path``, beside the file, or there after a stray ``../``."""
    beside = about.file.parent
    names = dict.fromkeys((entry, entry.replace("\\", "/")))
    options = [base / name for name in names for base in (about.base, beside)]
    options += [beside / name.removeprefix("../") for name in names]
    parts = Path(entry.replace("\\", "/")).parts
    if about.file.suffix == ".data":  # Darknet's paths are relative to a folder above
        options += [beside.joinpath(*parts[start:]) for start in range(1, len(parts)) if ".." not in parts[start:]]
    found = next((option for option in options if _exists(option)), None)
    if found is None:
        raise UserError(
            f"{about.file}: expected pictures for {split!r} at {options[0]}, found nothing: "
            f"correct 'path' and {split!r}"
        )
    return found


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def _overlaps(places: Sequence[Path], split: str, about: Description) -> Iterator[str]:
    """Say which other splits lie in the same folders or lists."""
    mine = [os.path.realpath(place) for place in places]
    for other in about.splits:
        try:
            theirs = [os.path.realpath(_place(entry, other, about)) for entry in about.splits[other]]
        except UserError:
            continue
        if other != split and mine == theirs:
            yield f"{split!r} and {other!r} are the same pictures"
        elif other != split and any(_holds(a, b) or _holds(b, a) for a in mine for b in theirs):
            yield f"{split!r} and {other!r} share pictures: one lies in a folder of the other"


def _holds(folder: str, other: str) -> bool:
    return folder == other or other.startswith(folder + os.sep)


def _drafts(place: Path, state: _Split) -> list[Draft]:
    return _from_folder(place, state) if place.is_dir() else _from_list(place, state)


def _from_folder(folder: Path, state: _Split) -> list[Draft]:
    listing = list_folder(folder)
    state.defects += listing.defects
    files = pictures_of(listing.files)
    labels = label_folder(folder, state.about.base)
    beside = listing.files if labels == Path(os.path.abspath(folder)) else ()  # noqa: PTH100
    for file in [*beside, *(list_folder(labels).files if labels.is_dir() else ())]:
        if (
            file.suffix.lower() == ".txt"
            and file.name not in CLASS_LISTS
            and not file.name.lower().startswith("readme")
        ):
            state.labels.setdefault(Path(os.path.abspath(file)), [])  # noqa: PTH100
    return [Draft(name, name, file) for file in files for name in [file.relative_to(folder).as_posix()]]


def _from_list(listing: Path, state: _Split) -> list[Draft]:
    lines = [line for line in map(str.strip, read_text(listing).splitlines()) if line]
    names = [line for line in lines if not is_companion(Path(line).name)]
    if len(names) < len(lines):
        what = "companion file of an operating system; left out"
        state.defects.append(Defect(listing.name, what, len(lines) - len(names)))
    top = os.path.abspath(listing.parent)  # noqa: PTH100
    names = [name[len(top) + 1 :] if name.startswith(top + os.sep) else name for name in names]
    roots = list(dict.fromkeys((listing.parent, state.about.base, state.about.file.parent)))
    finder = find_root(roots, names)
    state.notes += [finder.note] if finder.note else []
    drafts = [Draft(_identity(name), name, listing.parent / name) for name in names]
    for draft in drafts:
        try:
            draft.file = finder.find(draft.name)
        except UserError as error:
            draft.faults.append(Defect(draft.name, str(error).removeprefix(f"{draft.name}: "), fatal=True))
    return drafts


def _identity(name: str) -> str:
    return name.replace("\\", "/").removeprefix("./")


def _once(drafts: Sequence[Draft], state: _Split) -> list[Draft]:
    """Every file once, with an id of its own."""
    first: dict[str, Draft] = {}
    for draft in drafts:
        path = os.path.abspath(draft.file)  # noqa: PTH100
        if first.setdefault(path, draft) is not draft:
            state.defects.append(Defect(draft.name, "picture listed more than once; read once"))
    uses = Counter(draft.id for draft in first.values())
    return [
        replace(draft, id=_within(path, state.about)) if uses[draft.id] > 1 else draft for path, draft in first.items()
    ]


def _within(path: str, about: Description) -> str:
    base = os.path.abspath(about.base)  # noqa: PTH100
    return Path(os.path.relpath(path, base) if path.startswith(base + os.sep) else path).as_posix()


def _fill(draft: Draft, state: _Split) -> None:
    draft.fractions = True
    if draft.faults:
        return
    file = label_of(draft.file, state.about.base)
    if file is None:
        state.labels.setdefault(Path(), []).append(draft.name)
        return
    state.labels.setdefault(file, []).append(draft.name)
    draft.name = _relative(file, state.about.file.parent)
    try:
        text = read_text(file)
    except UserError as error:
        draft.faults.append(Defect(draft.name, str(error).removeprefix(f"{file}: "), fatal=True))
        return
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.split()
        if words:
            _add(words, f"line {number}", draft, state)


def _relative(file: Path, folder: Path) -> str:
    folder = Path(os.path.abspath(folder))  # noqa: PTH100
    return file.relative_to(folder).as_posix() if file.is_relative_to(folder) else str(file)


def _add(words: list[str], record: str, draft: Draft, state: _Split) -> None:
    try:
        row = read_row(words, len(state.about.classes), state.about.points)
    except UserError as error:
        draft.faults.append(Defect(f"{draft.name}: {record}", str(error), fatal=True))
        return
    draft.add(record, row.corners, row.label)
    if row.sixth is not None:
        state.sixths.append((draft, record, row.sixth))
    if row.complaint:
        state.defects.append(Defect(f"{draft.name}: {record}", row.complaint))


def _judge_sixths(state: _Split) -> None:
    """Sixth numbers are confidences if all lie between 0 and 1; otherwise no row with one can be trusted."""
    odd = next((value for _, _, value in state.sixths if not 0 <= value <= 1), None)
    for draft, record, value in state.sixths:
        where = f"{draft.name}: {record}"
        if odd is None:
            state.defects.append(Defect(where, "sixth number (a confidence); ignored"))
        else:
            what = (
                f"expected a confidence between 0 and 1 as sixth number, found {value} here and {odd} in this split: "
            )
            draft.faults.append(Defect(where, f"{what}an angle? boxes that are turned are not read", fatal=True))


def _note_missing(drafts: Sequence[Draft], places: Sequence[Path], state: _Split) -> None:
    """Say which pictures have no labels and which labels no picture; refuse a split in which nothing is labelled."""
    bare = state.labels.pop(Path(), [])
    sound = [draft for draft in drafts if not draft.faults]
    if bare and len(bare) == len(sound):
        expected = label_folder(sound[0].file.parent, state.about.base)
        if not expected.is_dir() or expected == Path(os.path.abspath(sound[0].file.parent)):  # noqa: PTH100
            raise UserError(f"{places[0]}: expected its label files in {expected}, found {_absence(expected)}")
    if bare:
        state.notes.append(f"{len(bare)} of {len(drafts)} pictures have no label file and count as background")
    for file, owners in state.labels.items():
        where = _relative(file, state.about.file.parent)
        if not owners:
            state.defects.append(Defect(where, "label file without a picture; ignored"))
        elif len(owners) > 1:
            state.defects.append(Defect(where, f"label file of {len(owners)} pictures; read for each of them"))


def _absence(folder: Path) -> str:
    return "none" if folder.is_dir() else "no such folder"
