"""The images of a split of a YOLO data set: those below its folders, and those that its lists name."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from ladle.data.dataset import Defect
from ladle.data.documents import read_text
from ladle.data.finding import find_root
from ladle.data.folders import images_of, is_companion, list_folder
from ladle.data.images import SUFFIXES
from ladle.data.raw_images import RawImage
from ladle.data.yolo_labels import absolute, label_folder
from ladle.data.yolo_layouts import CLASS_LISTS, DARKNET, Description
from ladle.errors import UserError

__all__ = ["Gathered", "gather", "place_of"]


@dataclass
class Gathered:
    """The images of a split, their folders or lists, the label files found there, defects and notes."""

    raw_images: list[RawImage] = field(default_factory=list)
    places: list[Path] = field(default_factory=list)
    labels: list[Path] = field(default_factory=list)
    defects: list[Defect] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def gather(about: Description, split: str) -> Gathered:
    """Find the images of a split, each once and with a distinct id; raises UserError for a missing folder or list."""
    entries = about.splits[split]
    found = Gathered([], [place_of(entry, split, about) for entry in entries])
    found.notes += _elsewhere(entries, found.places, split, about)
    found.notes += _overlaps(found.places, split, about)
    for place in found.places:
        found.raw_images += _of_folder(place, about, found) if place.is_dir() else _of_list(place, about, found)
    found.raw_images = _once(found, about)
    return found


def place_of(entry: str, split: str, about: Description) -> Path:
    """The folder or list that a split names: below ``path``, next to the file, or there without a leading ``../``."""
    beside = about.file.parent
    names = dict.fromkeys((entry, entry.replace("\\", "/")))
    options = [base / name for name in names for base in (about.base, beside)]
    options += [beside / name.removeprefix("../") for name in names]
    parts = PurePosixPath(entry.replace("\\", "/")).parts
    if about.file.suffix == DARKNET:  # its paths are relative to a folder above
        options += [beside.joinpath(*parts[start:]) for start in range(1, len(parts)) if ".." not in parts[start:]]
    found = next((option for option in options if _exists(option)), None)
    if found is None:
        raise UserError(
            f"{about.file}: expected images for {split!r} at {options[0]}, found nothing: correct 'path' and {split!r}"
        )
    return found


def _elsewhere(entries: Sequence[str], places: Sequence[Path], split: str, about: Description) -> Iterator[str]:
    """Notes on entries that are found elsewhere than below ``path``."""
    for entry, place in zip(entries, places, strict=True):
        if place not in (about.base / entry, about.base / entry.replace("\\", "/")):
            yield f"there is nothing at {about.base / entry}, which {split!r} names; {place} is taken"


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a name too long, or with a null byte in it
        return False


def _overlaps(places: Sequence[Path], split: str, about: Description) -> Iterator[str]:
    """Notes on other splits in the same folders or lists."""
    own = [os.path.realpath(place) for place in places]
    for other in about.splits:
        try:
            theirs = [os.path.realpath(place_of(entry, other, about)) for entry in about.splits[other]]
        except UserError:
            continue
        if other != split and own == theirs:
            yield f"{split!r} and {other!r} are the same images"
        elif other != split and any(_holds(a, b) or _holds(b, a) for a in own for b in theirs):
            yield f"{split!r} and {other!r} share images: one lies in a folder of the other"


def _holds(folder: str, other: str) -> bool:
    return folder == other or other.startswith(folder + os.sep)


def _of_folder(folder: Path, about: Description, found: Gathered) -> list[RawImage]:
    listing = list_folder(folder)
    found.defects += listing.defects
    labels = label_folder(folder, about.base)
    beside = listing.files if labels == absolute(folder) else ()
    apart = list_folder(labels).files if labels.is_dir() and not beside else ()
    found.labels += [absolute(file) for file in (*beside, *apart) if _may_be_label(file)]
    files = images_of(listing.files)
    return [RawImage(name, name, file) for file in files for name in [file.relative_to(folder).as_posix()]]


def _may_be_label(file: Path) -> bool:
    name = file.name.lower()
    return file.suffix.lower() == ".txt" and name not in CLASS_LISTS and not name.startswith("readme")


def _of_list(listing: Path, about: Description, found: Gathered) -> list[RawImage]:
    if listing.suffix.lower() in SUFFIXES:
        raise UserError(f"{listing}: expected a folder or a list of images as a split, found an image")
    lines = [line for line in map(str.strip, read_text(listing).splitlines()) if line]
    names = [line for line in lines if not is_companion(PurePosixPath(line.replace("\\", "/")).name)]
    if len(names) < len(lines):
        what = "companion file of an operating system; left out"
        found.defects.append(Defect(listing.name, what, len(lines) - len(names)))
    top = f"{absolute(listing.parent)}{os.sep}"
    names = [name.removeprefix(top) for name in names]  # an absolute name that stays in the folder
    finder = find_root(list(dict.fromkeys((listing.parent, about.base, about.file.parent))), names)
    found.notes += [finder.note] if finder.note else []
    raw_images = [RawImage(name.replace("\\", "/").removeprefix("./"), name, listing.parent / name) for name in names]
    for raw_image in raw_images:
        try:
            raw_image.file = finder.find(raw_image.name)
        except UserError as error:
            raw_image.faults.append(Defect(raw_image.name, str(error).removeprefix(f"{raw_image.name}: "), fatal=True))
    return raw_images


def _once(found: Gathered, about: Description) -> list[RawImage]:
    """Every file once; if two images would have the same id, all ids become paths inside the data set."""
    first: dict[Path, RawImage] = {}
    for raw_image in found.raw_images:
        if first.setdefault(absolute(raw_image.file), raw_image) is not raw_image:
            found.defects.append(Defect(raw_image.name, "image listed more than once; read once"))
    if len({raw_image.id for raw_image in first.values()}) == len(first):
        return list(first.values())
    base = absolute(about.base)
    inside = {file: file.relative_to(base) if file.is_relative_to(base) else file for file in first}
    return [replace(raw_image, id=inside[file].as_posix()) for file, raw_image in first.items()]
