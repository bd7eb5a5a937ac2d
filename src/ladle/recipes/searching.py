"""Which picture files a person means by a file, a folder or a pattern."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from ladle.data.pictures import SUFFIXES
from ladle.errors import UserError

__all__ = ["Search", "find_pictures"]


class Search(NamedTuple):
    """The picture files that were found, each once, and those that were passed over."""

    files: list[Path]
    passed_over: list[Path]


def find_pictures(sources: Sequence[str]) -> Search:
    """The picture files that ``sources`` name: a file of any name, a folder to its bottom, or a pattern.

    Links are followed, and each folder is entered once. In a folder hidden files are passed over, all that lies in
    hidden folders, what macOS puts beside the files of an archive, and pipes. Raises UserError for a source that names
    no picture.
    """
    files: dict[Path, None] = {}
    passed_over: dict[Path, None] = {}
    for source in sources:
        listed = _named_by(source)
        found = sorted(file for file, hidden in listed.items() if not hidden)
        if not found:
            but = f", {len(listed)} hidden files left aside" if listed else ""
            raise UserError(
                f"{source}: expected a picture, a folder of pictures or a pattern, found no picture there{but}"
            )
        files |= dict.fromkeys(found)
        passed_over |= dict.fromkeys(file for file, hidden in listed.items() if hidden)
    return Search(list(files), [file for file in passed_over if file not in files])


def _named_by(source: str) -> dict[Path, bool]:
    """The picture files that one source names, and whether each is to be passed over."""
    path = Path(source)
    if source and path.is_file():
        return {path: False}
    matches = [path] if source and path.is_dir() else map(Path, _expanded(source))
    listed: dict[Path, bool] = {}
    for match in matches:
        below = _below(match) if match.is_dir() else [(match, False)]
        listed |= {file: hidden or _is_special(file) for file, hidden in below if file.suffix.lower() in SUFFIXES}
    return listed


def _expanded(pattern: str) -> list[str]:
    """What a pattern matches; its first parts are no patterns where there are folders of just these names."""
    root, rest = Path(), list(Path(pattern).parts)
    while rest and (root / rest[0]).exists():
        root /= rest.pop(0)
    return glob.glob(str(Path(glob.escape(str(root)), *rest)), recursive=True) if rest else []  # noqa: PTH207


def _below(folder: Path) -> Iterator[tuple[Path, bool]]:
    """Every file below a folder, also behind links, and whether it is hidden."""
    entered: set[str] = set()
    for place, folders, names in os.walk(folder, onerror=_refuse, followlinks=True):
        true = os.path.realpath(place)
        if true in entered:
            folders.clear()
            continue
        entered.add(true)
        folders.sort()
        inside = Path(place).relative_to(folder).parts
        for name in names:
            yield Path(place, name), any(map(_is_hidden, (*inside, name)))


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def _is_special(file: Path) -> bool:
    """Whether it is there and no file that could be read to its end: a pipe, a socket, a device."""
    return file.exists() and not file.is_file()


def _refuse(error: OSError) -> None:
    raise error
