"""The locations of annotation files and images in COCO data sets."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from ladle.data.folders import is_companion
from ladle.errors import UserError

__all__ = ["annotation_files", "image_folders", "split_of"]

_OTHER_TASKS = ("captions_", "image_info_", "panoptic_", "person_keypoints_", "stuff_")
_SPLIT = re.compile(r"(train|training|trainval|val|valid|validation|test)\d*")
_FILLING = frozenset({"annotation", "annotations", "bbox", "boxes", "coco", "instances", "labels"})
_ALONE = frozenset({"annotations", "coco", "default", "instances", "instances_default", "labels", "result"})
_FOLDERS_OF_LISTS = frozenset({"annotations", "annotation", "labels", "coco"})
_ROBOFLOW = "_annotations.coco"
_INSTANCES = "instances_"


def annotation_files(data: Path) -> dict[str, list[Path]]:
    """The annotation files of a COCO folder by split; the first file of each split is the one to read.

    ``data`` may also be a single annotation file. The search goes through ``annotations/*.json``, then one file in each
    folder named after a split, then ``SPLIT.json``, then a single file such as ``result.json``. A file with the prefix
    ``instances_`` is preferred to one without.

    Raises:
        UserError: if a split has several files and none of them is preferred.
    """
    if data.is_file():
        return {split_of(data): [data]}
    files = _json(data / "annotations") or _in_folders_of_splits(data) or _beside(data)
    files = [file for file in files if not file.stem.startswith(_OTHER_TASKS)]
    found: dict[str, list[Path]] = defaultdict(list)
    for file in sorted(files, key=lambda file: not file.stem.startswith(_INSTANCES)):
        found[split_of(file)].append(file)
    for split, alike in found.items():
        if len(alike) > 1 and len({file.stem.startswith(_INSTANCES) for file in alike[:2]}) == 1:
            raise UserError(
                f"{data}: expected one annotation file for the split {split!r}, found {alike[0].name} and "
                f"{alike[1].name}: move one of them away, or give the right one itself"
            )
    return dict(found)


def split_of(file: Path) -> str:
    """The split of an annotation file, from its name or that of its folder."""
    words = [word for word in re.split(r"[._\- ]+", file.stem) if word.lower() not in _FILLING and word]
    if len(words) == 1 and _SPLIT.fullmatch(words[0].lower()):
        return words[0]
    of_folder = file.stem == _ROBOFLOW or (not words and _SPLIT.fullmatch(file.parent.name.lower()))
    return file.parent.name if of_folder else file.stem.removeprefix(_INSTANCES)


def _json(folder: Path) -> list[Path]:
    return [file for file in sorted(folder.glob("*.json")) if not is_companion(file.name)]


def _in_folders_of_splits(data: Path) -> list[Path]:
    folders = [path for path in _folders(data) if (path / f"{_ROBOFLOW}.json").exists()]
    if folders:
        return [folder / f"{_ROBOFLOW}.json" for folder in folders]
    found = [_json(path) for path in _folders(data) if _SPLIT.fullmatch(path.name.lower())]
    return [files[0] for files in found if len(files) == 1 and split_of(files[0]) == files[0].parent.name]


def _folders(data: Path) -> list[Path]:
    return [path for path in sorted(data.glob("*")) if path.is_dir() and not is_companion(path.name)]


def _beside(data: Path) -> list[Path]:
    files = _json(data)
    splits = [file for file in files if _SPLIT.fullmatch(split_of(file).lower())]
    alone = [file for file in files if file.stem.lower() in _ALONE]
    return splits or (alone if len(alone) == 1 else [])


def image_folders(file: Path, split: str) -> tuple[list[Path], Path]:
    """The folders that may contain the images of a split, most likely first, and the folder above all of them."""
    bases = (file.parent, file.parent.parent)
    inner = (split, f"images/{split}", f"{split}/images", "images", "data", "JPEGImages", ".")
    home = file.parent.parent if file.parent.name.lower() in _FOLDERS_OF_LISTS else file.parent
    return _once(base / place for base in bases for place in inner), home


def _once(folders: Iterable[Path]) -> list[Path]:
    return list(dict.fromkeys(folders))
