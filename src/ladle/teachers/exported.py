"""Teachers from files that ``ladle export`` wrote, which say themselves how they are fed and read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from ladle.detectors import as_floats
from ladle.limits import Length, Range
from ladle.teachers.detections import TeacherDetections, identity_frame, logit
from ladle.teachers.inputs import TeacherInput, to_batch
from ladle.teachers.uri import TeacherURI
from ladle.types import Batch, Grid
from ladle.untrusted import read_record

__all__ = ["ExportedTeacher", "open_exported"]

Side = Annotated[int, Range(1, 100_000)]


@dataclass(frozen=True)
class _About:
    """What such a file says of itself, as far as it is needed here."""

    classes: Annotated[tuple[str, ...], Length(1, 100_000)]
    images: Literal["uint8", "float", "normalized"]
    input_size: tuple[Side, Side] | None
    batch: Side | None
    pad_value: Annotated[int, Range(0, 255)]
    pad_multiple: Side
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    strides: tuple[Side, ...]
    priors_per_location: Annotated[int, Range(0, 1000)]
    nms: bool
    prior_offset: Annotated[float, Range(0, 1)] = 0.0


class ExportedTeacher(NamedTuple):
    """A detector of Ladle's in an ONNX or ``.pt2`` file; see ``Foreign``.

    Attributes:
        name: the name of the file.
        says: what the file says of itself.
        run: images and sizes to its outputs.
        move: moves it to a device, in place.
        bins: 0, since it gives no distributions.
    """

    name: str
    says: _About
    run: Callable[[Tensor, Tensor], tuple[Tensor, ...]]
    move: Callable[[torch.device | str], object]
    bins: int = 0

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of its classes."""
        return self.says.classes

    @property
    def about(self) -> tuple[str, ...]:
        """How it takes images and what it gives, in words."""
        size = self.says.input_size
        taken = "images as they are" if size is None else f"images of at most {size[1]}x{size[0]} px as they are"
        strides = ", ".join(map(str, self.says.strides))
        gives = f"predictions at strides {strides}" if self._dense else "final boxes"
        return (f"written by `ladle export`: takes {taken}", f"gives {gives}")

    @property
    def _dense(self) -> bool:
        return not self.says.nms and self.says.priors_per_location > 0

    def to(self, device: torch.device | str) -> ExportedTeacher:
        """Move the network to ``device``, in place, if it can run there; outputs are on the device of the batch."""
        self.move(device)
        return self

    @torch.no_grad()
    def find(self, batch: Batch) -> TeacherDetections:
        """What it finds in a batch; images that are larger than its input are resized to it."""
        images, sizes, frame = self._fed(batch)
        made = [one.to(batch.images.device) for one in self._run(images, sizes)]
        classes = len(self.classes)
        if self.says.nms:
            return TeacherDetections.final(to_batch(made[0], frame), _by_class(made[1], made[2], classes))
        boxes, scores = made
        if boxes.ndim == 4:  # each class has a box of its own: each of them is a prediction of this class alone
            boxes, scores = boxes.flatten(1, 2), torch.diag_embed(scores).flatten(1, 2)
        found = TeacherDetections(to_batch(boxes.float(), frame), logit(scores.float()), frame)
        if not self._dense:
            return found.replaced(frame=identity_frame(boxes)).suppressed(batch.sizes)
        height, width = images.shape[2:]
        each, offset = self.says.priors_per_location, self.says.prior_offset
        grids = (Grid(-(-height // one), -(-width // one), float(one), offset, each) for one in self.says.strides)
        return found.replaced(grids=tuple(grids))

    def _fed(self, batch: Batch) -> tuple[Tensor, Int[Tensor, "B 2"], Float[Tensor, "B 4"]]:
        """The images as it takes them, their sizes in its input, and the frame from the batch to the input."""
        says, images, sizes = self.says, batch.images, batch.sizes
        frame = identity_frame(sizes)
        height, width = images.shape[2:]
        multiple = says.pad_multiple
        rows, columns = says.input_size or (-(-height // multiple) * multiple, -(-width // multiple) * multiple)
        if height > rows or width > columns:
            taken = TeacherInput(rows, columns, resize="corner", pad=float(says.pad_value))
            frame = taken.frame(sizes)
            images, sizes = taken.images(images, sizes) / 255, (sizes * frame[:, :2].flip(1)).round().long()
        grey = says.pad_value if images.dtype == torch.uint8 else says.pad_value / 255
        images = F.pad(images, (0, columns - images.shape[3], 0, rows - images.shape[2]), value=grey)
        return self._valued(images), sizes, frame

    def _valued(self, images: Tensor) -> Tensor:
        """Bytes or floats in [0, 1] as the values that it takes."""
        if self.says.images == "uint8":
            return images if images.dtype == torch.uint8 else (images * 255).round().clamp(0, 255).byte()
        values = as_floats(images)
        if self.says.images == "float":
            return values
        mean, std = (values.new_tensor(each).view(1, 3, 1, 1) for each in (self.says.mean, self.says.std))
        return (values - mean) / std

    def _run(self, images: Tensor, sizes: Tensor) -> list[Tensor]:
        """The outputs; a file that takes a fixed number of images is given the last one again to fill it."""
        count = self.says.batch or len(images)
        missing = -len(images) % count
        index = torch.arange(len(images) + missing, device=images.device).clamp(max=len(images) - 1)
        parts = [self.run(images[rows], sizes[rows]) for rows in index.split(count)]
        return [torch.cat(each)[: len(images)] for each in zip(*parts, strict=True)]


def _by_class(scores: Float[Tensor, "B K"], labels: Int[Tensor, "B K"], classes: int) -> Float[Tensor, "B K C"]:
    """The score of each detection in the column of its class; the label of none is -1."""
    columns = scores.new_zeros(*scores.shape, classes)
    return columns.scatter(-1, labels.clamp(min=0).unsqueeze(-1), scores.unsqueeze(-1))


def open_exported(
    uri: TeacherURI,
    about: Mapping[str, Any],
    run: Callable[[Tensor, Tensor], tuple[Tensor, ...]],
    move: Callable[[torch.device | str], object],
    further: tuple[str, ...] = (),
) -> ExportedTeacher:
    """A file of ``ladle export`` as a teacher, by what it says of itself in ``about``."""
    uri.check(("class_map", *further))
    needed = {one.name: about[one.name] for one in fields(_About) if one.name in about}
    says = read_record(_About, needed, f"--teacher {uri.text}", "write it again by `ladle export`")
    return ExportedTeacher(Path(uri.path).name, says, run, move)
