"""Teachers from networks in files, whose outputs are read by a layout."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, cast, get_args

import torch
from torch import Tensor

from ladle.errors import first_line
from ladle.teachers.classes import COCO_CLASSES
from ladle.teachers.detections import TeacherDetections
from ladle.teachers.inputs import Resize, TeacherInput, to_batch
from ladle.teachers.layouts import (
    FINAL,
    LAYOUTS,
    Layout,
    Read,
    Taken,
    box_and_score,
    counts_of,
    find_layout,
    grids_of,
    joined,
    read_outputs,
)
from ladle.teachers.uri import TeacherURI
from ladle.types import Batch, Grid

__all__ = ["FileTeacher", "Program", "open_program"]

_OPTIONS = ("imgsz", "mean", "std", "bgr", "resize", "pad", "layout", "strides", "offset", "classes", "class_map")
_ROUNDING = 1e-3
"""By which a score may leave 0 to 1 in files of 16 bits."""
_KEYS = ("names", "classes", "class_names", "labels")
"""Keys of a file's metadata under which exporters write the names of classes."""


class Program(NamedTuple):
    """A network in a file.

    Attributes:
        run: images (B,3,H,W) of 32-bit floats to its outputs by name.
        shape: of its input, None where it takes any size.
        metadata: texts by name.
        move: moves it to a device, in place.
    """

    run: Callable[[Tensor], Mapping[str, Tensor]]
    shape: tuple[int | None, ...]
    metadata: Mapping[str, str]
    move: Callable[[torch.device | str], object]


class FileTeacher(NamedTuple):
    """A detector in a file, an ONNX file or a program of PyTorch; see :class:`~ladle.teachers.Foreign`.

    Attributes:
        name: the name of the file.
        classes: names of its classes.
        program: the network.
        taken: how it takes images.
        layout: how its outputs are read.
        grids: the places of its predictions; None for final boxes.
        batch: the number of images that it takes at once; None for any.
        bins: the number of bins of its distributions.
    """

    name: str
    classes: tuple[str, ...]
    program: Program
    taken: TeacherInput
    layout: Layout
    grids: tuple[Grid, ...] | None
    batch: int | None
    bins: int

    @property
    def about(self) -> tuple[str, ...]:
        """How it takes images and what it gives, in words."""
        taken = self.taken
        order = "BGR" if taken.bgr else "RGB"
        values = f"(value - {_numbers(taken.mean)}) / {_numbers(taken.std)}"
        places = sum(grid.height * grid.width for grid in self.grids or ())
        strides = ", ".join(f"{grid.stride:g}" for grid in self.grids or ())
        gives = f"predictions at {places} places of strides {strides}" if self.grids else "final boxes"
        edges = f", distributions of edges over {self.bins} bins" if self.bins else ""
        return (
            f"takes {taken.width}x{taken.height} px, {taken.resize}, {order}, {values}",
            f"gives {gives}{edges} (layout {self.layout})",
        )

    def to(self, device: torch.device | str) -> FileTeacher:
        """Move the network to ``device``, in place, if it can run there; outputs are on the device of the batch."""
        self.program.move(device)
        return self

    @torch.no_grad()
    def find(self, batch: Batch) -> TeacherDetections:
        """What it finds in a batch."""
        images = self.taken.images(batch.images, batch.sizes)
        read = self._run(images)
        frame = self.taken.frame(batch.sizes)
        found = TeacherDetections(to_batch(read.boxes, frame), read.logits, frame, None, read.edges, self.grids)
        return found if self.grids is not None else found.suppressed(batch.sizes)

    def _run(self, images: Tensor) -> Read:
        parts = images.split(self.batch or len(images))
        outputs = [self.program.run(_filled(part, self.batch)) for part in parts]
        moved = [{name: one.to(images.device) for name, one in some.items()} for some in outputs]
        known = Taken(self.grids, self.taken.height, self.taken.width, len(self.classes))
        if self.grids is None:  # the number of boxes may differ from part to part
            read = joined([read_outputs(self.layout, some, known) for some in moved])
        else:
            together = {name: torch.cat([some[name] for some in moved]) for name in moved[0]}
            read = read_outputs(self.layout, together, known)
        edges = read.edges[: len(images)] if read.edges is not None else None
        return Read(read.boxes[: len(images)], read.logits[: len(images)], edges)


def open_program(uri: TeacherURI, program: Program, further: tuple[str, ...] = ()) -> FileTeacher:
    """The network of a file as a teacher; its kind may have ``further`` options.

    Raises:
        UserError: if its input, its outputs or its classes are not understood.
    """
    uri.check((*_OPTIONS, *further))
    batch, height, width = _size(uri, program.shape)
    outputs = _outputs(uri, program, batch or 1, height, width)
    shapes = {name: tuple(one.shape) for name, one in outputs.items()}
    names = class_names(uri, program.metadata)
    given = uri.choice("layout", ("", *LAYOUTS), "")
    try:
        layout = cast("Layout", given) if given else find_layout(shapes, len(names) if names else None)
        places, scores, bins = counts_of(layout, shapes)
        grids = None if layout in FINAL else grids_of(places, height, width, uri.wholes("strides"))
    except ValueError as error:
        raise uri.fail(str(error)) from None
    if layout == "distributions" and grids is None:
        raise uri.fail(f"its {places} places fit no known strides; name them by ?strides=8,16,32")
    names = names or (COCO_CLASSES if scores == len(COCO_CLASSES) else None)
    if names is None or scores not in (len(names), None):
        found = "none in its metadata" if names is None else str(len(names))
        of = "" if scores is None else f"{scores} "
        raise uri.fail(
            f"expected the names of its {of}classes, found {found}: give them by ?classes=names.txt, a file with one "
            "name in each line"
        )
    if layout == "boxes":
        _check_scores(uri, outputs)
    taken = _input(uri, layout, height, width)
    return FileTeacher(Path(uri.path).name, names, program, taken, layout, _shifted(uri, layout, grids), batch, bins)


def _size(uri: TeacherURI, shape: tuple[int | None, ...]) -> tuple[int | None, int, int]:
    """The number of images that a file takes at once, None for any, and their height and width."""
    if len(shape) != 4 or shape[1] not in (3, None):
        raise uri.fail(f"expected images of shape (B,3,H,W) as its input, found {shape}")
    batch, _, *fixed = shape
    asked = uri.wholes("imgsz")
    if asked is not None and len(asked) > 2:
        raise uri.fail(f"?imgsz={uri.options['imgsz']}: expected one side, or height,width")
    sides = [*(asked or ()), *(asked or ())][:2] or fixed
    if any(one is None for one in sides):
        raise uri.fail("it takes images of any size: name the size it was trained at by ?imgsz=640")
    if any(one not in (None, side) for one, side in zip(fixed, sides, strict=True)):
        raise uri.fail(f"?imgsz={uri.options['imgsz']}: it takes images of {fixed[1]}x{fixed[0]} pixels only")
    height, width = (int(one) for one in sides if one is not None)
    return batch, height, width


def _outputs(uri: TeacherURI, program: Program, batch: int, height: int, width: int) -> Mapping[str, Tensor]:
    """The outputs for black images."""
    try:
        return program.run(torch.zeros(batch, 3, height, width))
    except Exception as error:  # each kind of file raises errors of its own
        raise uri.fail(f"it cannot take images of {width}x{height} pixels ({first_line(error)})") from error


def _check_scores(uri: TeacherURI, outputs: Mapping[str, Tensor]) -> None:
    """Raise :class:`UserError` if the scores of boxes are no probabilities."""
    _, name = box_and_score((name, one.shape) for name, one in outputs.items())
    if not outputs[name].numel():
        return
    low, high = (float(end) for end in outputs[name].aminmax())
    if low < -_ROUNDING or high > 1 + _ROUNDING:
        raise uri.fail(
            f"its output {name} has values from {low:.3g} to {high:.3g}, and layout boxes needs scores from 0 to 1; "
            "where these are logits, with boxes in fractions of the input, add ?layout=detr"
        )


def class_names(uri: TeacherURI, metadata: Mapping[str, str]) -> tuple[str, ...] | None:
    """The names of classes from ``?classes=``, or from a file's metadata; None if it has none."""
    given = uri.classes()
    if given is not None:
        return given
    texts = [metadata[key] for key in _KEYS if key in metadata]
    return _listed(texts[0]) if texts else None


def _listed(text: str) -> tuple[str, ...] | None:
    """Names written as a list or a table by number, in JSON or as Python prints them; else with commas or lines."""
    for parse in (json.loads, ast.literal_eval):
        try:
            value = parse(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        if isinstance(value, dict | list):
            names = _by_number(value) if isinstance(value, dict) else value
            return tuple(names) if all(isinstance(name, str) for name in names) else None
    words = tuple(name.strip() for name in text.replace("\n", ",").split(",") if name.strip())
    return words if len(words) > 1 else None


def _by_number(table: dict[Any, Any]) -> list[Any]:
    """The names of a table by number, or of a table of numbers by name; the values of any other table."""
    if all(type(number) is int for number in table.values()):
        table = {number: name for name, number in table.items()}
    try:
        numbers = {int(number): name for number, name in table.items()}
    except (TypeError, ValueError):
        return [*table.values()]
    return [numbers[number] for number in sorted(numbers)]


def _input(uri: TeacherURI, layout: Layout, height: int, width: int) -> TeacherInput:
    """How it takes images: by options, else YOLO's letterbox and values from 0 to 1, or a stretch and 0 to 255."""
    yolo = layout.startswith("yolo") or layout == "detections"
    usual = TeacherInput(
        height, width, std=(255.0,) * 3 if yolo else (1.0,) * 3, resize="letterbox" if yolo else "stretch"
    )
    mean, std = (
        cast("tuple[float, float, float]", uri.numbers(name, 3, getattr(usual, name))) for name in ("mean", "std")
    )
    if min(map(abs, std)) == 0:
        raise uri.fail(f"?std={uri.options['std']}: expected numbers other than 0")
    return replace(
        usual,
        mean=mean,
        std=std,
        bgr=uri.choice("bgr", ("0", "1"), "0") == "1",
        resize=cast("Resize", uri.choice("resize", get_args(Resize), usual.resize)),
        pad=uri.numbers("pad", 1, (usual.pad,))[0],
    )


def _shifted(uri: TeacherURI, layout: Layout, grids: tuple[Grid, ...] | None) -> tuple[Grid, ...] | None:
    """The grids with the offset of ``?offset=`` in cells; by default half a cell.

    Distributions come from NanoDet, whose places lie half a pixel before the middle of a cell.
    """
    before = 0.5 if layout == "distributions" else 0.0
    return grids and tuple(
        grid._replace(offset=uri.numbers("offset", 1, (0.5 - before / grid.stride,))[0]) for grid in grids
    )


def _filled(images: Tensor, batch: int | None) -> Tensor:
    """The images, with black ones added to the number that a file takes."""
    missing = (batch or len(images)) - len(images)
    return torch.nn.functional.pad(images, (0, 0, 0, 0, 0, 0, 0, missing))


def _numbers(values: tuple[float, ...]) -> str:
    return f"{values[0]:g}" if len(set(values)) == 1 else str(values)
