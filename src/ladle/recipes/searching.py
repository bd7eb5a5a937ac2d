"""Find the image files given by a file, a folder or a pattern."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from ladle.data.folders import UNREAD
from ladle.data.images import SUFFIXES
from ladle.errors import UserError

__all__ = ["Search", "find_images"]

_IMAGE_SUFFIXES = SUFFIXES | UNREAD


class Search(NamedTuple):
    """The image files, each once, the skipped ones, and those of unsupported formats."""

    files: list[Path]
    passed_over: list[Path]
    unread: list[Path]


def find_images(sources: Sequence[str]) -> Search:
    """The image files given by ``sources``: a file of any name, a folder with its subfolders, or a pattern.

    Links are followed, and each folder is entered once. In a folder hidden files and folders, the extra files of macOS
    archives, and pipes are skipped. Raises UserError for a source without an image.
    """
    if not sources:
        raise UserError("expected an image, a folder of images or a pattern, found an empty list")
    files: dict[Path, None] = {}
    passed_over: dict[Path, None] = {}
    unread: dict[Path, None] = {}
    for source in sources:
        listed = _named_by(source)
        hidden = [file for file, is_hidden in listed.items() if is_hidden]
        others = [
            file for file in listed if file.suffix.lower() in UNREAD and not listed[file] and file != Path(source)
        ]
        found = sorted(set(listed).difference(hidden, others))
        if not found:
            raise UserError(
                f"{source}: expected an image, a folder of images or a pattern, found no image there"
                f"{_aside(len(hidden), len(others))}"
            )
        files |= dict.fromkeys(found)
        passed_over |= dict.fromkeys(hidden)
        unread |= dict.fromkeys(sorted(others))
    return Search(list(files), [file for file in passed_over if file not in files], [*unread])


def _aside(hidden: int, unread: int) -> str:
    skipped = f", {hidden} hidden files skipped" if hidden else ""
    return f"{skipped}, {unread} files of formats that are not read" if unread else skipped


def _named_by(source: str) -> dict[Path, bool]:
    """The image files given by one source, supported or not, and whether each is to be skipped."""
    path = Path(source)
    if source and path.is_file():
        return {path: False}
    matches = [path] if source and path.is_dir() else map(Path, _expanded(source))
    listed: dict[Path, bool] = {}
    for match in matches:
        below = _below(match) if match.is_dir() else [(match, False)]
        listed |= {
            file: hidden or _is_special(file) for file, hidden in below if file.suffix.lower() in _IMAGE_SUFFIXES
        }
    return _each_once(listed)


def _each_once(listed: dict[Path, bool]) -> dict[Path, bool]:
    """Keep the shortest path of files that are reached through several links."""
    places: dict[Path, str] = {}
    first: dict[tuple[str, str], Path] = {}
    for file in sorted(listed, key=lambda file: (len(file.parts), file)):
        if file.parent not in places:
            places[file.parent] = os.path.realpath(file.parent)
        first.setdefault((places[file.parent], file.name), file)
    return {file: listed[file] for file in first.values()}


def _expanded(pattern: str) -> Iterator[str]:
    """The matches of a pattern; its leading parts are taken literally if folders with these names exist."""
    root, rest = Path(), list(Path(pattern).parts)
    while rest and (root / rest[0]).exists():
        root /= rest.pop(0)
    return _matches(root, rest) if rest else iter(())


def _matches(folder: Path, parts: Sequence[str]) -> Iterator[str]:
    """The matches of the parts of a pattern below a folder; ``**`` enters each folder once, as links may be cyclic."""
    if "**" not in parts:
        yield from glob.glob(str(Path(glob.escape(str(folder)), *parts)))  # noqa: PTH207
        return
    place = parts.index("**")
    for top in _matches(folder, parts[:place]) if place else [folder]:
        for inner in _folders(Path(top)):
            yield from _matches(inner, parts[place + 1 :] or ["*"])


def _folders(top: Path) -> Iterator[Path]:
    """A folder and all its subfolders that are not hidden, following links."""
    for place, _ in _walk(top):
        if not any(map(_is_hidden, place.relative_to(top).parts)):
            yield place


def _below(folder: Path) -> Iterator[tuple[Path, bool]]:
    """Every file below a folder, following links, and whether it is hidden."""
    for place, names in _walk(folder):
        inside = place.relative_to(folder).parts
        for name in names:
            yield place / name, any(map(_is_hidden, (*inside, name)))


def _walk(folder: Path) -> Iterator[tuple[Path, list[str]]]:
    """The folder and all below it, following links, each once, with the names of its files."""
    entered: set[str] = set()
    for place, folders, names in os.walk(folder, onerror=_refuse, followlinks=True):
        true = os.path.realpath(place)
        if true in entered:
            folders.clear()
            continue
        entered.add(true)
        folders.sort()
        yield Path(place), names


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def _is_special(file: Path) -> bool:
    """Whether it exists but is not a regular file: a pipe, a socket, a device."""
    return file.exists() and not file.is_file()


def _refuse(error: OSError) -> None:
    raise error
