"""Teachers whose predictions were recorded: COCO results, or a cache that Ladle wrote."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ladle.errors import UserError
from ladle.files import read_regular
from ladle.limits import Length
from ladle.teachers.classes import COCO_CLASSES
from ladle.teachers.detections import TeacherDetections
from ladle.teachers.uri import TeacherURI
from ladle.types import Batch, Detections
from ladle.untrusted import parse_json, read_record

__all__ = ["CacheHeader", "RecordedTeacher", "cache_line", "open_cache", "open_predictions", "read_cache"]

_MOST_BYTES = 2**30
_COCO_IDS = tuple(number for number in range(1, 91) if number not in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83))
"""The category ids of COCO's 80 classes."""


Images = dict[int | str, Detections]
"""What is recorded for each image of a split."""
Rows = Mapping[int | str, tuple[int, int]]
"""The first row and the row after the last of each image."""


class RecordedTeacher(NamedTuple):
    """Recorded final boxes as a teacher; see ``Foreign``. A batch must carry them, see ``Batch.predicted``.

    Attributes:
        name: the name of the file.
        classes: names of its classes.
        boxes: all boxes in pixels of the image files.
        scores: the score of each.
        labels: the class of each.
        rows: of each split of the data the first row and the row after the last of each image, by its id or the name
            of its file. COCO results have one split without a name.
        header: what a cache says of its origin; None for COCO results.
    """

    name: str
    classes: tuple[str, ...]
    boxes: Float[Tensor, "R 4"]
    scores: Float[Tensor, " R"]
    labels: Int[Tensor, " R"]
    rows: Mapping[str, Rows]
    header: CacheHeader | None = None
    bins: int = 0

    @property
    def about(self) -> tuple[str, ...]:
        """Where its predictions come from, in words."""
        origin = f", recorded from {self.header.teacher} at {self.header.imgsz} px" if self.header is not None else ""
        return (f"gives {len(self.boxes)} final boxes in {sum(map(len, self.rows.values()))} images{origin}",)

    def to(self, device: torch.device | str) -> RecordedTeacher:
        """Nothing: the few numbers of a batch are moved to its device."""
        return self

    def find(self, batch: Batch) -> TeacherDetections:
        """The boxes that the batch carries, in its views, with the recorded scores."""
        carried = batch.predicted
        if carried is None:
            none = batch.images.new_zeros(len(batch.images), 0, 4, dtype=torch.float32)
            return TeacherDetections.final(none, none.new_zeros(len(none), 0, len(self.classes)))
        row = carried.labels.cpu()
        scores = torch.zeros(*row.shape, len(self.classes), dtype=torch.float64)
        scores.scatter_(2, self.labels[row].unsqueeze(-1), self.scores[row].unsqueeze(-1))
        return TeacherDetections.final(carried.boxes, scores.to(carried.boxes.device) * carried.valid.unsqueeze(-1))


@dataclass(frozen=True)
class CacheHeader:
    """The first line of a cache: the teacher and the data from which it was made.

    Args:
        teacher: the text of the teacher.
        sha256: of its file; empty if it has none.
        classes: names of its classes.
        imgsz: long side of the images that it was given.
        data: a SHA-256 of each split's images, sizes and boxes, by name.
    """

    teacher: str
    sha256: Annotated[str, Length(0, 64)]
    classes: tuple[str, ...]
    imgsz: int
    data: dict[str, str]

    def line(self) -> str:
        """The header as one line of JSON."""
        return json.dumps({"ladle_cache": 1} | asdict(self))


def cache_line(split: str, image: int | str, found: Detections) -> str:
    """One image of a cache as a line of JSON, boxes in pixels of its file."""
    boxes, scores, labels = found.boxes.tolist(), found.scores.tolist(), found.labels.tolist()
    return json.dumps({"split": split, "id": image, "boxes": boxes, "scores": scores, "labels": labels})


def read_cache(file: Path) -> tuple[CacheHeader, dict[str, Images]]:
    """The header and the images of each split of a cache; a line that was not finished, at its end, is left out.

    Raises:
        UserError: for a file that is no cache.
    """
    first, *lines = read_regular(file, _MOST_BYTES).decode("utf-8", "replace").split("\n")
    try:
        about = json.loads(first)
    except ValueError:
        about = None
    if not isinstance(about, dict) or about.pop("ladle_cache", None) != 1:
        raise UserError(f"{file}: expected a cache written by `ladle teacher cache`, found another file")
    header = read_record(CacheHeader, about, str(file), _MEND)
    images: dict[str, Images] = {split: {} for split in header.data}
    for number, line in enumerate(lines[:-1], start=2):
        entry = parse_json(line, f"{file}: line {number}", most=_MOST_BYTES)
        known = isinstance(entry, dict) and entry.get("split") in images and isinstance(entry.get("id"), int | str)
        if not known:
            raise UserError(f"{file}: line {number}: expected the boxes of an image; {_MEND}")
        images[entry["split"]][entry["id"]] = _entry(entry, len(header.classes), f"{file}: line {number}")
    return header, images


_MEND = "make the cache anew by `ladle teacher cache`"


def _entry(entry: dict[str, Any], classes: int, where: str) -> Detections:
    try:
        boxes = torch.tensor(entry["boxes"], dtype=torch.float32).view(-1, 4)
        scores = torch.tensor(entry["scores"], dtype=torch.float64)
        labels = torch.tensor(entry["labels"], dtype=torch.long)
        fits = len(boxes) == len(scores) == len(labels) and bool(((labels >= 0) & (labels < classes)).all())
    except (KeyError, TypeError, ValueError, RuntimeError):
        fits = False
    if not fits or not bool(boxes.isfinite().all() and scores.isfinite().all()):
        raise UserError(f"{where}: expected boxes, scores and labels of its {classes} classes; {_MEND}")
    return Detections(boxes, scores, labels)


def open_cache(uri: TeacherURI) -> RecordedTeacher:
    """Open a cache that ``ladle teacher cache`` wrote."""
    uri.check(("class_map",))
    if not Path(uri.path).is_file():
        raise uri.fail(f"there is no file {uri.path}; expected a cache written by `ladle teacher cache`")
    header, images = read_cache(Path(uri.path))
    return _recorded(Path(uri.path).name, header.classes, images, header)


def open_predictions(uri: TeacherURI, classes: Sequence[str], category_ids: Sequence[int]) -> RecordedTeacher:
    """Open COCO results: a JSON list of ``image_id`` or ``file_name``, ``category_id``, ``bbox`` and ``score``.

    Category ids are those of the data, whose classes and ids are given, unless ``?classes=`` says otherwise.
    """
    uri.check(("classes", "class_map"))
    if not Path(uri.path).is_file():
        raise uri.fail(f"there is no file {uri.path}; expected COCO results, a JSON list")
    given = uri.options.get("classes")
    if given == "coco80":
        classes, category_ids = COCO_CLASSES, _COCO_IDS
    elif given is not None:
        classes = uri.lines("classes")
        category_ids = range(1, len(classes) + 1)
    rows = parse_json(read_regular(Path(uri.path), _MOST_BYTES), uri.path, most=_MOST_BYTES)
    if not isinstance(rows, list) or not rows:
        raise uri.fail("expected COCO results, a JSON list with at least one detection")
    number = {one: label for label, one in enumerate(category_ids)}
    images: dict[int | str, list[tuple[list[float], float, int]]] = {}
    for place, row in enumerate(rows):
        image, found = _result(row, number)
        if image is None or found is None:
            raise uri.fail(
                f"entry {place + 1}: expected image_id or file_name, bbox as x y w h, score from 0 to 1, and a "
                f"category_id of the data or of ?classes=, found {str(row)[:100]}"
            )
        images.setdefault(image, []).append(found)
    return _recorded(
        Path(uri.path).name, tuple(classes), {"": {image: _joined(each) for image, each in images.items()}}
    )


def _result(row: Any, number: Mapping[int, int]) -> tuple[int | str | None, tuple[list[float], float, int] | None]:
    """The image of one detection, and its corners, score and label; None for what is wrong."""
    try:
        image = row["image_id"] if "image_id" in row else PurePosixPath(row["file_name"]).as_posix()
        x, y, width, height = map(float, row["bbox"])
        score, label = float(row["score"]), number[row["category_id"]]
        fits = 0 <= score <= 1 and 0 <= width < 1e9 and 0 <= height < 1e9 and abs(x) < 1e9 and abs(y) < 1e9
    except (KeyError, TypeError, ValueError):
        return None, None
    return (image if isinstance(image, int | str) else None), (
        [x, y, x + width, y + height],
        score,
        label,
    ) if fits else None


def _joined(each: Iterable[tuple[list[float], float, int]]) -> Detections:
    boxes, scores, labels = zip(*each, strict=True)
    return Detections(torch.tensor(boxes), torch.tensor(scores, dtype=torch.float64), torch.tensor(labels))


def _recorded(
    name: str, classes: tuple[str, ...], splits: Mapping[str, Images], header: CacheHeader | None = None
) -> RecordedTeacher:
    rows: dict[str, Rows] = {}
    every = [Detections(torch.zeros(0, 4), torch.zeros(0).double(), torch.zeros(0).long())]
    end = 0
    for split, images in splits.items():
        ends = list(accumulate((len(one.scores) for one in images.values()), initial=end))
        rows[split] = dict(zip(images, zip(ends[:-1], ends[1:], strict=True), strict=True))
        every += images.values()
        end = ends[-1]
    boxes, scores, labels = (torch.cat([getattr(one, part) for one in every]) for part in ("boxes", "scores", "labels"))
    return RecordedTeacher(name, classes, boxes, scores, labels, rows, header)
