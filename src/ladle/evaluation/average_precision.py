"""Average precision and recall as defined by COCO."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import ArrayLike, NDArray

from ladle.errors import UserError
from ladle.types import Detections

__all__ = [
    "AP_FIELDS",
    "COCO_THRESHOLDS",
    "Evaluation",
    "Reference",
    "Tables",
    "as_array",
    "check_names",
    "checked",
    "coco_results",
    "evaluate",
    "limits",
    "tabulate",
]

COCO_THRESHOLDS = tuple(np.linspace(0.5, 0.95, 10).tolist())
"""The ten IoU thresholds that COCO averages over."""
_AREAS = {"all": 0, "small": 1, "medium": 2, "large": 3}
_COCO_MOST = 100
"""Most detections per image in COCO's numbers."""


@runtime_checkable
class Reference(Protocol):
    """The ground truth of one image as tensors or arrays, in pixels of the image.

    ``boxes`` is (n, 4) xyxy, ``labels`` (n,) starts at 0, ``crowd`` (n,) is true for boxes of several objects. ``id``
    may be any hashable value.
    """

    @property
    def id(self) -> Hashable: ...  # noqa: D102
    @property
    def height(self) -> int: ...  # noqa: D102
    @property
    def width(self) -> int: ...  # noqa: D102
    @property
    def boxes(self) -> Any: ...  # noqa: D102
    @property
    def labels(self) -> Any: ...  # noqa: D102
    @property
    def crowd(self) -> Any: ...  # noqa: D102


AP_FIELDS = {
    "AP": "ap",
    "AP50": "ap50",
    "AP75": "ap75",
    "APS": "ap_small",
    "APM": "ap_medium",
    "APL": "ap_large",
}
"""The fields of an :class:`Evaluation` that are an AP, by the names that papers use."""


@dataclass(frozen=True)
class Evaluation:
    """COCO's twelve numbers in [0, 1], NaN if there is no such object, and the AP of every class.

    ``ap`` is the average over IoU 0.50 to 0.95; ``ar10`` is the recall with 10 detections per image. The limits between
    small, medium and large are box areas of 32² and 96² pixels; COCO's leader board uses mask areas instead. Per image
    and class the ``most`` detections of highest score count: 100 in COCO. With another number, ``ar100`` is the recall
    with that many detections.
    """

    ap: float
    ap50: float
    ap75: float
    ap_small: float
    ap_medium: float
    ap_large: float
    ar1: float
    ar10: float
    ar100: float
    ar_small: float
    ar_medium: float
    ar_large: float
    per_class: dict[str, float]
    most: int = _COCO_MOST

    def row(self, digits: int = 1) -> dict[str, float]:
        """The six AP numbers in percent, with the names that papers use."""
        return {name: round(100 * getattr(self, field), digits) for name, field in AP_FIELDS.items()}

    def recalls(self, digits: int = 1) -> dict[str, float]:
        """The six AR numbers in percent; the first three are named after the number of detections."""
        named = {"AR1": self.ar1, f"AR{min(10, self.most)}": self.ar10, f"AR{self.most}": self.ar100}
        named |= {"ARS": self.ar_small, "ARM": self.ar_medium, "ARL": self.ar_large}
        return {name: round(100 * value, digits) for name, value in named.items()}


class Tables(NamedTuple):
    """COCO's tables over T thresholds, R recall points, C classes, 4 areas and L limits; NaN where undefined.

    Areas are all, small, medium, large; limits are those of :func:`limits`. ``scores`` is the score at which each
    recall is reached.
    """

    precision: Float[np.ndarray, "T R C 4 L"]
    recall: Float[np.ndarray, "T C 4 L"]
    scores: Float[np.ndarray, "T R C 4 L"]


def limits(most: int) -> tuple[int, ...]:
    """The numbers of detections per image and class that are evaluated: 1, 10 and ``most``, up to ``most``."""
    if most < 1:
        raise UserError(f"at least one detection of an image must count, not {most}: give a larger number")
    return tuple(sorted({1, min(10, most), most}))


def evaluate(
    truth: Iterable[Reference],
    detections: Mapping[Hashable, Detections],
    classes: Sequence[str],
    most: int = _COCO_MOST,
) -> Evaluation:
    """Evaluate detections against the ground truth.

    Args:
        truth: the ground truth of all images.
        detections: the detections by image id; an image without an entry has no detections.
        classes: the names of the classes.
        most: number of detections per image and class that count, those of highest score.

    Raises:
        UserError: if ids, labels or classes of truth and detections do not agree.
    """
    tables = tabulate(truth, detections, classes, most=most)
    precision, recall = tables.precision[..., -1], tables.recall
    area, ten = _AREAS, limits(most).index(min(10, most))
    per_class = [_mean(precision[:, :, label, area["all"]]) for label in range(len(classes))]
    return Evaluation(
        ap=_mean(precision[..., area["all"]]),
        ap50=_mean(precision[_threshold(0.5), ..., area["all"]]),
        ap75=_mean(precision[_threshold(0.75), ..., area["all"]]),
        ap_small=_mean(precision[..., area["small"]]),
        ap_medium=_mean(precision[..., area["medium"]]),
        ap_large=_mean(precision[..., area["large"]]),
        ar1=_mean(recall[..., area["all"], 0]),
        ar10=_mean(recall[..., area["all"], ten]),
        ar100=_mean(recall[..., area["all"], -1]),
        ar_small=_mean(recall[..., area["small"], -1]),
        ar_medium=_mean(recall[..., area["medium"], -1]),
        ar_large=_mean(recall[..., area["large"], -1]),
        per_class=dict(zip(classes, per_class, strict=True)),
        most=most,
    )


def tabulate(
    truth: Iterable[Reference],
    detections: Mapping[Hashable, Detections],
    classes: Sequence[str],
    thresholds: Sequence[float] = COCO_THRESHOLDS,
    most: int = _COCO_MOST,
) -> Tables:
    """Match detections and objects at every IoU threshold, with faster-coco-eval.

    Detections are matched to objects of the same class in order of their scores; those on a crowd region do not count.
    """
    from faster_coco_eval import COCO, COCOeval_faster

    # New ids from 1, because COCO's code needs small integers and the ids of a data set may be anything.
    images = dict(enumerate(checked(truth, detections, classes), start=1))
    if not images or not classes:
        return _empty(len(thresholds), len(classes), len(limits(most)))
    frame = {
        "images": [{"id": n, "height": p.height, "width": p.width} for n, p in images.items()],
        "categories": [{"id": label, "name": str(label)} for label in range(len(classes))],
    }
    objects = list(_objects(images))
    found = list(_found(images, detections))
    evaluator = COCOeval_faster(
        COCO(frame | {"annotations": objects}, print_function=_quiet),
        COCO(frame | {"annotations": found}, print_function=_quiet),
        iouType="bbox",
        print_function=_quiet,
    )
    evaluator.params.iouThrs = np.asarray(thresholds, dtype=np.float64)
    evaluator.params.maxDets = list(limits(most))
    evaluator.evaluate()
    evaluator.accumulate()
    return Tables(*(_undefined_to_nan(evaluator.eval[name]) for name in Tables._fields))


def coco_results(detections: Mapping[Hashable, Detections], category_ids: Sequence[int]) -> list[dict[str, Any]]:
    """Detections in the format of COCO's results files: boxes ``x y w h`` and category ids.

    ``category_ids[label]`` is the category id of each label.
    """
    return [
        {"image_id": image, "category_id": category_ids[label], "bbox": box, "score": score}
        for image, found in detections.items()
        for box, label, score in zip(
            _xywh(found.boxes).tolist(), found.labels.tolist(), found.scores.tolist(), strict=True
        )
    ]


def checked(
    truth: Iterable[Reference], detections: Mapping[Hashable, Detections], classes: Sequence[str]
) -> list[Reference]:
    """The ground truth as a list, after a check that its ids and labels agree with detections and classes."""
    images = list(truth)
    known = {reference.id for reference in images}
    if len(known) != len(images):
        raise UserError(f"{len(images)} images share {len(known)} ids: give every image an id of its own")
    check_names(classes)
    if unknown := [image for image in detections if image not in known]:
        raise UserError(
            f"detections of image {unknown[0]!r} have no ground truth ({len(unknown)} such images): "
            "evaluate them against the data set they were made on"
        )
    for reference in images:
        _check_labels(reference.labels, len(classes), f"ground truth of image {reference.id!r}")
    for image, found in detections.items():
        _check_labels(found.labels, len(classes), f"detections of image {image!r}")
        if not (found.boxes.isfinite().all() and found.scores.isfinite().all()):
            raise UserError(f"detections of image {image!r} hold nan or inf: the model has diverged, lower --lr")
    return images


def check_names(classes: Sequence[str], owner: str = "the data") -> None:
    """Raise UserError for classes with the same name, because classes are matched by name."""
    doubles = [name for name, count in Counter(classes).items() if count > 1]
    if doubles:
        raise UserError(
            f"{owner}: expected classes with a name each, found {classes.count(doubles[0])} called {doubles[0]!r}"
            f"{f' and {len(doubles) - 1} more such names' if len(doubles) > 1 else ''}: rename them or merge them"
        )


def _check_labels(labels: Any, classes: int, owner: str) -> None:
    values = as_array(labels)
    if values.size and not 0 <= values.min() <= values.max() < classes:
        raise UserError(
            f"{owner} has labels from {values.min()} to {values.max()}, expected 0 to {classes - 1}: "
            "evaluate with the class names the labels were made for"
        )


def _objects(images: Mapping[int, Reference]) -> Iterator[dict[str, Any]]:
    # Ids start at 1 because COCO's matching uses id 0 for "not matched".
    number = 0
    for image, reference in images.items():
        boxes, labels, crowd = _xywh(reference.boxes).tolist(), as_array(reference.labels), as_array(reference.crowd)
        for box, label, many in zip(boxes, labels.tolist(), crowd.tolist(), strict=True):
            number += 1
            yield _annotation(number, image, label, box) | {"iscrowd": int(many)}


def _found(images: Mapping[int, Reference], detections: Mapping[Hashable, Detections]) -> Iterator[dict[str, Any]]:
    number = 0
    for image, reference in images.items():
        if reference.id not in detections:
            continue
        found = detections[reference.id]
        boxes = _xywh(found.boxes).tolist()
        for box, label, score in zip(boxes, found.labels.tolist(), found.scores.tolist(), strict=True):
            number += 1
            yield _annotation(number, image, label, box) | {"iscrowd": 0, "score": score}


def _annotation(number: int, image: int, label: int, box: list[float]) -> dict[str, Any]:
    return {"id": number, "image_id": image, "category_id": label, "bbox": box, "area": box[2] * box[3]}


def as_array(values: Any) -> NDArray[Any]:
    """A tensor on any device, or an array-like value, as a numpy array."""
    return values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)


def _xywh(boxes: Any) -> Float[np.ndarray, "n 4"]:
    corners = as_array(boxes).astype(np.float64).reshape(-1, 4)
    return np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)


def _undefined_to_nan(table: ArrayLike) -> NDArray[np.float64]:
    values = np.asarray(table, dtype=np.float64)
    return np.where(values == -1, np.nan, values)


def _empty(thresholds: int, classes: int, counts: int) -> Tables:
    curves = np.full((thresholds, 101, classes, len(_AREAS), counts), np.nan)
    return Tables(curves, curves[:, 0], curves)


def _mean(values: NDArray[np.float64]) -> float:
    """The mean of the defined values; NaN if there are none."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if defined.size else float("nan")


def _threshold(iou: float) -> Int[np.ndarray, " n"]:
    return np.flatnonzero(np.isclose(COCO_THRESHOLDS, iou))


def _quiet(*_: object) -> None:
    """A print function for faster-coco-eval that prints nothing."""
