"""Decoded images in one temporary file that all loader processes share.

The file has no name: it disappears with the last process that uses it, however that ends. The system keeps it in memory
as long as there is room, and otherwise writes it to the disk of the temporary folder.
"""

from __future__ import annotations

import os
import tempfile
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from ladle.errors import UserError

__all__ = ["SharedImages"]

_FILLED = b"\x01"


class SharedImages:
    """Room for one image per (height, width) of ``sizes``, to be filled by any process that was forked from this one.

    No locks are needed: a process that finds an image missing stores it, and another that stores it at the same time
    writes the same bytes. A byte per image states that it is complete. A pickled copy starts with an empty file.

    Examples:
        >>> import torch
        >>> images = SharedImages([(2, 3), (4, 4)])
        >>> images.put(0, torch.full((3, 2, 3), 7, dtype=torch.uint8))
        >>> images.get(0).unique().tolist(), images.get(1)
        ([7], None)
    """

    def __init__(self, sizes: Sequence[tuple[int, int]]) -> None:
        self._sizes = list(sizes)
        lengths = [len(self._sizes), *(3 * height * width for height, width in self._sizes)]
        self._starts = np.cumsum(lengths, dtype=np.int64).tolist()
        self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - closed with this object
        weakref.finalize(self, self._file.close)
        os.truncate(self._file.fileno(), len(self._sizes))

    def __reduce__(self) -> tuple[Any, ...]:
        return SharedImages, (self._sizes,)

    def get(self, index: int) -> UInt8[Tensor, "3 H W"] | None:
        """A copy of an image, the values of a pixel side by side; None if it is not stored yet."""
        if os.pread(self._file.fileno(), 1, index) != _FILLED:
            return None
        pixels = np.empty((*self._sizes[index], 3), np.uint8)
        read = os.preadv(self._file.fileno(), [pixels.data], self._starts[index])
        return torch.from_numpy(pixels).permute(2, 0, 1) if read == pixels.nbytes else None

    def put(self, index: int, image: UInt8[Tensor, "3 H W"]) -> None:
        """Store an image.

        Raises:
            UserError: if the temporary folder is full.
        """
        pixels = np.ascontiguousarray(image.permute(1, 2, 0).numpy()).data.cast("B")
        try:
            self._write(pixels, self._starts[index])
            self._write(memoryview(_FILLED), index)
        except OSError as error:
            raise UserError(
                f"--cache: expected room for decoded images in {tempfile.gettempdir()}, found {error.strerror}: "
                "set TMPDIR to a larger folder, or leave out --cache"
            ) from error

    def _write(self, content: memoryview, start: int) -> None:
        while content:
            written = os.pwrite(self._file.fileno(), content, start)
            content, start = content[written:], start + written
