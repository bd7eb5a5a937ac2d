"""Dense predictions that were recorded for the fixed views of a data set: a folder, read one batch at a time."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from torch import Tensor

from ladle.detectors import DetectorSpec
from ladle.errors import UserError
from ladle.files import read_regular, write_atomically, write_text
from ladle.limits import Length, Range
from ladle.teachers.commands import cache_command
from ladle.teachers.uri import HEADER
from ladle.types import Grid
from ladle.untrusted import parse_json, read_record

__all__ = [
    "MAP",
    "DenseFile",
    "DenseHeader",
    "grids_of",
    "read_header",
    "recorded_files",
    "write_header",
    "write_images",
]

MAP = "map_"
"""The first part of the names of feature maps, which are numbered."""
_KEY = "ladle_dense"
_MOST_BYTES = 2**22
_MOST_OPEN = 64
"""So many files are kept open."""
_MEND = "record anew by `ladle teacher cache --dense`"
_LISTED = "ids"

Count = Annotated[int, Range(1, 2**40)]


@dataclass(frozen=True)
class DenseHeader:
    """What was recorded: the teacher, the data, the size of the images, and the shape of each tensor.

    Args:
        teacher: the text of the teacher.
        sha256: of its file.
        name: its name in messages.
        classes: names of its classes.
        imgsz: long side of the images.
        side: side of the square that every image is padded to.
        values: the values of 16-bit images that become black and white.
        data: a SHA-256 of the images, their sizes and their boxes.
        images: number of images.
        per_file: number of images of each file; the last one may have fewer.
        grids: height, width, stride, offset and priors per cell of each level, in pixels of the teacher's input.
        shapes: the shape of each tensor of one image.
        ap: the teacher's AP on a sample of the validation images; None if the sample has no objects.
    """

    teacher: str
    sha256: Annotated[str, Length(0, 64)]
    name: str
    classes: tuple[str, ...]
    imgsz: Annotated[int, Range(32, 8192)]
    side: Annotated[int, Range(32, 8192)]
    values: tuple[int, int]
    data: Annotated[str, Length(64, 64)]
    images: Count
    per_file: Annotated[int, Range(1, 100_000)]
    grids: tuple[tuple[Count, Count, float, float, Count], ...]
    shapes: dict[str, tuple[Count, ...]]
    ap: float | None

    def __post_init__(self) -> None:
        places = sum(height * width * each for height, width, _, _, each in self.grids)
        expected = {"boxes": (places, 4), "logits": (places, len(self.classes)), "frame": (4,)}
        wrong = [name for name, shape in expected.items() if self.shapes.get(name) != shape]
        if wrong or self.shapes.get("quality", (places,)) != (places,):
            raise ValueError(f"{wrong[0] if wrong else 'quality'} of another shape than grids and classes")
        edges = self.shapes.get("edges", (places, 4, 1))
        if edges[:2] != (places, 4) or len(edges) != 3:
            raise ValueError("edges of another shape than grids")

    @property
    def files(self) -> int:
        """The number of files of a complete recording."""
        return -(-self.images // self.per_file)

    @property
    def image_bytes(self) -> int:
        """The bytes of one image."""
        return sum(4 * torch.Size(shape).numel() for shape in self.shapes.values())

    def command(self, out: str, data: str = "DIR") -> str:
        """The command that records the same of ``data`` into a folder."""
        maps = any(name.startswith(MAP) for name in self.shapes)
        return cache_command(self.teacher, self.imgsz, out, data, dense=True, maps=maps)

    def images_of(self, number: int) -> range:
        """The places of the images of a file."""
        return range(number * self.per_file, min((number + 1) * self.per_file, self.images))


def write_header(folder: Path, header: DenseHeader, spec: DetectorSpec | None) -> None:
    """Begin a recording; ``spec`` describes a detector of Ladle's."""
    about = {_KEY: 1} | asdict(header) | {"detector": None if spec is None else json.loads(spec.to_json())}
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / HEADER, json.dumps(about, indent=1) + "\n")


def read_header(folder: Path) -> tuple[DenseHeader, DetectorSpec | None]:
    """The header of a recording, and the spec of a detector of Ladle's; raises :class:`UserError` for other files."""
    file = folder / HEADER
    if not file.is_file():
        raise UserError(f"{folder}: expected a folder of `ladle teacher cache --dense`, found none with {HEADER}")
    about = parse_json(read_regular(file, _MOST_BYTES), str(file), most=_MOST_BYTES)
    if not isinstance(about, dict) or about.pop(_KEY, None) != 1:
        raise UserError(f"{file}: expected the header of a recording by `ladle teacher cache --dense`; {_MEND}")
    detector = about.pop("detector", None)
    header = read_record(DenseHeader, about, str(file), _MEND)
    if detector is None:
        return header, None
    spec = DetectorSpec.from_json(json.dumps(detector), f"{file}: detector")
    if spec.classes != header.classes or spec.regions:
        raise UserError(f"{file}: expected a detector of one stage with the classes of the recording; {_MEND}")
    return header, spec


def _path(folder: Path, number: int) -> Path:
    return folder / f"{number:06}.safetensors"


def recorded_files(folder: Path, header: DenseHeader) -> set[int]:
    """The numbers of the files that are there."""
    return {number for number in range(header.files) if _path(folder, number).is_file()}


def write_images(folder: Path, number: int, ids: Sequence[int | str], tensors: Mapping[str, Tensor]) -> None:
    """Write the images of one file, whole or not at all."""
    from safetensors.torch import save

    content = save({name: one.contiguous() for name, one in tensors.items()}, {_LISTED: json.dumps(list(ids))})
    write_atomically(_path(folder, number), lambda part: part.write_bytes(content))


class DenseFile:
    """A complete recording; rows are read from the disk when they are asked for."""

    def __init__(self, folder: Path, header: DenseHeader) -> None:
        """Check every file; raises :class:`UserError` if one is missing or does not fit the header."""
        self.folder, self.header = folder, header
        there = recorded_files(folder, header)
        if len(there) < header.files:
            raise UserError(
                f"--teacher {folder}: it holds {len(there)} of {header.files} files; finish it by "
                f"`{header.command(str(folder))}`"
            )
        self._open: OrderedDict[int, Any] = OrderedDict()
        self._places: dict[int | str, tuple[int, int]] = {}
        for number in range(header.files):
            for row, name in enumerate(self._ids_of(number)):
                self._places[name] = number, row

    def rows(self, ids: Sequence[int | str]) -> dict[str, Tensor]:
        """The tensors of these images, stacked."""
        found: dict[str, list[Tensor]] = {name: [] for name in self.header.shapes}
        for image in ids:
            if image not in self._places:
                raise UserError(f"--teacher {self.folder}: it holds nothing for image {image!r}; {_MEND}")
            number, row = self._places[image]
            for name, rows in found.items():
                rows.append(self._stream(number).get_slice(name)[row : row + 1])
        return {name: torch.cat(rows) for name, rows in found.items()}

    def __getstate__(self) -> dict[str, Any]:
        """A copy in another process opens the files there."""
        return vars(self) | {"_open": OrderedDict()}

    def _stream(self, number: int) -> Any:
        """An open file, which is mapped into memory and not read."""
        from safetensors import SafetensorError

        if number not in self._open:
            file = _path(self.folder, number)
            try:
                self._open[number] = _opened(file)
            except (SafetensorError, OSError, ValueError) as error:
                raise UserError(f"{file} cannot be read ({error}); remove it, and {_MEND}") from error
            if len(self._open) > _MOST_OPEN:
                self._open.popitem(last=False)[1].__exit__(None, None, None)
        self._open.move_to_end(number)
        return self._open[number]

    def _ids_of(self, number: int) -> list[int | str]:
        """The ids of the images of a file, whose tensors are compared with the header."""
        stream, count = self._stream(number), len(self.header.images_of(number))
        expected = {name: ("F32", (count, *shape)) for name, shape in self.header.shapes.items()}
        slices = {name: stream.get_slice(name) for name in stream.keys()}  # noqa: SIM118 - no mapping
        found = {name: (one.get_dtype(), tuple(one.get_shape())) for name, one in slices.items()}
        file = _path(self.folder, number)
        ids = parse_json((stream.metadata() or {}).get(_LISTED, "[]"), str(file))
        good = isinstance(ids, list) and len(ids) == count and all(isinstance(one, int | str) for one in ids)
        if found != expected or not good:
            raise UserError(f"{file}: its tensors are not those that {HEADER} names; remove it, and {_MEND}")
        return list(ids)


def _opened(file: Path) -> Any:
    from safetensors import safe_open

    stream: Any = safe_open(file, framework="pt")
    return stream.__enter__()


def grids_of(header: DenseHeader) -> tuple[Grid, ...]:
    """The grids on which the predictions lie."""
    return tuple(Grid(*values) for values in header.grids)
