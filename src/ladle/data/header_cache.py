"""Headers of image files, kept from one reading of a large data set to the next."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from ladle.data.images import Header, read_header
from ladle.data.packed import Texts
from ladle.files import write_atomically

__all__ = ["cached_headers"]

_LEAST = 1000
"""Number of images from which on headers are kept; fewer are read in a second."""
_NAMES = ("content", "ends", "sizes", "times", "stored")

_Known = dict[str, tuple[int, int, Header]]
"""For each file its size in bytes, its time of change in nanoseconds, and its header."""


@contextmanager
def cached_headers(source: Path, images: int) -> Iterator[Callable[[Path], Header]]:
    """A replacement for :func:`read_header` that opens only files which are new or have changed since the last reading.

    A file has changed if its size or its time of modification has. The headers of the data set of the annotation file
    ``source`` are kept in ``ladle`` below ``$XDG_CACHE_HOME`` or ``~/.cache``, never beside the data, if there are many
    ``images``. Where this folder cannot be written, or what is in it cannot be read, all files are opened.
    """
    place = _place(source) if images >= _LEAST else None
    known = _load(place) if place is not None else {}
    seen: _Known = {}

    def read(file: Path) -> Header:
        try:
            status = file.stat()
        except (OSError, ValueError):
            return read_header(file)  # which raises the error that names the file
        state, kept = (status.st_size, status.st_mtime_ns), known.get(str(file))
        header = kept[2] if kept is not None and kept[:2] == state else read_header(file)
        if place is not None:
            seen[str(file)] = (*state, header)
        return header

    yield read
    if place is not None and seen != known:
        with suppress(OSError):
            _store(place, seen)


def _place(source: Path) -> Path | None:
    """The file for the headers of a data set; None without a home folder."""
    try:
        root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:
        return None
    name = hashlib.blake2b(os.fsencode(source.absolute()), digest_size=12).hexdigest()
    return root / "ladle" / f"headers-{name}.npz"


def _load(place: Path) -> _Known:
    """What was kept; nothing if the file is missing, damaged or of another version."""
    try:
        with place.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
            content, ends, sizes, times, headers = (stored[name] for name in _NAMES)
        files, states = Texts(content, ends), zip(sizes.tolist(), times.tolist(), headers.tolist(), strict=True)
        return {
            files[number]: (size, time, Header(height, width, bool(lying), bool(deep)))
            for number, (size, time, (height, width, lying, deep)) in enumerate(states)
        }
    except (OSError, ValueError, KeyError, TypeError, IndexError, EOFError, BadZipFile):
        return {}


def _store(place: Path, seen: _Known) -> None:
    files = Texts.of(list(seen))
    rows: Sequence[tuple[int, int, Header]] = list(seen.values())
    arrays = {
        "content": files.content,
        "ends": files.ends,
        "sizes": np.array([size for size, _, _ in rows], np.int64),
        "times": np.array([time for _, time, _ in rows], np.int64),
        "stored": np.array([(one.height, one.width, one.lying, one.deep) for _, _, one in rows], np.int64),
    }
    place.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(place, lambda temporary: np.savez_compressed(temporary, allow_pickle=False, **arrays))
