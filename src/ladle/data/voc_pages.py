"""One Pascal VOC file: the size of its image, and its objects.

Coordinates are used as written. A polygon or a rotated box (``robndbox`` of roLabelImg, the attribute ``rotation`` of
CVAT) is replaced by its upright bounding box.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.etree.ElementTree import Element

from ladle.data.naming import clean_name
from ladle.data.shapes import Corners, hull, turned
from ladle.data.values import flag, number, shown
from ladle.data.xml_files import read_xml
from ladle.errors import UserError

__all__ = ["Page", "Thing", "read_page"]

_MOST_SIDE = 10**6
_SIDES = ("xmin", "ymin", "xmax", "ymax")
_TURNED = ("cx", "cy", "w", "h", "angle")


@dataclass(frozen=True)
class Thing:
    """One object: its class, its box, whether it is to be ignored, remarks, and the reason if it cannot be used."""

    name: str
    corners: Corners | None
    difficult: bool
    remarks: tuple[str, ...]
    fault: str | None = None


@dataclass(frozen=True)
class Page:
    """One XML file; ``stated`` is the (height, width) of the image that it states.

    ``unread`` are the names of elements that contain objects and are not read.
    """

    filename: str
    stated: tuple[int, int] | None
    things: tuple[Thing, ...]
    unread: tuple[str, ...] = ()


def read_page(file: Path) -> Page:
    """Read one XML file; raises UserError with its name if it is not a VOC annotation."""
    root = read_xml(file)
    if root.tag != "annotation":
        raise UserError(f"{file}: expected an <annotation>, found another kind of XML")
    return Page(
        filename=(root.findtext("filename") or "").strip(),
        stated=_stated(root),
        things=tuple(_thing(element) for element in root.findall("object")),
        unread=tuple(element.tag for element in root if element.tag != "object" and _holds_objects(element)),
    )


def _holds_objects(element: Element) -> bool:
    """Whether an element contains ``object`` or ``bndbox`` elements."""
    return any(inner.tag.lower() in ("object", "bndbox") for inner in element.iter())


def _stated(root: Element) -> tuple[int, int] | None:
    height, width = number(root.findtext("size/height")), number(root.findtext("size/width"))
    if height is None or width is None or not all(1 <= side <= _MOST_SIDE for side in (height, width)):
        return None
    return int(height), int(width)


def _thing(element: Element) -> Thing:
    names = element.findall("name")
    raw = names[0].text or "" if names else ""
    name, renamed = clean_name(raw, "") if raw.strip() else ("", "object without a name; dropped")
    corners, remark = _corners(element)
    difficult = flag(element.findtext("difficult"))
    fault = None
    if len(names) > 1:
        fault = "expected one <name>, found several"
    elif difficult is None:
        fault = f"expected 0 or 1 in <difficult>, found {shown(element.findtext('difficult'))}"
    remarks = tuple(text for text in (renamed, remark if name else None) if text)
    return Thing(name, corners if name else None, bool(difficult), remarks, fault)


def _corners(element: Element) -> tuple[Corners | None, str | None]:
    boxes = element.findall("bndbox")
    if len(boxes) > 1 or any(len(box.findall(side)) > 1 for box in boxes for side in _SIDES):
        return None, "object with several boxes; dropped"
    sides = _numbers(boxes[0], _SIDES) if boxes else None
    if sides is not None:
        angle = _rotation(element)
        corners = sides[0], sides[1], sides[2], sides[3]
        if angle:
            return turned(corners, math.radians(angle)), "box turned by an angle; the upright box around it is used"
        return corners, None
    return _around(element)


def _around(element: Element) -> tuple[Corners | None, str | None]:
    """The bounding box of a rotated box or a polygon, for objects without an upright box."""
    tilted = element.find("robndbox")
    if tilted is not None and (values := _numbers(tilted, _TURNED)) is not None:
        x, y, width, height, angle = values
        if all(map(math.isfinite, values)):
            corners = x - width / 2, y - height / 2, x + width / 2, y + height / 2
            return turned(corners, angle), "box turned by an angle; the upright box around it is used"
    polygon = element.find("polygon")
    points = hull(list(_points(polygon))) if polygon is not None else None
    if points is not None:
        return points, "polygon; its bounding box is used"
    return None, "object without four numbers in <bndbox>; dropped"


def _points(polygon: Element) -> Iterator[float]:
    """The points of a polygon: ``<x1>``, ``<y1>``, ``<x2>`` … as Roboflow writes, or ``<pt>`` with ``<x>``, ``<y>``."""
    for point in polygon.findall("pt"):
        yield from (_number(point, "x"), _number(point, "y"))
    place = 1
    while polygon.find(f"x{place}") is not None:
        yield from (_number(polygon, f"x{place}"), _number(polygon, f"y{place}"))
        place += 1


def _number(element: Element, tag: str) -> float:
    value = number(element.findtext(tag))
    return math.nan if value is None else value


def _numbers(element: Element, tags: tuple[str, ...]) -> list[float] | None:
    found = [number(element.findtext(tag)) for tag in tags]
    return None if None in found else [value for value in found if value is not None]


def _rotation(element: Element) -> float:
    """The angle in degrees by which CVAT rotates a box around its center."""
    for attribute in element.findall("attributes/attribute"):
        if attribute.findtext("name") == "rotation":
            angle = number(attribute.findtext("value"))
            return angle if angle is not None and math.isfinite(angle) else 0.0
    return 0.0
