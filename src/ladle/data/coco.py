"""COCO annotations: one JSON file for each split.

Classes are the categories ordered by id; a category without objects is a class as well. Ids written as text or as whole
floats are read as integers. ``iscrowd`` defaults to 0 and ``area`` is ignored. Boxes are ``x y width height`` in
pixels; an object without a box gets the bounding box of its polygon or mask.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

from ladle.data.coco_boxes import corners_of
from ladle.data.coco_classes import read_categories
from ladle.data.coco_files import annotation_files, image_folders, split_of
from ladle.data.coco_packing import Packed, packed, unpacked
from ladle.data.dataset import Defect
from ladle.data.documents import read_json
from ladle.data.finding import Finder, find_root
from ladle.data.raw_images import RawImage, RawSplit
from ladle.data.values import flag, number, shown, whole
from ladle.errors import UserError

__all__ = ["find_splits", "read_coco"]

_Entry: TypeAlias = dict[str, Any]
_MOST_SIDE = 10**6
_SHOWN = 5


def find_splits(data: Path) -> dict[str, Callable[[], RawSplit]]:
    """The splits of a COCO folder or file, each with a function that reads it."""
    return {split: partial(read_coco, *files) for split, files in annotation_files(data).items()}


def read_coco(file: Path, *unread: Path) -> RawSplit:
    """Read one COCO annotation file.

    ``unread`` are further files of the same split; they are named in a note.

    Raises:
        UserError: for a file whose structure is not that of COCO annotations.
    """
    document = _document(file)
    defects: list[Defect] = []
    annotations = _annotations(document, file, defects)
    used = {whole(annotation.get("category_id")) for annotation in map(unpacked, annotations)}
    classes = read_categories(_entries(document, "categories", file), used, file, defects)
    images = _entries(document, "images", file)
    finder = _finder(images, file)
    raw_images = _raw_images(images, finder, file, defects)
    _check_ids(annotations, raw_images, file, defects)
    labels: dict[int | None, int] = {key: label for label, key in enumerate(classes)}
    for place, annotation in enumerate(map(unpacked, annotations)):
        _add(annotation, _record(annotation, place), raw_images, labels, file, defects)
        annotations[place] = b""  # frees the memory of one object after the other
    notes = [f"{other.name} is of the same split as {file.name}, and is not read" for other in unread]
    notes += [finder.note] if finder.note else []
    names, ids = tuple(classes.values()), tuple(classes)
    return RawSplit(list(raw_images.values()), names, ids, defects, file, tuple(notes), form="corner and size")


def _document(file: Path) -> _Entry:
    document = read_json(file, packed)
    if isinstance(document, list):
        raise UserError(
            f"{file}: expected COCO annotations, found a list: this is a results file; give its ground truth"
        )
    if not isinstance(document, dict):
        raise UserError(f"{file}: expected COCO annotations, found no JSON object")
    return document


def _entries(document: _Entry, key: str, file: Path) -> list[_Entry]:
    return _list(document, key, file, dict)


def _list(document: _Entry, key: str, file: Path, kind: Any) -> list[Any]:
    entries = document.get(key)
    if not isinstance(entries, list) or not all(isinstance(entry, kind) for entry in entries):
        found = "something else" if key in document else "no such key"
        raise UserError(f"{file}: expected a list of objects under the key {key!r}, found {found}")
    return entries


def _annotations(document: _Entry, file: Path, defects: list[Defect]) -> list[Packed]:
    if "annotations" not in document:
        defects.append(Defect(str(file), "the key 'annotations' is missing; all images were read as unlabeled"))
        return []
    return _list(document, "annotations", file, dict | bytes)


def _finder(images: list[_Entry], file: Path) -> Finder:
    names = [image["file_name"] for image in images if isinstance(image.get("file_name"), str)]
    roots, below = image_folders(file, split_of(file))
    return find_root(roots, names, below)


def _key(value: object) -> Hashable:
    """An id in one form: 7, 7.0 and "7" are equal, and large numbers keep all digits. None for other values."""
    number = whole(value)
    return number if number is not None else value if isinstance(value, str) else None


def _record(annotation: _Entry, place: int) -> str:
    return f"annotation {shown(annotation['id'])}" if "id" in annotation else f"annotation number {place}"


def _raw_images(images: list[_Entry], finder: Finder, file: Path, defects: list[Defect]) -> dict[Hashable, RawImage]:
    keys = [_key(image.get("id")) for image in images]
    nameless = [shown(image.get("file_name")) for image, key in zip(images, keys, strict=True) if key is None]
    if nameless:
        raise UserError(f"{file}: expected a number or a text as id of every image, found none for {_some(nameless)}")
    again = [str(key) for key, times in Counter(keys).items() if times > 1]
    if again:
        raise UserError(f"{file}: expected every image to have its own id, found {_some(again)} twice in 'images'")
    return {key: _raw_image(key, image, finder, file, defects) for key, image in zip(keys, images, strict=True)}


def _some(found: list[str]) -> str:
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return ", ".join(found[:_SHOWN]) + more


def _raw_image(key: Hashable, image: _Entry, finder: Finder, file: Path, defects: list[Defect]) -> RawImage:
    name = image.get("file_name")
    identity = image["id"] if isinstance(image["id"], str) else key
    assert isinstance(identity, int | str)
    raw_image = RawImage(
        identity, name if isinstance(name, str) else f"{file.name}: image {identity}", finder.root / str(name)
    )
    raw_image.stated = _stated(image, raw_image.name, defects)
    if not isinstance(name, str):
        raw_image.faults.append(Defect(raw_image.name, f"expected a file_name, found {shown(name)}", fatal=True))
        return raw_image
    try:
        raw_image.file = finder.find(name)
    except UserError as error:
        raw_image.faults.append(Defect(raw_image.name, str(error).removeprefix(f"{name}: "), fatal=True))
        return raw_image
    if not finder.note and raw_image.file != finder.root / raw_image.name:
        defects.append(
            Defect(raw_image.name, "file name is spelt otherwise on disk (separator or Unicode form); matched")
        )
    return raw_image


def _stated(image: _Entry, name: str, defects: list[Defect]) -> tuple[int, int] | None:
    height, width = number(image.get("height")), number(image.get("width"))
    if height and width and all(0 < side <= _MOST_SIDE and side == int(side) for side in (height, width)):
        return int(height), int(width)
    missing = not image.get("height") and not image.get("width")
    found = "are missing in the JSON" if missing else "in the JSON are no size"
    defects.append(Defect(name, f"width and height {found}; read from the image"))
    return None


def _check_ids(
    annotations: list[Packed], raw_images: dict[Hashable, RawImage], file: Path, defects: list[Defect]
) -> None:
    uses = Counter(_key(annotation.get("id")) for annotation in map(unpacked, annotations))
    missing = uses.pop(None, 0)
    for key, times in uses.items():
        if times > 1:
            defects.append(
                Defect(f"{file.name}: annotation id {key}", "id of several annotations; all were kept", times)
            )
    if missing:
        defects.append(Defect(str(file), "annotation without an id; numbered", missing))
    images = (_key(annotation.get("image_id")) for annotation in map(unpacked, annotations))
    if annotations and not any(key in raw_images for key in images):
        raise UserError(f"{file}: expected annotations of its images, found that no image_id is among their ids")


def _add(
    annotation: _Entry,
    record: str,
    raw_images: dict[Hashable, RawImage],
    labels: dict[int | None, int],
    file: Path,
    defects: list[Defect],
) -> None:
    raw_image = raw_images.get(_key(annotation.get("image_id")))
    if raw_image is None:
        where = f"{file.name}: {record} of image_id {shown(annotation.get('image_id'))}"
        defects.append(Defect(where, "no such image; box dropped"))
        return
    label = labels.get(whole(annotation.get("category_id")))
    crowd, ignored = flag(annotation.get("iscrowd")), flag(annotation.get("ignore"))
    if label is None or crowd is None or ignored is None:
        raw_image.faults.append(
            Defect(f"{raw_image.name}: {record}", _trouble(annotation, label, crowd, file), fatal=True)
        )
        return
    corners, remark = corners_of(annotation, raw_image.stated)
    if remark:
        defects.append(Defect(f"{raw_image.name}: {record}", remark))
    if ignored and not crowd:
        defects.append(Defect(f"{raw_image.name}: {record}", "the key 'ignore' is set; read as a region to ignore"))
    if corners:
        raw_image.add(record, corners, label, crowd or ignored)


def _trouble(annotation: _Entry, label: int | None, crowd: bool | None, file: Path) -> str:
    if label is None:
        return f"category_id {shown(annotation.get('category_id'))} is not in 'categories' of {file.name}"
    key = "iscrowd" if crowd is None else "ignore"
    return f"expected 0 or 1 under {key!r}, found {shown(annotation[key])}"
