"""Standard output and standard error that never stop a program: whatever happens to their readers, a run goes on."""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import Any, TextIO

__all__ = ["be_patient", "what_was_lost"]

_READER_GONE = {errno.EPIPE, errno.EIO}
"""What a write is answered with where nobody reads any more: a closed pipe, a closed terminal."""
_lost: list[str] = []


def be_patient() -> None:
    """Have standard output and error take all they are given, in any encoding, whether or not anybody reads it.

    What their encoding lacks, such as the bytes of a file name that is no text, is written as an escape. A stream that
    was closed before the program began goes nowhere, lest the next file that is opened gets its number.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    sys.stdout, sys.stderr = _patient(sys.stdout, 1), _patient(sys.stderr, 2)


def what_was_lost() -> str | None:
    """Why some of what was said could not be written, such as a full disk; None where it was, or nobody wanted it."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    return _lost[0] if _lost else None


def _patient(stream: TextIO | None, number: int) -> TextIO:
    if stream is not None:
        stream.flush()
    encoding = getattr(stream, "encoding", None) or "utf-8"
    raw = _Patient(number, "w", closefd=False)
    buffer = io.BufferedWriter(raw)
    return io.TextIOWrapper(buffer, encoding, "backslashreplace", line_buffering=number == 2 or raw.isatty())


class _Patient(io.FileIO):
    """A file that is written as far as it goes."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            if error.errno not in _READER_GONE and not _lost:
                _lost.append(error.strerror or str(error))
            return len(data)
