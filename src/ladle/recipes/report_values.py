"""The numbers of a report: computed from the last evaluation of a run, stored beside it, read again."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from jaxtyping import Float

from ladle.boxes import SIZES
from ladle.data.sources import DatasetSource, Source
from ladle.errors import UserError
from ladle.evaluation import (
    DETECTION_KINDS,
    OBJECT_KINDS,
    Evaluation,
    ImageErrors,
    best_threshold,
    confusion,
    errors_by_kind,
    image_errors,
    precision_recall,
)
from ladle.evaluation.average_precision import Reference, as_array
from ladle.files import read_regular, write_text
from ladle.limits import Length, Range
from ladle.recipes.scoring import Score
from ladle.statistics import Group, Statistics
from ladle.types import Detections
from ladle.untrusted import parse_json, read_record

__all__ = [
    "NUMBERS",
    "AnyKind",
    "Assigned",
    "ClassNumbers",
    "Learning",
    "MarkedBox",
    "Numbers",
    "Scored",
    "Seen",
    "learning_from",
    "read_numbers",
    "scored",
    "write_numbers",
]

NUMBERS = "report.json"
"""The file of a run folder with the numbers of its report."""
_MOST_BYTES = 16_000_000
_WORST, _BEST = 8, 4
"""Images that are shown."""
_MOST_BOXES = 60
"""Detections of an image that are shown, those of highest score."""
_MOST_CURVES = 8
"""With more classes only the mean of the precision-recall curves is kept."""

_MEND = "remove it, and `ladle report` evaluates the run again"

Count = Annotated[int, Range(0, 2**53)]
Share = Annotated[float, Range(-1000, 1000)]
"""A place in shares of the side of an image; boxes may reach beyond it."""
AnyKind = Annotated[str, Length(0, 40)]


@dataclass(frozen=True)
class MarkedBox:
    """A box in shares of the width and height of its image, its label, its kind, and its score if it was detected."""

    box: tuple[Share, Share, Share, Share]
    label: Count
    kind: AnyKind
    score: float | None = None


@dataclass(frozen=True)
class Seen:
    """An image that is shown: its place in the split, its name, its objects and its detections above the threshold.

    ``detections`` are those that are drawn; ``others`` is the number of further ones by kind.
    """

    index: Count
    name: str
    objects: tuple[MarkedBox, ...]
    detections: tuple[MarkedBox, ...]
    others: dict[str, Count] = field(default_factory=dict)


@dataclass(frozen=True)
class ClassNumbers:
    """The objects of a class, its AP in [0, 1] or None, and its detections and objects by kind."""

    name: str
    objects: Count
    ap: float | None
    kinds: dict[str, int]


@dataclass(frozen=True)
class Assigned:
    """A training image that is drawn with its assignment: its caption, and its objects with positives by level."""

    caption: str
    objects: tuple[dict[str, str], ...]


@dataclass(frozen=True)
class Learning:
    """Objects without a positive among some training images, at the end of the training.

    ``drawn`` are the images of the objects with the fewest positives; they lie in the folder ``plots`` of the run.
    """

    about: str
    images: Count
    objects: Count
    without: Count
    by_size: tuple[Group, ...]
    by_class: tuple[Group, ...]
    advice: tuple[str, ...]
    drawn: tuple[Assigned, ...] = ()


@dataclass(frozen=True)
class Scored:
    """The evaluation of one student of a run; values are in [0, 1], and None where there is no such object.

    ``metrics`` are the fields of :class:`ladle.evaluation.Evaluation`, ``by_size`` the numbers of objects. ``curves``
    are precisions at 101 recalls by name, ``confused`` the counts above 0 of the confusion matrix, as row, column and
    count. ``flops`` are those of one image. ``sha256`` is that of the file of weights that was evaluated, or None if it
    was not stored.
    """

    student: str
    model: str
    imgsz: Count
    epoch: Count
    images: Count
    most: Count
    metrics: dict[str, float | None]
    by_size: dict[str, int]
    classes: tuple[ClassNumbers, ...]
    threshold: float
    precision: float
    recall: float
    f1: float
    curves: dict[str, tuple[float, ...]]
    confused: tuple[tuple[Count, Count, Count], ...]
    worst: tuple[Seen, ...]
    best: tuple[Seen, ...]
    parameters: Count
    flops: Count
    learning: Learning | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class Numbers:
    """The contents of report.json: the training time in seconds and the students."""

    seconds: float
    students: tuple[Scored, ...]


def read_numbers(folder: Path) -> Numbers | None:
    """The numbers of a run folder; None where there are none."""
    file = folder / NUMBERS
    if not file.is_file():
        return None
    data = parse_json(read_regular(file, _MOST_BYTES), str(file), _MOST_BYTES)
    numbers = read_record(Numbers, data, str(file), _MEND)
    for one in numbers.students:
        _check_places(one, file)
    return numbers


def _check_places(one: Scored, file: Path) -> None:
    """Raise :class:`UserError` for a label without a class, or for an image that was not evaluated."""
    seen, classes = (*one.worst, *one.best), len(one.classes)
    found = {
        f"labels below {classes}, the number of classes": (
            [box.label for image in seen for box in (*image.objects, *image.detections)],
            classes,
        ),
        f"rows and columns of confused of at most {classes}, the number of classes": (
            [place for row, column, _ in one.confused for place in (row, column)],
            classes + 1,
        ),
        f"an index below {one.images}, the number of images": ([image.index for image in seen], one.images),
    }
    for expected, (places, limit) in found.items():
        largest = max(places, default=-1)
        if largest >= limit:
            raise UserError(f"{file}: expected {expected}, found {largest}; {_MEND}")


def write_numbers(folder: Path, numbers: Numbers) -> None:
    """Write the numbers into a run folder."""
    text = json.dumps(asdict(numbers), ensure_ascii=False, allow_nan=False)
    write_text(folder / NUMBERS, text + "\n", only_changes=True)


def scored(
    score: Score,
    truth: Sequence[Reference],
    source: Source,
    about: Mapping[str, Any],
    learning: Learning | None = None,
) -> Scored:
    """The numbers of an evaluation; ``about`` are the fields of :class:`Scored` that tell what was evaluated."""
    found, classes = score.detections, source.classes
    best = best_threshold(truth, found, classes)
    worst_seen, best_seen = _chosen(truth, found, source, best.score)
    matrix = confusion(truth, found, classes, score=best.score).counts
    return Scored(
        **about,
        images=len(truth),
        most=score.evaluation.most,
        metrics=_metrics(score.evaluation),
        by_size=_sizes(truth),
        classes=_by_class(score.evaluation, truth, found, classes, best.score),
        threshold=best.score,
        precision=best.precision,
        recall=best.recall,
        f1=best.f1,
        curves=_curves(truth, found, classes, score.evaluation.most),
        confused=tuple((int(i), int(j), int(matrix[i, j])) for i, j in np.argwhere(matrix)),
        worst=worst_seen,
        best=best_seen,
        learning=learning,
    )


def learning_from(numbers: Statistics, about: str, told: Sequence[str]) -> Learning:
    """What a report keeps of the statistics of an assignment."""
    return Learning(
        about, numbers.images, numbers.objects, numbers.without, numbers.by_size, numbers.by_class, tuple(told)
    )


def _metrics(evaluation: Evaluation) -> dict[str, float | None]:
    values = asdict(evaluation)
    del values["per_class"], values["most"]
    return {name: _or_none(value) for name, value in values.items()}


def _or_none(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _objects(image: Reference) -> tuple[Float[np.ndarray, "n 4"], list[int]]:
    """The boxes and labels of an image without crowds."""
    real = ~as_array(image.crowd).astype(bool)
    boxes = as_array(image.boxes).astype(np.float64).reshape(-1, 4)
    return boxes[real], as_array(image.labels)[real].tolist()


def _sizes(truth: Sequence[Reference]) -> dict[str, int]:
    """The number of small, medium and large objects."""
    boxes = np.concatenate([np.zeros((0, 4)), *(_objects(image)[0] for image in truth)])
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    return {name: int(((areas >= low) & (areas < high)).sum()) for name, (low, high) in SIZES.items()}


def _by_class(
    evaluation: Evaluation,
    truth: Sequence[Reference],
    found: Mapping[Hashable, Detections],
    classes: Sequence[str],
    threshold: float,
) -> tuple[ClassNumbers, ...]:
    errors = errors_by_kind(truth, found, classes, threshold)
    counted = errors.detections | errors.objects
    objects = sum(errors.objects[kind] for kind in OBJECT_KINDS)
    return tuple(
        ClassNumbers(
            name,
            int(np.asarray(objects)[label]),
            _or_none(evaluation.per_class[name]),
            {kind: int(counts[label]) for kind, counts in counted.items()},
        )
        for label, name in enumerate(classes)
    )


def _curves(
    truth: Sequence[Reference], found: Mapping[Hashable, Detections], classes: Sequence[str], most: int
) -> dict[str, tuple[float, ...]]:
    """The mean of the precision-recall curves at IoU 0.5, and where there are few classes each."""
    result = precision_recall(truth, found, classes, most=most)
    present = [label for label in range(len(classes)) if not np.isnan(result.precision[label]).any()]
    if not present:
        return {}
    curves = {"mean": result.precision[present].mean(0)}
    if 1 < len(present) <= _MOST_CURVES:
        curves |= {f"class {classes[label]}": result.precision[label] for label in present}
    return {name: tuple(np.round(curve, 4).tolist()) for name, curve in curves.items()}


def _chosen(
    truth: Sequence[Reference], found: Mapping[Hashable, Detections], source: Source, threshold: float
) -> tuple[tuple[Seen, ...], tuple[Seen, ...]]:
    """The images with most errors, and those with most objects and fewest errors."""
    every = [image_errors(image, found.get(image.id), threshold) for image in truth]
    wrong = [_errors(one) for one in every]
    right = [int((one.states == OBJECT_KINDS.index("found")).sum()) for one in every]
    order = range(len(truth))
    worst = [n for n in sorted(order, key=lambda n: (-wrong[n], right[n], n)) if wrong[n]][:_WORST]
    good = [n for n in sorted(order, key=lambda n: (wrong[n] - right[n], n)) if right[n] > wrong[n] and n not in worst]
    shown = [_seen(n, truth[n], found.get(truth[n].id), every[n], source) for n in (*worst, *good[:_BEST])]
    return tuple(shown[: len(worst)]), tuple(shown[len(worst) :])


def _errors(one: ImageErrors) -> int:
    """The number of wrong detections and of missed objects; one misplaced detection of an object counts once."""
    return int((one.kinds > DETECTION_KINDS.index("correct")).sum()) + int(
        (one.states == OBJECT_KINDS.index("missed")).sum()
    )


def _seen(index: int, image: Reference, found: Detections | None, one: ImageErrors, source: Source) -> Seen:
    boxes, labels = _objects(image)
    objects = [
        MarkedBox(_shares(box, image), label, OBJECT_KINDS[state])
        for box, label, state in zip(boxes, labels, one.states, strict=True)
    ]
    counted = [(place, kind) for place, kind in zip(one.order, one.kinds, strict=True) if kind >= 0]
    detections = []
    if found is not None:
        for place, kind in counted[:_MOST_BOXES]:
            box = found.boxes[place].double().numpy()
            score = round(float(found.scores[place]), 4)
            detections.append(MarkedBox(_shares(box, image), int(found.labels[place]), DETECTION_KINDS[kind], score))
    others = Counter(DETECTION_KINDS[kind] for _, kind in counted[_MOST_BOXES:])
    return Seen(index, _name(image, index, source), tuple(objects), tuple(detections), dict(others))


def _shares(box: Float[np.ndarray, " 4"], image: Reference) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = (box / [image.width, image.height, image.width, image.height]).round(4).tolist()
    return x1, y1, x2, y2


def _name(image: Reference, index: int, source: Source) -> str:
    if isinstance(source, DatasetSource):
        return source.dataset.images[index].file.name
    return f"image {image.id}"
