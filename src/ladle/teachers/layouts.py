"""The outputs of exported detectors, recognized by name and shape and read as boxes and logits."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

from ladle.boxes import corners, decode_distances
from ladle.errors import UserError
from ladle.teachers.detections import LEAST_LOGIT, logit
from ladle.types import Grid

__all__ = [
    "FINAL",
    "LAYOUTS",
    "Layout",
    "Read",
    "Shape",
    "Taken",
    "box_and_score",
    "counts_of",
    "find_layout",
    "grids_of",
    "joined",
    "read_outputs",
]

Layout = Literal["boxes", "detr", "detections", "yolo", "yolo-objectness", "distributions"]
Shape = tuple[int, ...]
"""The shape of an output for one image."""

LAYOUTS: Mapping[str, str] = {
    "boxes": "boxes (B,N,4) as x1 y1 x2 y2 and class scores (B,N,C)",
    "detr": "boxes (B,N,4) as center, width, height in fractions of the input and class logits (B,N,C) of sigmoids",
    "detections": "one output (B,N,6): x1 y1 x2 y2, score, number of the class",
    "yolo": "one output (B,4+C,N): center, width, height and class scores",
    "yolo-objectness": "one output (B,N,5+C): center, width, height, objectness and class scores",
    "distributions": "class scores (B,N,C) and distributions of the distances to the four edges (B,N,4K)",
}
"""Every layout of outputs by its name in ``?layout=``."""

FINAL: tuple[Layout, ...] = ("detr", "detections")
"""The layouts of final boxes alone; the others may be of places too."""

_DETR = ({"logits", "pred_boxes"}, {"pred_logits", "pred_boxes"})
"""The names of DETR's outputs, in transformers and in the original code."""
_MOST_DETECTIONS = 1000
"""The largest number of rows of six numbers that are taken for detections; more are places of a YOLO of one class."""
_STRIDES = ((8, 16, 32), (8, 16, 32, 64), (8, 16, 32, 64, 128), (4, 8, 16, 32), (16, 32))
"""Sets of strides that are tried to explain a number of places."""


class Taken(NamedTuple):
    """What is known of a file: its places, if it has any, the size of its input in pixels, the number of classes."""

    grids: tuple[Grid, ...] | None
    height: int
    width: int
    classes: int


class Read(NamedTuple):
    """Boxes in pixels of the teacher's input, class logits, and distributions of edges if there are any."""

    boxes: Float[Tensor, "B N 4"]
    logits: Float[Tensor, "B N C"]
    edges: Float[Tensor, "B N 4 K"] | None = None


def find_layout(shapes: Mapping[str, Shape], classes: int | None) -> Layout:
    """The layout of outputs by their names and shapes; raises ValueError if none fits, or more than one.

    ``classes`` is the number of classes, if it is known.

    Examples:
        >>> from ladle.teachers.layouts import find_layout
        >>> find_layout({"output0": (1, 84, 8400)}, classes=80)
        'yolo'
    """
    fits = [name for name, test in _TESTS.items() if test(shapes, classes)]
    if len(fits) == 1:
        return fits[0]
    outputs = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
    found = f"could be {' or '.join(fits)}" if fits else "are none of the known layouts"
    known = "; ".join(f"{name}: {what}" for name, what in LAYOUTS.items())
    raise ValueError(f"its outputs {outputs} {found}; name one by ?layout= ({known})")


def grids_of(places: int, height: int, width: int, strides: tuple[int, ...] | None) -> tuple[Grid, ...] | None:
    """The grids of so many places over an input, with locations at the centers of cells; None if none fits.

    ``strides`` are tried alone if they are given. Raises ValueError if they do not fit.

    Examples:
        >>> from ladle.teachers.layouts import grids_of
        >>> [(grid.stride, grid.height) for grid in grids_of(3549, 416, 416, None)]
        [(8.0, 52), (16.0, 26), (32.0, 13)]
    """
    for tried in (strides,) if strides is not None else _STRIDES:
        grids = tuple(Grid(-(-height // s), -(-width // s), float(s), 0.5) for s in tried)
        if sum(grid.height * grid.width for grid in grids) == places:
            return grids
    if strides is not None:
        count = sum(-(-height // s) * -(-width // s) for s in strides)
        raise ValueError(f"strides {', '.join(map(str, strides))} give {count} places, but there are {places}")
    return None


def counts_of(layout: Layout, shapes: Mapping[str, Shape]) -> tuple[int, int | None, int]:
    """The numbers of places, of classes and of bins in outputs of a layout; raises ValueError if they do not fit.

    None for the number of classes if the outputs do not say it.
    """
    shape, *others = shapes.values()
    pair = layout in ("boxes", "detr", "distributions")
    unlike = layout == "distributions" and sum(map(_says_edges, shapes)) != 1
    if len(others) != pair or unlike or any(len(one) != 3 for one in shapes.values()):
        raise ValueError(
            f"its outputs {', '.join(f'{name} {one}' for name, one in shapes.items())} are not of layout {layout}: "
            f"{LAYOUTS[layout]}"
        )
    if layout == "yolo":
        return shape[2], shape[1] - 4, 0
    if layout == "yolo-objectness":
        return shape[1], shape[2] - 5, 0
    if layout == "detections":
        return shape[1], None, 0
    if layout in ("boxes", "detr"):
        score = shapes[box_and_score(shapes.items())[1]]
        return score[1], score[2], 0
    (edges,) = (one for name, one in shapes.items() if _says_edges(name))
    (score,) = (one for name, one in shapes.items() if not _says_edges(name))
    return score[1], score[2], edges[2] // 4


def read_outputs(layout: Layout, outputs: Mapping[str, Tensor], taken: Taken) -> Read:
    """Boxes and logits from the outputs of a file."""
    return _READERS[layout](outputs, taken)


def joined(parts: Sequence[Read]) -> Read:
    """The final boxes of several batches as one; images with fewer end with rows of background."""
    most = max(one.boxes.shape[1] for one in parts)

    def filled(rows: Tensor, value: float) -> Tensor:
        return pad(rows, (0, 0, 0, most - rows.shape[1]), value=value)

    boxes = torch.cat([filled(one.boxes, 0.0) for one in parts])
    return Read(boxes, torch.cat([filled(one.logits, LEAST_LOGIT) for one in parts]))


def box_and_score(outputs: Iterable[tuple[str, Shape]]) -> tuple[str, str]:
    """The names of the output of boxes and of that of scores, of two outputs with their shapes."""
    box, score = sorted(outputs, key=lambda one: (one[1][-1] != 4, "box" not in one[0].lower()))
    return box[0], score[0]


def _is_boxes(shapes: Mapping[str, Shape], classes: int | None) -> bool:
    return _is_pair(shapes) and shapes.keys() not in _DETR


def _is_detr(shapes: Mapping[str, Shape], classes: int | None) -> bool:
    return _is_pair(shapes) and shapes.keys() in _DETR


def _is_pair(shapes: Mapping[str, Shape]) -> bool:
    """Whether there are boxes and as many rows of scores."""
    if len(shapes) != 2 or any(len(shape) != 3 for shape in shapes.values()):
        return False
    box, score = (shapes[name] for name in box_and_score(shapes.items()))
    return box[-1] == 4 and box[1] == score[1]


def _is_detections(shapes: Mapping[str, Shape], classes: int | None) -> bool:
    shape = _only(shapes)
    return shape is not None and shape[2] == 6 and shape[1] <= _MOST_DETECTIONS


def _is_distributions(shapes: Mapping[str, Shape], classes: int | None) -> bool:
    if len(shapes) != 2 or any(len(shape) != 3 for shape in shapes.values()):
        return False
    edges = [shapes[name][-1] for name in shapes if _says_edges(name)]
    return len(edges) == 1 and edges[0] > 4 and edges[0] % 4 == 0


def _is_yolo(shapes: Mapping[str, Shape], classes: int | None) -> bool:
    shape = _only(shapes)
    if shape is None or classes is None:
        return shape is not None and 4 < shape[1] < shape[2]
    return shape[1] == 4 + classes and shape[2] != 5 + classes


def _is_yolo_objectness(shapes: Mapping[str, Shape], classes: int | None) -> bool:
    shape = _only(shapes)
    if _is_detections(shapes, classes):
        return False
    if shape is None or classes is None:
        return shape is not None and 5 < shape[2] < shape[1]
    return shape[2] == 5 + classes and shape[1] != 4 + classes


def _says_edges(name: str) -> bool:
    """Whether an output is called as if it had distributions or distances of edges."""
    return any(word in name.lower() for word in ("dis", "reg", "dfl", "bbox"))


_TESTS: dict[Layout, Callable[[Mapping[str, Shape], int | None], bool]] = {
    "boxes": _is_boxes,
    "detr": _is_detr,
    "detections": _is_detections,
    "yolo": _is_yolo,
    "yolo-objectness": _is_yolo_objectness,
    "distributions": _is_distributions,
}


def _only(shapes: Mapping[str, Shape]) -> Shape | None:
    """The shape of the only output, if it is one of three dimensions."""
    shape = next(iter(shapes.values()))
    return shape if len(shapes) == 1 and len(shape) == 3 else None


def _read_boxes(outputs: Mapping[str, Tensor], taken: Taken) -> Read:
    box, score = box_and_score((name, one.shape) for name, one in outputs.items())
    return Read(outputs[box].float(), logit(outputs[score].float()))


def _read_detr(outputs: Mapping[str, Tensor], taken: Taken) -> Read:
    box, score = box_and_score((name, one.shape) for name, one in outputs.items())
    whole = outputs[box].new_tensor([taken.width, taken.height, taken.width, taken.height], dtype=torch.float32)
    return Read(corners(outputs[box].float()) * whole, outputs[score].float())


def _read_detections(outputs: Mapping[str, Tensor], taken: Taken) -> Read:
    """Numbers that are no class's, as some exporters write in rows without a detection, are background."""
    (rows,) = (one.float() for one in outputs.values())
    number = rows[..., 5].round().long()
    known = (number >= 0) & (number < taken.classes)
    score = torch.where(known, rows[..., 4], 0.0).unsqueeze(-1)
    scores = score.new_zeros(*score.shape[:2], taken.classes)
    scores.scatter_(-1, number.clamp(0, taken.classes - 1).unsqueeze(-1), score)
    return Read(rows[..., :4], logit(scores))


def _read_yolo(outputs: Mapping[str, Tensor], taken: Taken) -> Read:
    (rows,) = (one.float().transpose(1, 2) for one in outputs.values())
    return Read(corners(rows[..., :4]), logit(rows[..., 4:]))


def _read_yolo_objectness(outputs: Mapping[str, Tensor], taken: Taken) -> Read:
    (rows,) = (one.float() for one in outputs.values())
    return Read(corners(rows[..., :4]), logit(rows[..., 4:5] * rows[..., 5:]))


def _read_distributions(outputs: Mapping[str, Tensor], taken: Taken) -> Read:
    """Distances are the means of the distributions times the stride, from the places."""
    if taken.grids is None:
        raise UserError("distributions of edges need the strides of their places: name them by ?strides=8,16,32")
    edge = next(name for name in outputs if _says_edges(name))
    (score,) = (one.float() for name, one in outputs.items() if name != edge)
    edges = outputs[edge].float().unflatten(-1, (4, -1))
    points, stride = _points(taken.grids, edges)
    bins = torch.arange(edges.shape[-1], device=edges.device, dtype=edges.dtype)
    distances = (edges.softmax(-1) @ bins) * stride[:, None]
    scores = logit(score) if score.amin() >= 0 and score.amax() <= 1 else score
    return Read(decode_distances(points, distances), scores, edges)


def _points(grids: tuple[Grid, ...], like: Tensor) -> tuple[Float[Tensor, "N 2"], Float[Tensor, " N"]]:
    """The location of every place, and its stride."""
    points, strides = [], []
    for grid in grids:
        y, x = (torch.arange(n, device=like.device) + grid.offset for n in (grid.height, grid.width))
        y, x = torch.meshgrid(y * grid.stride, x * grid.stride, indexing="ij")
        points.append(torch.stack([x.flatten(), y.flatten()], -1))
        strides.append(torch.full_like(points[-1][:, 0], grid.stride))
    return torch.cat(points), torch.cat(strides)


_READERS: dict[Layout, Callable[[Mapping[str, Tensor], Taken], Read]] = {
    "boxes": _read_boxes,
    "detr": _read_detr,
    "detections": _read_detections,
    "yolo": _read_yolo,
    "yolo-objectness": _read_yolo_objectness,
    "distributions": _read_distributions,
}
