"""Pascal VOC annotations: ``Annotations/*.xml``, ``JPEGImages/`` and the lists of ``ImageSets/Main/*.txt``.

A picture belongs to the XML file of the same stem, whatever ``<filename>`` says. Coordinates are taken as written.
The classes are all names in ``Annotations`` in alphabetical order, so that every split agrees on them; a
``classes.txt`` (one name a line) fixes them instead, and then any other name is an error. Category ids count from 0.
``difficult`` objects are regions to be ignored, parts are not objects. Without ``ImageSets`` all XML files are
the split ``train``, and pictures without XML are left out.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError

from ladle.data.catalogue import Defect
from ladle.data.drafts import Draft, Sheet, read_text
from ladle.data.pictures import SUFFIXES
from ladle.errors import UserError

__all__ = ["offers", "read_voc"]

_FLAGS = frozenset({"-1", "0", "1"})


@dataclass(frozen=True)
class _Thing:
    name: str
    raw_name: str
    corners: tuple[float, float, float, float] | None
    difficult: bool


@dataclass(frozen=True)
class _Page:
    """One XML file."""

    filename: str
    stated: tuple[int, int] | None
    things: tuple[_Thing, ...]


def offers(data: Path) -> dict[str, Callable[[], Sheet]]:
    """The splits of a VOC folder, each with the function that reads it; lists of a single class are no splits."""
    if not any(data.glob("Annotations/*.xml")):
        return {}
    lists = [file for file in sorted(data.glob("ImageSets/Main/*.txt")) if not _of_one_class(file)]
    if not (data / "ImageSets" / "Main").is_dir():
        return {"train": partial(read_voc, data)}
    return {file.stem: partial(read_voc, data, file) for file in lists}


def _of_one_class(file: Path) -> bool:
    """Whether this is a list like ``cat_train.txt``, in which each id is followed by 1, 0 or -1."""
    lines = [line.split() for line in read_text(file).splitlines() if line.strip()]
    return bool(lines) and all(len(words) > 1 and words[-1] in _FLAGS for words in lines)


def read_voc(folder: Path, listing: Path | None = None) -> Sheet:
    """Read the pictures that ``listing`` names, or all with an XML file; broken XML makes its picture unusable."""
    pages = {file.stem: _attempt(file) for file in sorted(folder.glob("Annotations/*.xml"))}
    files = _pictures(folder)
    defects: list[Defect] = []
    if listing is None:
        stems = list(pages)
        defects += [Defect(f"{f.name}", "picture without XML; left out") for s, f in files.items() if s not in pages]
    else:
        stems = _listed(listing, defects)
    classes = _classes(folder, pages)
    labels = {name: label for label, name in enumerate(classes)}
    drafts = [_draft(stem, folder, pages, files, labels, defects) for stem in stems]
    return Sheet(drafts, classes, tuple(range(len(classes))), defects, listing or folder)


def _pictures(folder: Path) -> dict[str, Path]:
    found = sorted(file for file in folder.glob("JPEGImages/*") if file.suffix.lower() in SUFFIXES)
    return {file.stem: file for file in reversed(found)}


def _listed(listing: Path, defects: list[Defect]) -> list[str]:
    uses = Counter(line.strip() for line in read_text(listing).splitlines() if line.strip())
    again = [stem for stem, times in uses.items() if times > 1]
    defects += [Defect(f"{listing.name}: {stem}", "listed more than once; read once") for stem in again]
    return list(uses)


def _classes(folder: Path, pages: dict[str, _Page | UserError]) -> tuple[str, ...]:
    given = folder / "classes.txt"
    if given.is_file():
        return tuple(dict.fromkeys(line.strip() for line in read_text(given).splitlines() if line.strip()))
    sound = [page for page in pages.values() if isinstance(page, _Page)]
    return tuple(sorted({thing.name for page in sound for thing in page.things if thing.name}))


def _draft(
    stem: str,
    folder: Path,
    pages: dict[str, _Page | UserError],
    files: dict[str, Path],
    labels: dict[str, int],
    defects: list[Defect],
) -> Draft:
    name = f"Annotations/{stem}.xml"
    draft = Draft(stem, name, files.get(stem, folder / "JPEGImages" / stem))
    page = pages.get(stem)
    if page is None:
        draft.faults.append(Defect(stem, "listed, but Annotations has no XML of this name", fatal=True))
    elif isinstance(page, UserError):
        draft.faults.append(Defect(name, str(page), fatal=True))
    if stem not in files:
        draft.faults.append(Defect(stem, "XML without a picture of this name in JPEGImages", fatal=True))
    if isinstance(page, _Page) and not draft.faults:
        _fill(draft, page, files, labels, defects)
    return draft


def _fill(draft: Draft, page: _Page, files: dict[str, Path], labels: dict[str, int], defects: list[Defect]) -> None:
    draft.stated = page.stated
    named = page.filename.replace("\\", "/").rpartition("/")[2]
    if Path(named).stem != draft.id and Path(named).stem in files:
        defects.append(
            Defect(draft.name, "<filename> names another picture; paired with the one of the XML's own name")
        )
    for number, thing in enumerate(page.things, start=1):
        record = f"object {number}"
        complaint = _complaint(thing)
        if complaint:
            defects.append(Defect(f"{draft.name}: {record}", complaint))
        if thing.name and thing.name not in labels:
            what = f"class {thing.name!r} is not in classes.txt"
            draft.faults.append(Defect(f"{draft.name}: {record}", what, fatal=True))
        elif thing.name and thing.corners:
            draft.add(record, thing.corners, labels[thing.name], thing.difficult)


def _complaint(thing: _Thing) -> str | None:
    if not thing.name:
        return "object without a name; dropped"
    if thing.corners is None:
        return "object without four numbers in <bndbox>; dropped"
    return "class name with blanks around it; stripped" if thing.name != thing.raw_name else None


def _attempt(file: Path) -> _Page | UserError:
    try:
        return _page(file)
    except UserError as error:
        return error


def _page(file: Path) -> _Page:
    from defusedxml.ElementTree import parse

    try:
        root = parse(file).getroot()
    except (OSError, ParseError, ValueError, LookupError) as error:  # defusedxml's refusals are ValueErrors
        raise UserError(f"expected XML that can be read and that declares no entities, found {error}") from error
    if root is None or root.tag != "annotation":
        raise UserError("expected an <annotation>, found another kind of XML")
    return _Page(
        filename=root.findtext("filename") or "",
        stated=_stated(root),
        things=tuple(_thing(element) for element in root.findall("object")),
    )


def _stated(root: Element) -> tuple[int, int] | None:
    height, width = _number(root, "size/height"), _number(root, "size/width")
    sound = height is not None and width is not None and 1 <= min(height, width) <= max(height, width) < math.inf
    return (int(height), int(width)) if height and width and sound else None


def _thing(element: Element) -> _Thing:
    left, top, right, bottom = (_number(element, f"bndbox/{side}") for side in ("xmin", "ymin", "xmax", "ymax"))
    corners = None
    if left is not None and top is not None and right is not None and bottom is not None:
        corners = (left, top, right, bottom)
    raw = element.findtext("name") or ""
    return _Thing(
        name=" ".join(raw.split()),
        raw_name=raw,
        corners=corners,
        difficult=bool(_number(element, "difficult")),
    )


def _number(element: Element, path: str) -> float | None:
    try:
        return float(element.findtext(path) or "")
    except ValueError:
        return None
