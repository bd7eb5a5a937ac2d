"""The label file of each image of a YOLO data set.

It has the path of the image with the last folder ``images`` inside the data set replaced by ``labels``; or it is next
to the image; or a folder ``images`` above the data set is replaced. For an image in a linked folder the same is tried
with the real path.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

__all__ = ["absolute", "label_folder", "label_of"]

_SUFFIXES = (".txt", ".TXT")


def absolute(path: Path) -> Path:
    """The absolute path without following links; ``.`` and ``..`` are resolved by name."""
    return Path(os.path.abspath(path))  # noqa: PTH100 - Path.resolve would follow links


def label_of(image: Path, base: Path) -> Path | None:
    """The label file of an image of the data set in ``base``; None if there is none."""
    path = absolute(image)
    found = _first(path, base)
    if found is None and (real := Path(os.path.realpath(image))) != path:
        found = _first(real, base)
    return found


def label_folder(folder: Path, base: Path) -> Path:
    """The folder in which the label files of images in ``folder`` are tried first."""
    return next(_counterparts(absolute(folder) / "any", base)).parent


def _first(image: Path, base: Path) -> Path | None:
    options = (other.with_suffix(suffix) for other in _counterparts(image, base) for suffix in _SUFFIXES)
    return next((option for option in options if os.path.lexists(option)), None)


def _counterparts(image: Path, base: Path) -> Iterator[Path]:
    parts = image.parts
    top = absolute(base)
    inside = len(top.parts) if image.is_relative_to(top) else 0
    places = [place for place in range(len(parts) - 2, -1, -1) if parts[place] == "images"]
    if places and places[0] >= inside:
        yield _renamed(parts, places[0])
    yield image
    if places and places[0] < inside:
        yield _renamed(parts, places[0])


def _renamed(parts: tuple[str, ...], place: int) -> Path:
    return Path(*parts[:place], "labels", *parts[place + 1 :])
