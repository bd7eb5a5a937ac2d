"""A lock on a folder that goes with the processes that hold it: a killed one leaves the folder free."""

from __future__ import annotations

import errno
import os
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from ladle.errors import UserError

__all__ = ["LOCK", "check_free", "held", "lock", "share", "unlock", "unshare"]

LOCK = ".lock"
"""The locked file; it says which process holds it, and is removed with the lock."""
_LONGEST = 200
_UNSUPPORTED = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOLCK, errno.EINVAL)
"""What file systems without locks answer."""
_HELD: set[BinaryIO] = set()

if sys.platform == "win32":
    import msvcrt

    def _seize(file: BinaryIO, shared: bool) -> None:
        # There are no shared locks; a byte far behind the end is locked, so that the text can be read.
        if not shared:
            file.seek(2**30)
            try:
                msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
            except OSError as error:
                raise BlockingIOError(errno.EAGAIN, "held by another process") from error
else:
    import fcntl

    def _seize(file: BinaryIO, shared: bool) -> None:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)

    def _let_go() -> None:
        # A forked child, such as a process that loads images, must not keep the lock of a parent that was killed.
        while _HELD:
            _HELD.pop().close()

    os.register_at_fork(after_in_child=_let_go)


def check_free(folder: Path) -> None:
    """Raise :class:`UserError` where another process holds ``folder``; it is not taken, and need not be there."""
    path = folder / LOCK
    try:
        file = path.open("rb", buffering=0)
    except OSError:
        return
    with file:
        try:
            _take(file, path, lambda _: None)
        except BlockingIOError as error:
            raise held(folder, error) from None


def held(folder: Path, error: BlockingIOError) -> UserError:
    """What to tell the user of a folder that :func:`lock` found held."""
    return UserError(
        f"{folder}: {error.strerror}, or one that it started, is still at work on this run; wait until it ends, or "
        "stop it"
    )


def lock(folder: Path, warn: Callable[[str], None]) -> BinaryIO:
    """Lock ``folder`` for this process and those that :func:`share` its lock, until :func:`unlock` or their end.

    Raises :class:`BlockingIOError`, with the name of the process that holds it, where it is locked. A file system
    without locks is not protected, of which ``warn`` is told.
    """
    path = folder / LOCK
    while True:
        file = path.open("a+b", buffering=0)
        try:
            _take(file, path, warn)
        except BaseException:
            file.close()
            raise
        if _is_at(file, path):
            break
        file.close()  # the one that held it has just removed it
    with suppress(OSError):  # a full disk; the name is a courtesy
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}".encode())
    _HELD.add(file)
    return file


def _take(file: BinaryIO, path: Path, warn: Callable[[str], None]) -> None:
    """Seize the file alone, then keep it in a way that others can share but nobody can seize."""
    try:
        _seize(file, shared=False)
        _seize(file, shared=True)
    except BlockingIOError:
        file.seek(0)
        holder = file.read(_LONGEST).decode(errors="replace")
        raise BlockingIOError(errno.EAGAIN, holder if holder.isprintable() and holder else "another process") from None
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
        warn(f"{path}: this file system has no locks, so nothing keeps a second process from taking up the same run")


def share(folder: Path) -> BinaryIO | None:
    """Hold the lock that this process's parent holds, until :func:`unshare` or its end.

    Raises :class:`BlockingIOError` where another process has it. None where there is no lock to share, or where this
    process has it already: on network file systems closing a file a second time would give all its locks back.
    """
    path = folder / LOCK
    if not path.is_file() or any(_is_at(file, path) for file in _HELD):
        return None
    file = path.open("rb", buffering=0)
    try:
        _seize(file, shared=True)
    except OSError as error:
        file.close()
        if error.errno not in _UNSUPPORTED:
            raise
        return None
    _HELD.add(file)
    return file


def unshare(file: BinaryIO) -> None:
    """Give back what :func:`share` gave."""
    _HELD.discard(file)
    file.close()


def unlock(folder: Path, file: BinaryIO) -> None:
    """Give the lock back and leave no trace of it."""
    with suppress(OSError):
        (folder / LOCK).unlink()
    unshare(file)


def _is_at(file: BinaryIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
