"""List the files below a folder; links to folders are followed once, files of the operating system are skipped."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ladle.data.dataset import Defect
from ladle.data.images import SUFFIXES
from ladle.errors import UserError

__all__ = ["UNREAD", "Listing", "images_of", "is_companion", "list_folder"]

_COMPANIONS = frozenset(
    {"__macosx", "@eadir", "thumbs.db", "desktop.ini", "$recycle.bin", "system volume information", "lost+found"}
)
_KNOWN_HIDDEN = frozenset(
    {".appledouble", ".cache", ".ds_store", ".dvc", ".fseventsd", ".git", ".idea", ".ipynb_checkpoints"}
    | {".spotlight-v100", ".svn", ".thumbnails", ".trash", ".trashes", ".vscode", ".apdisk", ".documentrevisions-v100"}
)
UNREAD = frozenset(
    {".avif", ".dng", ".exr", ".heic", ".heif", ".jfif", ".jp2", ".jpe", ".jxl", ".npy", ".pbm", ".pfm", ".pgm"}
    | {".pnm", ".ppm", ".psd", ".raw", ".svg", ".tga", ".avi", ".mkv", ".mov", ".mp4"}
)
"""Image and video formats that are not read; such files are reported."""
_MOST_FILES = 5_000_000


@dataclass(frozen=True)
class Listing:
    """The files below a folder, sorted by path, and the defects found on the way."""

    files: tuple[Path, ...]
    defects: tuple[Defect, ...]


def is_companion(name: str) -> bool:
    """Whether a file or folder with this name is made by an operating system or an editor, and is not data."""
    low = name.lower()
    return low.startswith(("._", ".trash-")) or low in _COMPANIONS or low in _KNOWN_HIDDEN


def list_folder(folder: Path, most: int = _MOST_FILES) -> Listing:
    """List all files below a folder, including linked folders; each folder is read once.

    A link to a folder that contains ``folder`` is not followed.

    Raises:
        UserError: for a folder that cannot be read, and for more than ``most`` files.
    """
    walk = _Walk(folder, most)
    walk.start()
    return Listing(tuple(sorted(walk.files)), tuple(sorted(walk.defects, key=str)))


class _Walk:
    """The state of one listing. Links are followed last, so that a folder is listed by its real path if it has one."""

    def __init__(self, folder: Path, most: int) -> None:
        self.top, self.most = folder, most
        self.above = {os.path.realpath(folder), *map(str, Path(os.path.realpath(folder)).parents)}
        self.known: set[str] = set()
        self.files: list[Path] = []
        self.defects: list[Defect] = []
        self.links: list[Path] = []

    def start(self) -> None:
        self._descend(self.top)
        while self.links:
            link = self.links.pop(0)
            if os.path.realpath(link) in self.above:
                self._report(link, "link to a folder that holds this one; not followed")
            elif os.path.realpath(link) in self.known:
                self._report(link, "link to a folder that is read already; read once")
            else:
                self._descend(link)

    def _descend(self, folder: Path) -> None:
        folders = [folder]
        while folders:
            here = folders.pop()
            self.known.add(os.path.realpath(here))
            for entry in _entries(here):
                self._sort(entry, folders)
            if len(self.files) > self.most:
                raise UserError(f"{self.top}: expected at most {self.most} files, found more, many of them in {here}")

    def _sort(self, entry: os.DirEntry[str], folders: list[Path]) -> None:
        path = Path(entry.path)
        if is_companion(entry.name):
            return
        is_folder = _is_folder(entry)
        if entry.name.startswith("."):
            if is_folder or path.suffix.lower() in SUFFIXES:
                self._report(path, "hidden; left out")
        elif not is_folder:
            self._file(path, entry)
        elif entry.is_symlink():
            self.links.append(path)
        else:
            folders.append(path)

    def _file(self, path: Path, entry: os.DirEntry[str]) -> None:
        suffix = path.suffix.lower()
        if suffix in UNREAD:
            self._report(path, f"files {suffix} are not read; left out")
        elif entry.is_symlink() and suffix not in SUFFIXES and not path.exists():
            self._report(path, "link that leads nowhere; left out")
        else:
            self.files.append(path)

    def _report(self, path: Path, what: str) -> None:
        self.defects.append(Defect(path.relative_to(self.top).as_posix(), what))


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as found:
            return sorted(found, key=lambda entry: entry.name)
    except OSError as error:
        raise UserError(f"{folder}: expected a folder that can be read, found {error.strerror}") from error


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # links that lead to each other
        return False


def images_of(files: Iterable[Path]) -> list[Path]:
    """The files that are images by their suffix."""
    return [file for file in files if file.suffix.lower() in SUFFIXES]
