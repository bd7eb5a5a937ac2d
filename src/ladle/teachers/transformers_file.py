"""Teachers from checkpoints of transformers' detectors: DETR and what came of it, and YOLOS."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ladle.boxes import corners
from ladle.errors import UserError, one_line
from ladle.teachers.classes import MAPPING, NO_CLASS
from ladle.teachers.detections import TeacherDetections
from ladle.teachers.hub import snapshot_of
from ladle.teachers.uri import TeacherURI
from ladle.types import Batch

__all__ = ["TransformersTeacher", "open_transformers"]

_OPTIONS = ("imgsz", "score", "classes", "class_map", "download")
_UNNAMED = re.compile(r"LABEL_\d+")
"""The names that transformers makes up for classes without one."""
_CONFIG, _INPUT = "config.json", "preprocessor_config.json"


class TransformersTeacher(NamedTuple):
    """A detector of transformers with the resizing and normalization of its own image processor; see ``Foreign``.

    Attributes:
        name: the name of the checkpoint.
        labels: the name of each label, from 0 on; ``N/A`` is no class.
        model: the detector.
        processor: its image processor.
        takes: the names of the tensors that it takes.
        score: boxes whose highest score is below this are background.
        unused: the number of tensors in the checkpoint that the detector does not have.
        bins: 0, since it gives no distributions.
    """

    name: str
    labels: tuple[str, ...]
    model: Any
    processor: Any
    takes: frozenset[str]
    score: float
    unused: int = 0
    bins: int = 0

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of its classes."""
        return tuple(self.labels[column] for column in self._columns)

    @property
    def about(self) -> tuple[str, ...]:
        """How it takes images and what it gives, in words."""
        kind = type(self.processor).__name__
        lines = [f"takes images as {kind} makes them ({_size_in_words(self.processor)})", "gives final boxes"]
        if self.unused:
            lines.append(f"{self.unused} tensors of the checkpoint belong to no part of it and are left out")
        return tuple(lines)

    @property
    def _columns(self) -> list[int]:
        return [column for column, name in enumerate(self.labels) if name not in NO_CLASS]

    def to(self, device: torch.device | str) -> TransformersTeacher:
        """Move the detector to ``device``, in place."""
        self.model.to(device)
        return self

    @torch.no_grad()
    def find(self, batch: Batch) -> TeacherDetections:
        """The box of every query with its class scores, in any number of calls.

        Images of a batch are padded to one size only for a detector that takes a mask of the padding.
        """
        sizes = [(height, width) for height, width in batch.sizes.tolist()]
        parts = [list(range(len(sizes)))] if "pixel_mask" in self.takes else _of_one_size(sizes)
        answers = [self._run(batch.images, part, sizes) for part in parts]
        back = torch.tensor([row for part in parts for row in part]).argsort().to(batch.images.device)
        boxes, scores = (torch.cat(each)[back] for each in zip(*answers, strict=True))
        boxes = corners(boxes) * batch.sizes.flip(1).repeat(1, 2).unsqueeze(1)
        kept = scores.amax(-1, keepdim=True) >= self.score
        return TeacherDetections.final(boxes * kept, scores * kept)

    def _run(
        self, images: Tensor, rows: list[int], sizes: list[tuple[int, int]]
    ) -> tuple[Float[Tensor, "B N 4"], Float[Tensor, "B N C"]]:
        """Boxes relative to each image, as center and size, and scores of the classes."""
        values = images if images.dtype == torch.uint8 else images * 255
        each = [values[row, :, : sizes[row][0], : sizes[row][1]] for row in rows]
        made = self.processor(images=each, input_data_format="channels_first", return_tensors="pt")
        found = self.model(**{name: made[name].to(images.device) for name in made if name in self.takes})
        logits, boxes = found.get("logits"), found.get("pred_boxes")
        if logits is None or boxes is None or logits.shape[-1] - len(self.labels) not in (0, 1):
            raise UserError(
                f"--teacher hf:{self.name}: expected boxes with logits of its {len(self.labels)} classes, found "
                f"{', '.join(f'{name} {tuple(one.shape)}' for name, one in found.items() if hasattr(one, 'shape'))}"
            )
        # One more column than labels is "no object" of a softmax; else each class has a sigmoid.
        scores = logits.softmax(-1) if logits.shape[-1] > len(self.labels) else logits.sigmoid()
        return boxes.float(), scores[..., self._columns].float()


def _of_one_size(sizes: list[tuple[int, int]]) -> list[list[int]]:
    """The rows of images of each size."""
    return [[row for row, size in enumerate(sizes) if size == one] for one in dict.fromkeys(sizes)]


def open_transformers(uri: TeacherURI) -> TransformersTeacher:
    """Load a detector of transformers from a folder, or from the local cache of the hub.

    Code of a checkpoint is never run, and nothing is downloaded without ``?download=1``.

    Raises:
        UserError: if there is no whole checkpoint of a detector, or if its classes have no names.
    """
    uri.check(_OPTIONS)
    if find_spec("transformers") is None:
        raise uri.fail("a detector of transformers needs transformers: pip install 'ladle[transformers]'")
    place, offline = _place(uri)
    with _quietly():
        processor = _processor(uri, place, offline)
        model, unused = _model(uri, place, offline)
    labels = _labels(uri, model.config.id2label)
    (score,) = uri.numbers("score", 1, (0.01,))
    if not 0 <= score < 1:
        raise uri.fail(f"?score={uri.options['score']}: expected a number from 0 to below 1")
    takes = frozenset(inspect.signature(model.forward).parameters)
    return TransformersTeacher(uri.path, labels, model.requires_grad_(False).eval(), processor, takes, score, unused)


def _place(uri: TeacherURI) -> tuple[str, bool]:
    """The folder of a checkpoint, or its name where it may be downloaded; and whether the network is not used."""
    download = uri.choice("download", ("0", "1"), "0") == "1"
    folder = Path(uri.path) if Path(uri.path).is_dir() else snapshot_of(uri.path)
    if folder is None and not download:
        raise uri.fail(
            f"there is no folder {uri.path}, and the hub's cache on this machine has no checkpoint of that name; add "
            "?download=1 to download it"
        )
    return (uri.path, False) if folder is None else (str(folder), True)


@contextmanager
def _quietly() -> Iterator[None]:
    """Without the progress bars and reports of transformers, whose contents become errors here."""
    from transformers.utils import logging

    bars, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity(logging.CRITICAL)
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _processor(uri: TeacherURI, place: str, offline: bool) -> Any:
    from transformers import AutoImageProcessor

    try:
        processor: Any = AutoImageProcessor.from_pretrained(place, local_files_only=offline, trust_remote_code=False)
    except Exception as error:  # a file that is missing or damaged raises errors of many kinds
        raise uri.fail(f"expected a {_CONFIG} and a {_INPUT} of a detector ({one_line(error)})") from None
    sides = uri.wholes("imgsz")
    if sides is not None:
        if len(sides) > 2:
            raise uri.fail(f"?imgsz={uri.options['imgsz']}: expected one number or two")
        first, last = ("shortest_edge", "longest_edge") if "shortest_edge" in _size(processor) else ("height", "width")
        processor.size = type(processor.size)(**{first: sides[0], last: sides[-1]})
    return processor


def _model(uri: TeacherURI, place: str, offline: bool) -> tuple[Any, int]:
    """The detector, of which every tensor was in the checkpoint, and the number of others that it holds."""
    from transformers import AutoModelForObjectDetection

    try:
        model, read = AutoModelForObjectDetection.from_pretrained(
            place,
            local_files_only=offline,
            trust_remote_code=False,
            dtype=torch.float32,
            ignore_mismatched_sizes=True,  # they are refused below, by name
            output_loading_info=True,
        )
    except Exception as error:  # as above
        raise uri.fail(f"expected the weights of a detector that transformers knows ({one_line(error)})") from None
    wrong = sorted(read["missing_keys"]) + sorted(str(one[0]) for one in read["mismatched_keys"])
    if wrong:
        raise uri.fail(
            f"{len(wrong)} tensors of the detector are missing or of another shape in the checkpoint, such as "
            f"{wrong[0]}: they would be random; expected a trained checkpoint of the whole detector"
        )
    return model, len(read["unexpected_keys"])


def _labels(uri: TeacherURI, table: dict[int, str]) -> tuple[str, ...]:
    """The name of each label from 0 on, by ``?classes=`` or by the checkpoint."""
    names = tuple(str(name) for _, name in sorted(table.items()))
    given = uri.classes()
    if given is not None and len(given) != len(names):
        raise uri.fail(
            f"?classes={uri.options['classes']}: expected the names of its {len(names)} labels in order, "
            f"found {len(given)}"
        )
    if given is None and "class_map" not in uri.options and all(map(_UNNAMED.fullmatch, names)):
        raise uri.fail(
            f"its {len(names)} classes have no names, only {names[0]} and so on: give them by ?classes=names.txt, a "
            f"file with one name in each line, or name pairs by {MAPPING}"
        )
    return given or names


def _size(processor: Any) -> dict[str, int]:
    """The sides that are set."""
    return {name: side for name, side in dict(processor.size).items() if side}


def _size_in_words(processor: Any) -> str:
    size = _size(processor)
    if "shortest_edge" in size:
        return f"short side to {size['shortest_edge']} px, at most {size.get('longest_edge', 'any')}"
    return f"{size['width']}x{size['height']} px, stretched" if "width" in size else f"{size}"
