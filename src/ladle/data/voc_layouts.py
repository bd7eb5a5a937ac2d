"""The locations of XML files, images and lists in Pascal VOC data sets.

An XML file and an image belong together if their paths are equal except for the suffix and for folder names such as
``Annotations`` and ``JPEGImages``. So images may be in separate folders or next to the XML files, in one folder or in
one per split. The common part of the path is the *key*.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ladle.data.dataset import Defect
from ladle.data.documents import read_text
from ladle.data.folders import images_of, is_companion, list_folder
from ladle.data.images import SUFFIXES

__all__ = ["Shelf", "arrange", "listed", "lists", "offered"]

_XML_FOLDERS = ("Annotations", "annotations", "Annotation", "annotation", "xmls", "xml")
_IMAGE_FOLDERS = ("JPEGImages", "images", "Images", "jpegimages", "imgs", "img")
_SAYS_NOTHING = frozenset(name.lower() for name in (*_XML_FOLDERS, *_IMAGE_FOLDERS))
_SPLIT = re.compile(r"(train|training|trainval|val|valid|validation|test)\d*", re.IGNORECASE)
_FLAGS = frozenset({"-1", "0", "1"})


@dataclass(frozen=True)
class Shelf:
    """The XML files and the images of a data set by their keys, and the defects found while listing them."""

    pages: dict[str, list[Path]]
    images: dict[str, list[Path]]
    defects: tuple[Defect, ...]

    def split(self, name: str | None) -> Shelf:
        """The part in the folder of one split; everything for None."""
        if name is None:
            return self
        parts = [
            {key: files for key, files in found.items() if key.startswith(f"{name}/")}
            for found in (self.pages, self.images)
        ]
        return Shelf(parts[0], parts[1], self.defects)


def offered(data: Path) -> dict[str, Path | str | None] | None:
    """The splits of a VOC folder, each with its list or the name of its folder; None if it is not a VOC data set.

    A split of all files has neither.
    """
    xml = _first(data, _XML_FOLDERS)
    if xml is None or not _has_xml(xml):
        names = [folder.name for folder in _folders(data) if _SPLIT.fullmatch(folder.name) and _has_xml(folder)]
        return {name: name for name in names} or ({"train": None} if _holds_xml(data) else None)
    if found := lists(data):
        return {file.stem: file for file in found}
    inner = [folder.name for folder in _folders(xml) if _SPLIT.fullmatch(folder.name)]
    return {name: name for name in inner} or {"train": None}


def _first(data: Path, names: Iterable[str]) -> Path | None:
    return next((data / name for name in names if (data / name).is_dir()), None)


def _folders(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.glob("*")) if path.is_dir() and not is_companion(path.name)]


def _has_xml(folder: Path) -> bool:
    """Whether there are XML files in a folder or in the folders directly below it."""
    return any(_holds_xml(place) for place in (folder, *_folders(folder)))


def _holds_xml(folder: Path) -> bool:
    return any(not is_companion(file.name) for file in folder.glob("*.xml"))


def lists(data: Path) -> list[Path]:
    """The lists of a VOC folder that are splits; lists of a single class are not."""
    files = [file for file in sorted(data.glob("ImageSets/Main/*.txt")) if not is_companion(file.name)]
    return [file for file in files if _SPLIT.fullmatch(file.stem) or not _of_one_class(file, data)]


def _of_one_class(file: Path, data: Path) -> bool:
    """Whether this is a list like ``cat_train.txt``, in which each id is followed by 1, 0 or -1."""
    lines = [line for line in read_text(file).splitlines() if line.strip()]
    words = [line.split() for line in lines]
    flagged = bool(lines) and all(len(found) > 1 and found[-1] in _FLAGS for found in words)
    return flagged and not (data / "Annotations" / f"{lines[0].strip()}.xml").exists()


def arrange(data: Path) -> Shelf:
    """Find all XML files and images of a VOC folder, with the key of each."""
    xml = _first(data, _XML_FOLDERS)
    xml = xml if xml is not None and _has_xml(xml) else data
    images = data if xml == data else _first(data, _IMAGE_FOLDERS) or data
    sought = list_folder(xml)
    seen = sought if images == xml else list_folder(images)
    pages = [file for file in sought.files if file.suffix.lower() == ".xml"]
    defects = dict.fromkeys((*sought.defects, *seen.defects))
    return Shelf(_keyed(pages, xml), _keyed(images_of(seen.files), images), tuple(defects))


def _keyed(files: Iterable[Path], root: Path) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = defaultdict(list)
    for file in files:
        *folders, name = file.relative_to(root).with_suffix("").parts
        found["/".join([*(part for part in folders if part.lower() not in _SAYS_NOTHING), name])].append(file)
    return dict(found)


def listed(listing: Path, shelf: Shelf, defects: list[Defect]) -> list[str]:
    """The keys that a list names, each once: with or without suffix, ``./`` and the folder of the images."""
    keys: dict[str, int] = {}
    for line in map(str.strip, read_text(listing).splitlines()):
        if line and not is_companion(PurePosixPath(line).name):
            key = _key(line, shelf)
            keys[key] = keys.get(key, 0) + 1
        elif line:
            defects.append(Defect(f"{listing.name}: {line}", "companion file of an operating system; left out"))
    again = [key for key, times in keys.items() if times > 1]
    defects += [Defect(f"{listing.name}: {key}", "listed more than once; read once") for key in again]
    return list(keys)


def _key(line: str, shelf: Shelf) -> str:
    path = PurePosixPath(line.replace("\\", "/"))
    if line in shelf.pages or path.is_absolute() or ".." in path.parts:
        return line
    name = path.stem if path.suffix.lower() in SUFFIXES | {".xml"} else path.name
    *folders, _ = path.parts or ("",)
    folders = [part for part in folders if part.lower() not in _SAYS_NOTHING]
    options = ["/".join([*folders[start:], name]) for start in range(len(folders) + 1)]
    return next((option for option in options if option in shelf.pages), options[0])
