"""Pascal VOC annotations: one XML file for each image, with lists, folders or nothing to say what the splits are.

An image belongs to the XML file of the same name; ``<filename>`` is not used for that. Coordinates are used as written.
The classes are all names in all XML files in alphabetical order, so that they are the same for every split. A
``classes.txt`` (one name per line) defines them instead; any other name is an error then. Category ids count from 0.
``difficult`` objects are regions to be ignored, parts are not objects. Without lists and folders of splits, all XML
files are the split ``train``, and images without XML are left out.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from ladle.data.dataset import Defect
from ladle.data.documents import read_text
from ladle.data.naming import check_distinct, clean_name
from ladle.data.raw_images import RawImage, RawSplit
from ladle.data.voc_layouts import Shelf, arrange, listed, offered
from ladle.data.voc_pages import Page, read_page
from ladle.errors import UserError

__all__ = ["find_splits", "read_voc"]

_Pages = dict[str, Page | UserError]


def find_splits(data: Path) -> dict[str, Callable[[], RawSplit]]:
    """The splits of a VOC folder, each with a function that reads it; lists of a single class are not splits."""
    splits = offered(data) or {}
    return {split: partial(read_voc, data, part) for split, part in splits.items()}


def read_voc(folder: Path, part: Path | str | None = None) -> RawSplit:
    """Read the images that a list names, those in the folder of a split, or all images.

    An image with invalid XML is recorded as unusable.
    """
    whole = arrange(folder)
    defects = list(whole.defects)
    pages: _Pages = {key: _attempt(key, files) for key, files in whole.pages.items()}
    classes = _classes(folder, pages, defects)
    if isinstance(part, Path):
        keys = listed(part, whole, defects)
    else:
        shelf = whole.split(part)
        keys = list(shelf.pages)
        bare = [files[0] for key, files in shelf.images.items() if key not in shelf.pages]
        defects += [Defect(file.relative_to(folder).as_posix(), "image without XML; left out") for file in bare]
    labels = {name: label for label, name in enumerate(classes)}
    raw_images = [_raw_image(key, folder, pages.get(key), whole, labels, defects) for key in keys]
    source = part if isinstance(part, Path) else folder / part if part else folder
    return RawSplit(raw_images, classes, tuple(range(len(classes))), defects, source)


def _attempt(key: str, files: list[Path]) -> Page | UserError:
    if len(files) > 1:
        return UserError(f"expected one XML file for {key}, found {files[0]} and {files[1]}")
    try:
        return read_page(files[0])
    except UserError as error:
        return UserError(str(error).removeprefix(f"{files[0]}: "))


def _classes(folder: Path, pages: _Pages, defects: list[Defect]) -> tuple[str, ...]:
    given = folder / "classes.txt"
    if not given.exists():
        sound = [page for page in pages.values() if isinstance(page, Page)]
        return tuple(sorted({thing.name for page in sound for thing in page.things if thing.name}))
    lines = [line for line in read_text(given).splitlines() if line.strip()]
    names = [clean_name(line, f"class {number}")[0] for number, line in enumerate(lines)]
    check_distinct(dict(enumerate(names)), given)
    return tuple(names)


def _raw_image(
    key: str, folder: Path, page: Page | UserError | None, shelf: Shelf, labels: dict[str, int], defects: list[Defect]
) -> RawImage:
    files = shelf.images.get(key, [])
    xml = shelf.pages[key][0].relative_to(folder).as_posix() if key in shelf.pages else key
    raw_image = RawImage(key, xml, files[0] if files else folder / key)
    if page is None:
        raw_image.faults.append(Defect(key, "listed, but there is no XML of this name", fatal=True))
    elif isinstance(page, UserError):
        raw_image.faults.append(Defect(xml, str(page), fatal=True))
    if not files:
        raw_image.faults.append(Defect(key, "there is no image of this name", fatal=True))
    elif len(files) > 1:
        raw_image = _chosen(raw_image, files, page)
    if isinstance(page, Page) and not raw_image.faults:
        _fill(raw_image, page, shelf, labels, defects)
    return raw_image


def _chosen(raw_image: RawImage, files: list[Path], page: Page | UserError | None) -> RawImage:
    """Choose the image that ``<filename>`` states among several images of one name."""
    named = [file for file in files if isinstance(page, Page) and file.name == _basename(page.filename)]
    if len(named) == 1:
        raw_image.file = named[0]
    else:
        found = " and ".join(file.name for file in files[:2])
        raw_image.faults.append(Defect(raw_image.name, f"expected one image of this name, found {found}", fatal=True))
    return raw_image


def _basename(name: str) -> str:
    return name.replace("\\", "/").rpartition("/")[2]


def _fill(raw_image: RawImage, page: Page, shelf: Shelf, labels: dict[str, int], defects: list[Defect]) -> None:
    raw_image.stated = page.stated
    folders, _, stem = str(raw_image.id).rpartition("/")
    named = Path(_basename(page.filename)).stem
    if named != stem and (f"{folders}/{named}" if folders else named) in shelf.images:
        defects.append(
            Defect(raw_image.name, "<filename> names another image; paired with the one of the XML's own name")
        )
    for tag in page.unread:
        what = "element with objects, of which only <object> directly in <annotation> is read; ignored"
        defects.append(Defect(f"{raw_image.name}: <{tag}>", what))
    for number, thing in enumerate(page.things, start=1):
        record = f"object {number}"
        where = f"{raw_image.name}: {record}"
        defects += [Defect(where, remark) for remark in thing.remarks]
        fault = thing.fault
        if thing.name and thing.name not in labels:
            fault = f"class {thing.name!r} is not in classes.txt"
        if fault:
            raw_image.faults.append(Defect(where, fault, fatal=True))
        elif thing.corners:
            raw_image.add(record, thing.corners, labels[thing.name], thing.difficult)
