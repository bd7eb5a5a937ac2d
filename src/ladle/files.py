"""Files that are read only where they are files, and written whole or not at all."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from ladle.errors import UserError

__all__ = ["open_regular", "read_regular", "write_atomically"]

_WITHOUT_WAITING = getattr(os, "O_NONBLOCK", 0)
_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe (FIFO)"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)
_MEGABYTE = 2**20


def open_regular(file: Path) -> BinaryIO:
    """Open a regular file to read bytes; the caller closes it.

    Anything else in its place - a pipe that nobody writes to, a device that never ends - is refused before a byte is
    read. Raises UserError naming the file, also where it is missing or may not be read.
    """
    try:
        _check_kind(file, file.stat().st_mode)  # already here, because opening a device may do something
        stream = open(file, "rb", opener=_open)  # noqa: SIM115 - Path.open has no opener; the caller closes it
    except UserError:
        raise
    except (OSError, ValueError) as error:  # a ValueError: a null byte in the name
        raise UserError(f"{file}: expected a file that can be read, found {_reason(error)}") from error
    try:
        _check_kind(file, os.fstat(stream.fileno()).st_mode)
    except UserError:
        stream.close()
        raise
    return stream


def read_regular(file: Path, most: int) -> bytes:
    """The bytes of a regular file; raises UserError as `open_regular` does, and for more than ``most`` bytes."""
    with open_regular(file) as stream:
        try:
            too_large = os.fstat(stream.fileno()).st_size > most
            content = b"" if too_large else stream.read(most + 1) or b""
        except OSError as error:
            raise UserError(f"{file}: expected a file that can be read, found {_reason(error)}") from error
    if too_large or len(content) > most:
        raise UserError(f"{file}: expected at most {most // _MEGABYTE} MB, found a larger file")
    return content


def _open(name: str, flags: int) -> int:
    return os.open(name, flags | _WITHOUT_WAITING)


def _check_kind(file: Path, mode: int) -> None:
    if not stat.S_ISREG(mode):
        found = next((words for is_kind, words in _KINDS if is_kind(mode)), "something else")
        raise UserError(f"{file}: expected a file, found {found}")


def _reason(error: OSError | ValueError) -> str:
    known: dict[type[Exception], str] = {FileNotFoundError: "no file", PermissionError: "one that may not be read"}
    return known.get(type(error)) or getattr(error, "strerror", None) or str(error)


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` fill a temporary file in ``path``'s folder, flush it to the disk, then put it in ``path``'s place.

    The temporary keeps the suffix, for writers that look at it.
    """
    temporary = path.with_name(f".{path.stem}.partial{path.suffix}")
    write(temporary)
    with temporary.open("rb+") as file:
        os.fsync(file.fileno())
    temporary.replace(path)
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    # The new name itself must survive a power cut; Windows cannot open folders and does without.
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
