"""The images of a data set in a few arrays, which take little memory and are shared by all loader processes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import numpy as np
from jaxtyping import Bool, Float32, Int32, Int64, UInt8

from ladle.data.dataset import ImageInfo

__all__ = ["PackedImages", "Texts"]


@dataclass(frozen=True, eq=False)
class Texts:
    """Many short texts in one array of bytes.

    Examples:
        >>> from ladle.data.packed import Texts
        >>> texts = Texts.of(["a.jpg", "", "bc.jpg"])
        >>> texts[2], len(texts.content)
        ('bc.jpg', 11)
    """

    content: UInt8[np.ndarray, " n"]
    ends: Int64[np.ndarray, " m"]

    @classmethod
    def of(cls, texts: Sequence[str]) -> Texts:
        """Pack ``texts``."""
        encoded = [text.encode("utf-8", "surrogateescape") for text in texts]
        ends = np.cumsum([len(one) for one in encoded], dtype=np.int64)
        return cls(np.frombuffer(b"".join(encoded), np.uint8), ends)

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, place: int) -> str:
        start = int(self.ends[place - 1]) if place else 0
        return bytes(self.content[start : self.ends[place]].data).decode("utf-8", "surrogateescape")


@dataclass(frozen=True, eq=False)
class PackedImages(Sequence[ImageInfo]):
    """A sequence of :class:`ImageInfo`, each made when it is asked for.

    120,000 images with 860,000 boxes are some 30 MB in this form. A forked process that reads them copies no memory,
    unlike one that reads Python objects, whose counts of references change. ``files`` and ``names`` hold file paths and
    ids, and ``numbered`` tells which ids are numbers. ``ends`` is the end of each image's rows in ``boxes``, ``labels``
    and ``crowd``. For all others see :class:`ImageInfo`.
    """

    files: Texts
    names: Texts
    numbered: Bool[np.ndarray, " n"]
    sizes: Int32[np.ndarray, "n 2"]
    upright: Bool[np.ndarray, " n"]
    deep: Bool[np.ndarray, " n"]
    ends: Int64[np.ndarray, " n"]
    boxes: Float32[np.ndarray, "m 4"]
    labels: Int64[np.ndarray, " m"]
    crowd: Bool[np.ndarray, " m"]

    def __len__(self) -> int:
        return len(self.ends)

    @overload
    def __getitem__(self, place: int) -> ImageInfo: ...

    @overload
    def __getitem__(self, place: slice) -> tuple[ImageInfo, ...]: ...

    def __getitem__(self, place: int | slice) -> ImageInfo | tuple[ImageInfo, ...]:
        if isinstance(place, slice):
            return tuple(self._image(one) for one in range(len(self))[place])
        return self._image(range(len(self))[place])

    def __iter__(self) -> Iterator[ImageInfo]:
        return map(self._image, range(len(self)))

    def _image(self, place: int) -> ImageInfo:
        rows = slice(int(self.ends[place - 1]) if place else 0, int(self.ends[place]))
        name = self.names[place]
        return ImageInfo(
            id=int(name) if self.numbered[place] else name,
            file=Path(self.files[place]),
            height=int(self.sizes[place, 0]),
            width=int(self.sizes[place, 1]),
            boxes=self.boxes[rows],
            labels=self.labels[rows],
            crowd=self.crowd[rows],
            upright=bool(self.upright[place]),
            deep=bool(self.deep[place]),
        )
