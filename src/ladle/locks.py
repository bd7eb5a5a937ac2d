"""A lock on a folder that is released when the processes holding it end, even if they are killed."""

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
"""The name of the locked file; it contains the name of the process that holds the lock, and is removed with it."""
_LONGEST = 200
_UNSUPPORTED = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOLCK, errno.EINVAL)
"""Error numbers of file systems without locks."""
_HELD: set[BinaryIO] = set()

if sys.platform == "win32":
    import msvcrt

    def _acquire(file: BinaryIO, shared: bool) -> None:
        # Windows has no shared locks. A byte far behind the end is locked, so that the text can be read.
        if not shared:
            file.seek(2**30)
            try:
                msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
            except OSError as error:
                raise BlockingIOError(errno.EAGAIN, "held by another process") from error
else:
    import fcntl

    def _acquire(file: BinaryIO, shared: bool) -> None:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)

    def _release() -> None:
        # A forked child, such as a loader process, must not keep the lock of a parent that was killed.
        while _HELD:
            _HELD.pop().close()

    os.register_at_fork(after_in_child=_release)


def check_free(folder: Path) -> None:
    """Raise :class:`UserError` if another process holds the lock on ``folder``, which need not exist.

    The lock is not acquired.
    """
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
    """The error for a folder whose lock is held by another process, from the error of :func:`lock`."""
    return UserError(
        f"{folder}: {error.strerror}, or one that it started, is still at work on this run; wait until it ends, or "
        "stop it"
    )


def lock(folder: Path, warn: Callable[[str], None]) -> BinaryIO:
    """Lock ``folder`` for this process and those that :func:`share` its lock, until :func:`unlock` or their end.

    On a file system without locks ``warn`` is called with a message, and the folder is not protected.

    Raises:
        BlockingIOError: with the name of the process that holds the lock.
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
        file.close()  # its former holder has just removed the file
    with suppress(OSError):  # the disk is full; the name of the process is optional
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}".encode())
    _HELD.add(file)
    return file


def _take(file: BinaryIO, path: Path, warn: Callable[[str], None]) -> None:
    """Acquire an exclusive lock, then convert it to a shared one, which prevents other exclusive locks."""
    try:
        _acquire(file, shared=False)
        _acquire(file, shared=True)
    except BlockingIOError:
        file.seek(0)
        holder = file.read(_LONGEST).decode(errors="replace")
        raise BlockingIOError(errno.EAGAIN, holder if holder.isprintable() and holder else "another process") from None
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
        warn(f"{path}: this file system has no locks, so nothing keeps a second process from taking up the same run")


def share(folder: Path) -> BinaryIO | None:
    """Share the lock of the parent process, until :func:`unshare` or the end of this process.

    None if there is no lock, or if this process holds it already: on network file systems, closing the file a second
    time would release all locks of the process.

    Raises:
        BlockingIOError: if another process holds the lock.
    """
    path = folder / LOCK
    if not path.is_file() or any(_is_at(file, path) for file in _HELD):
        return None
    file = path.open("rb", buffering=0)
    try:
        _acquire(file, shared=True)
    except OSError as error:
        file.close()
        if error.errno not in _UNSUPPORTED:
            raise
        return None
    _HELD.add(file)
    return file


def unshare(file: BinaryIO) -> None:
    """Release the lock that :func:`share` returned."""
    _HELD.discard(file)
    file.close()


def unlock(folder: Path, file: BinaryIO) -> None:
    """Release the lock and remove its file."""
    with suppress(OSError):
        (folder / LOCK).unlink()
    unshare(file)


def _is_at(file: BinaryIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
