"""COCO annotations: one JSON file for each split.

Categories are ordered by their id, whatever their order in the file; one that no object uses stays a class. Ids written
as text or as whole floats are read as numbers. ``iscrowd`` defaults to 0, ``area`` is ignored, a missing ``bbox`` is
taken from the polygon, and the box is ``x y width height`` in pixels.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from ladle.data.catalogue import Defect
from ladle.data.drafts import Draft, Sheet
from ladle.data.pictures import locate
from ladle.errors import UserError

__all__ = ["offers", "read_coco"]

_OTHER_TASKS = ("captions_", "image_info_", "panoptic_", "person_keypoints_", "stuff_")
_SPLIT_NAME = re.compile(r"(instances_)?(train|trainval|val|valid|validation|test)\d*")
_PROBES = 20

_Entry = dict[str, Any]


def offers(data: Path) -> dict[str, Callable[[], Sheet]]:
    """The splits of a COCO folder or file, each with the function that reads it.

    Looks for ``annotations/*.json``, then ``SPLIT/_annotations.coco.json``, then ``SPLIT.json``, with or without the
    prefix ``instances_``.
    """
    if data.is_file():
        files = [data]
    else:
        beside = [file for file in sorted(data.glob("*.json")) if _SPLIT_NAME.fullmatch(file.stem)]
        listed = [file for file in sorted(data.glob("annotations/*.json")) if not file.stem.startswith(_OTHER_TASKS)]
        files = listed or sorted(data.glob("*/_annotations.coco.json")) or beside
        files.sort(key=lambda file: file.stem.startswith("instances_"))  # they win over a namesake without the prefix
    return {_split(file): partial(read_coco, file) for file in files}


def _split(file: Path) -> str:
    return file.parent.name if file.stem.startswith("_annotations") else file.stem.removeprefix("instances_")


def read_coco(file: Path) -> Sheet:
    """Read one COCO annotation file; raises UserError for a file whose structure cannot be trusted."""
    document = _parse(file)
    defects: list[Defect] = []
    classes = _categories(_entries(document, "categories", file), file, defects)
    drafts = _drafts(_entries(document, "images", file), file, defects)
    if "annotations" not in document:
        defects.append(Defect(str(file), "the key 'annotations' is missing; all pictures were read as unlabelled"))
    annotations = _entries(document, "annotations", file) if "annotations" in document else []
    _check_ids(annotations, file, defects)
    labels = {key: label for label, key in enumerate(classes)}
    if annotations and not any(_key(annotation.get("image_id")) in drafts for annotation in annotations):
        raise UserError(f"{file}: expected annotations of its images, found that no image_id is among their ids")
    for number, annotation in enumerate(annotations):
        _add(annotation, f"annotation {annotation.get('id', f'number {number}')}", drafts, labels, file, defects)
    return Sheet(list(drafts.values()), tuple(classes.values()), tuple(map(int, classes)), defects, file)


def _parse(file: Path) -> _Entry:
    try:
        document = json.loads(file.read_bytes().decode("utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{file}: expected COCO annotations in JSON, found none that can be read ({error})") from error
    if isinstance(document, list):
        raise UserError(
            f"{file}: expected COCO annotations, found a list: this is a results file; give its ground truth"
        )
    if not isinstance(document, dict):
        raise UserError(f"{file}: expected COCO annotations, found no JSON object")
    return document


def _entries(document: _Entry, key: str, file: Path) -> list[_Entry]:
    entries = document.get(key)
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        found = "something else" if key in document else "no such key"
        raise UserError(f"{file}: expected a list of objects under the key {key!r}, found {found}")
    return entries


def _categories(entries: list[_Entry], file: Path, defects: list[Defect]) -> dict[str, str]:
    """Names by id (as text), in the order of the ids as numbers."""
    if not entries:
        raise UserError(f"{file}: expected at least one entry under 'categories', found none")
    names: dict[int, str] = {}
    for entry in entries:
        number = _whole(entry.get("id"))
        if number is None:
            raise UserError(f"{file}: expected whole numbers as ids of categories, found {entry.get('id')!r}")
        if number in names:
            raise UserError(f"{file}: expected every category to have its own id, found {number} twice in 'categories'")
        if not isinstance(entry["id"], int):
            defects.append(
                Defect(f"{file.name}: category {entry['id']!r}", "category id is no whole number; read as one")
            )
        names[number] = str(entry.get("name", f"category {number}"))
    for name, times in Counter(names.values()).items():
        if times > 1:
            defects.append(Defect(f"{file.name}: category {name!r}", "name of several categories; kept apart", times))
    return {str(number): names[number] for number in sorted(names)}


def _whole(value: Any) -> int | None:
    try:
        number = int(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if value in (number, str(number)) else None


def _key(value: Any) -> str:
    """An id as text, so that 7, 7.0 and "7" are the same one and large ones lose no digit."""
    number = _whole(value)
    return str(value if number is None else number)


def _drafts(images: list[_Entry], file: Path, defects: list[Defect]) -> dict[str, Draft]:
    root = _picture_folder(file, [str(image.get("file_name")) for image in images[:_PROBES]])
    drafts: dict[str, Draft] = {}
    for image in images:
        if not isinstance(image.get("id"), int | str | float):
            raise UserError(f"{file}: expected an id for every image, found none for {image.get('file_name')!r}")
        key = _key(image["id"])
        if key in drafts:
            raise UserError(f"{file}: expected every image to have its own id, found {key} twice in 'images'")
        drafts[key] = _draft(image, root, file, defects)
    return drafts


def _draft(image: _Entry, root: Path, file: Path, defects: list[Defect]) -> Draft:
    name = image.get("file_name")
    number = image["id"] if isinstance(image["id"], str) else _whole(image["id"])
    identity = str(image["id"]) if number is None else number
    draft = Draft(identity, name if isinstance(name, str) else f"{file.name}: image {identity}", root / str(name))
    draft.stated = _stated(image)
    if draft.stated is None:
        defects.append(Defect(draft.name, "width and height are missing in the JSON; read from the picture"))
    if not isinstance(name, str):
        draft.faults.append(Defect(draft.name, f"expected a file_name, found {name!r}", fatal=True))
        return draft
    try:
        draft.file = locate(root, name)
    except UserError as error:
        draft.faults.append(Defect(draft.name, str(error).removeprefix(f"{name}: "), fatal=True))
        return draft
    if draft.file != root / draft.name:
        defects.append(Defect(draft.name, "file name is spelt otherwise on disk (separator or Unicode form); matched"))
    return draft


def _stated(image: _Entry) -> tuple[int, int] | None:
    height, width = _whole(image.get("height")), _whole(image.get("width"))
    return (height, width) if height and width and height > 0 and width > 0 else None


def _picture_folder(file: Path, names: list[str]) -> Path:
    """The folder that holds most of the named pictures: the split's own, a shared ``images``, or the JSON's."""
    split = _split(file)
    bases = (file.parent, file.parent.parent)
    places = [base / inner for base in bases for inner in (split, f"images/{split}", f"{split}/images", "images", ".")]
    return max((place for place in places if place.is_dir()), key=lambda place: sum(_holds(place, n) for n in names))


def _holds(folder: Path, name: str) -> bool:
    try:
        return locate(folder, name).is_file()
    except UserError:
        return False


def _check_ids(annotations: list[_Entry], file: Path, defects: list[Defect]) -> None:
    uses = Counter(_key(annotation["id"]) for annotation in annotations if "id" in annotation)
    for key, times in uses.items():
        if times > 1:
            defects.append(
                Defect(f"{file.name}: annotation id {key}", "id of several annotations; all were kept", times)
            )
    if missing := len(annotations) - uses.total():
        defects.append(Defect(str(file), "annotation without an id; numbered", missing))


def _add(
    annotation: _Entry, record: str, drafts: dict[str, Draft], labels: dict[str, int], file: Path, defects: list[Defect]
) -> None:
    draft = drafts.get(_key(annotation.get("image_id")))
    if draft is None:
        where = f"{file.name}: {record} of image_id {annotation.get('image_id')!r}"
        defects.append(Defect(where, "no such image; box dropped"))
        return
    where = f"{draft.name}: {record}"
    label = labels.get(_key(annotation.get("category_id")))
    if label is None:
        what = f"category_id {annotation.get('category_id')!r} is not in 'categories' of {file.name}"
        draft.faults.append(Defect(where, what, fatal=True))
        return
    corners, complaint = _corners(annotation)
    if complaint:
        defects.append(Defect(where, complaint))
    if corners:
        draft.add(record, corners, label, bool(annotation.get("iscrowd")))


def _corners(annotation: _Entry) -> tuple[tuple[float, float, float, float] | None, str | None]:
    """The box as corners, None where there is none, and what is odd about it."""
    if "bbox" not in annotation:
        return _hull(annotation.get("segmentation"))
    box = annotation["bbox"]
    try:
        x, y, width, height = map(float, box)
    except (TypeError, ValueError, OverflowError):
        return None, "bbox is not four numbers; dropped"
    complaint = "bbox holds text; converted to numbers" if any(isinstance(value, str) for value in box) else None
    return (x, y, x + width, y + height), complaint


def _hull(polygons: Any) -> tuple[tuple[float, float, float, float] | None, str]:
    try:
        values = [float(value) for polygon in polygons for value in polygon]
        x, y = values[0::2], values[1::2]
        return (min(x), min(y), max(x), max(y)), "bbox is missing; taken from the polygon"
    except (TypeError, ValueError, OverflowError):
        return None, "bbox is missing; dropped"
