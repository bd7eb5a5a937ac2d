"""Reading of regular files only, and atomic writing of files."""

from __future__ import annotations

import filecmp
import os
import re
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from secrets import token_hex
from typing import BinaryIO, TypeVar

from ladle.errors import UserError

__all__ = [
    "append_line",
    "is_partial",
    "open_regular",
    "path_as_text",
    "read_regular",
    "remove_partials",
    "write_atomically",
    "write_text",
]

T = TypeVar("T")

_PARTIAL = ".partial"
_WITHOUT_WAITING = getattr(os, "O_NONBLOCK", 0)
_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe (FIFO)"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)
_MEGABYTE = 2**20


def path_as_text(value: T | Path) -> T | str:
    """A path as text, as on the command line; any other value as it is.

    Examples:
        >>> from pathlib import Path
        >>> from ladle.files import path_as_text
        >>> path_as_text(Path("runs") / "train") == path_as_text(f"runs{os.sep}train"), path_as_text(None)
        (True, None)
    """
    return os.fspath(value) if isinstance(value, Path) else value


def open_regular(file: Path) -> BinaryIO:
    """Open a regular file to read bytes; the caller closes it.

    Anything else, such as a pipe without a writer or an endless device, is refused before a byte is read.

    Raises:
        UserError: with the name of the file, also if it is missing or cannot be read.
    """
    try:
        _check_kind(file, file.stat().st_mode)  # before opening, because opening a device may have an effect
        stream = open(file, "rb", opener=_open)  # noqa: SIM115 - Path.open has no opener; the caller closes it
    except UserError:  # which is a ValueError
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
    """The bytes of a regular file; raises UserError as :func:`open_regular`, and for more than ``most`` bytes."""
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


def write_atomically(path: Path, write: Callable[[Path], object], only_changes: bool = False) -> None:
    """Write a file atomically: ``write`` fills a temporary file in the same folder, which then replaces ``path``.

    The temporary file has the same suffix, since some writers depend on it. It is flushed to the disk first, and
    removed after an error unless the process is killed. With ``only_changes`` a file with the same content is not
    replaced.

    Raises:
        OSError: with ``path`` as file name, if the disk is full or cannot be written, whatever error ``write`` raises.
    """
    temporary = path.with_name(f".{token_hex(4)}{_PARTIAL}{path.suffix}")
    try:
        write(temporary)
        if only_changes and path.is_file() and filecmp.cmp(temporary, path, shallow=False):
            temporary.unlink()
            return
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink()
        cause = _disk_error(error)
        if cause is None:
            raise
        raise OSError(cause.errno, cause.strerror, str(path)) from error
    _sync_folder(path.parent)


def write_text(path: Path, text: str, only_changes: bool = False) -> None:
    """Write text in UTF-8 as :func:`write_atomically` does."""
    write_atomically(path, lambda part: part.write_text(text, encoding="utf-8"), only_changes)


def append_line(path: Path, line: str, sync: bool = False) -> None:
    """Append ``line`` and a line break, or leave the file unchanged; with ``sync`` the file is flushed to the disk.

    Raises:
        OSError: as :func:`write_atomically`.
    """
    rest = memoryview(f"{line}\n".encode())
    with path.open("ab", buffering=0) as file:
        end = file.seek(0, os.SEEK_END)
        try:
            while rest:
                rest = rest[file.write(rest) or 0 :]
            if sync:
                os.fsync(file.fileno())
        except OSError as error:
            with suppress(OSError):
                file.truncate(end)
            raise OSError(error.errno, error.strerror, str(path)) from error


def is_partial(path: Path) -> bool:
    """Whether ``path`` has the name of a temporary file of :func:`write_atomically`."""
    return path.name.startswith(".") and _PARTIAL in path.name


def remove_partials(folder: Path) -> None:
    """Remove the temporary files that killed processes left in ``folder`` and below it."""
    for path in folder.rglob(f".*{_PARTIAL}*"):
        if path.is_file():
            path.unlink(missing_ok=True)


def _disk_error(error: BaseException) -> OSError | None:
    """The error of the operating system that made a writer fail, or None.

    Libraries raise their own errors: PyTorch's has the OSError of the stream as its context, and safetensors' contains
    the error number in its text.
    """
    link: BaseException | None = error if isinstance(error, Exception) else None
    while link is not None:
        if isinstance(link, OSError) and link.errno is not None:
            return link
        match = re.search(r"\(os error (\d+)\)", str(link))
        if match is not None:
            return OSError(int(match[1]), os.strerror(int(match[1])))
        link = link.__cause__ or link.__context__
    return None


def _sync_folder(folder: Path) -> None:
    # The new name must survive a power failure too. Windows and some network file systems cannot sync folders.
    if os.name == "nt":
        return
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
