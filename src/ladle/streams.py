"""Standard output and error whose failures do not stop a program, for example when the reader of a pipe exits."""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import Any, TextIO

__all__ = ["be_patient", "what_was_lost"]

_READER_GONE = {errno.EPIPE, errno.EIO}
"""Error numbers of a write without a reader: a closed pipe, a closed terminal."""
_lost: list[str] = []


def be_patient() -> None:
    """Replace standard output and error by streams that accept all text in any encoding, with or without a reader.

    Characters that the encoding does not have are written as escapes. A stream that was closed before the program began
    is connected to the null device, because otherwise the next file that is opened would get its number.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    sys.stdout, sys.stderr = _tolerant_stream(sys.stdout, 1), _tolerant_stream(sys.stderr, 2)


def what_was_lost() -> str | None:
    """The reason why output could not be written, such as a full disk; None if it was written or had no reader."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    return _lost[0] if _lost else None


def _tolerant_stream(stream: TextIO | None, number: int) -> TextIO:
    if stream is not None:
        stream.flush()
    encoding = getattr(stream, "encoding", None) or "utf-8"
    raw = _TolerantFile(number, "w", closefd=False)
    buffer = io.BufferedWriter(raw)
    return io.TextIOWrapper(buffer, encoding, "backslashreplace", line_buffering=number == 2 or raw.isatty())


class _TolerantFile(io.FileIO):
    """A file whose write errors are recorded instead of raised."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            if error.errno not in _READER_GONE and not _lost:
                _lost.append(error.strerror or str(error))
            return len(data)
