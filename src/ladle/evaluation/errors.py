"""Errors of detections by kind, as TIDE has them."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from ladle.errors import UserError
from ladle.evaluation.average_precision import Reference, checked
from ladle.evaluation.curves import best_threshold
from ladle.evaluation.matching import Matched, match_image
from ladle.types import Detections

__all__ = ["DETECTION_KINDS", "OBJECT_KINDS", "Errors", "ImageErrors", "errors_by_kind", "image_errors"]

DETECTION_KINDS = ("correct", "classification", "localization", "both", "duplicate", "background")
"""What a detection can be."""
OBJECT_KINDS = ("found", "attempted", "missed")
"""What an object can be; an attempted one has no correct detection, but one of wrong class or wrong place."""
_IGNORED = -1
"""Instead of a kind, for detections on a crowd region."""


class ImageErrors(NamedTuple):
    """The kinds of the detections and of the objects of one image.

    ``order`` are the places of N detections from the highest score on, ``kinds`` indices into :data:`DETECTION_KINDS`,
    or -1 for detections on a crowd region. ``objects`` are the places of G objects that are no crowds, ``states``
    indices into :data:`OBJECT_KINDS`.
    """

    order: Int[np.ndarray, " N"]
    kinds: Int[np.ndarray, " N"]
    objects: Int[np.ndarray, " G"]
    states: Int[np.ndarray, " G"]


@dataclass(frozen=True)
class Errors:
    """The number of detections and objects of every kind, for each of C classes.

    ``detections`` maps :data:`DETECTION_KINDS` to counts by the detected class; they add up to the detections of at
    least ``score`` that are not on a crowd region. ``objects`` maps :data:`OBJECT_KINDS` to counts by the class of the
    object; they add up to the objects that are no crowds.
    """

    classes: tuple[str, ...]
    score: float
    detections: dict[str, Int[np.ndarray, " C"]]
    objects: dict[str, Int[np.ndarray, " C"]]

    def total(self, kind: str) -> int:
        """The number of detections, or of objects, of a kind over all classes."""
        return int((self.detections | self.objects)[kind].sum())


def errors_by_kind(
    truth: Iterable[Reference],
    detections: Mapping[Hashable, Detections],
    classes: Sequence[str],
    score: float | None = None,
    foreground: float = 0.5,
    background: float = 0.1,
) -> Errors:
    """Count the errors of each kind, as defined by TIDE (Bolya et al., ECCV 2020).

    A detection is **correct** if it takes an object of its class: in order of their scores, each detection takes the
    free object of its class that it overlaps most, with an IoU of at least ``foreground``. Any other detection has
    exactly one error, the first of these that applies:

    - **localization**: its largest IoU with an object of its class is at least ``background``, below ``foreground``;
    - **classification**: its largest IoU with an object of another class is at least ``foreground``;
    - **duplicate**: its largest IoU with an object of its class is at least ``foreground``, but a detection of higher
      score has taken that object;
    - **background**: it overlaps no object by at least ``background``;
    - **both**: it overlaps an object of another class by at least ``background``, too little to be localized.

    An object is **found** if a detection takes it, **attempted** if it is the object of a localization or
    classification error and not found, and **missed** otherwise. TIDE counts the gain in AP if a kind of error were
    corrected; these are the numbers of errors at one threshold of the score.

    Args:
        truth: the ground truth of all images.
        detections: the detections by image id.
        classes: the names of the classes.
        score: detections below are left out; by default the threshold that maximizes F1.
        foreground: IoU from which on a detection is in the right place.
        background: IoU below which a detection is on background.

    Raises:
        UserError: if ids, labels or classes do not agree, or if the two IoUs are not in order.

    Examples:
        >>> from types import SimpleNamespace
        >>> import torch
        >>> from ladle.evaluation import errors_by_kind
        >>> from ladle.types import Detections
        >>> box = torch.tensor([[0.0, 0.0, 40.0, 40.0]])
        >>> image = SimpleNamespace(id=1, height=64, width=64, boxes=box, labels=[0], crowd=[False])
        >>> twice = Detections(box.repeat(2, 1), torch.tensor([0.9, 0.8]), torch.tensor([0, 0]))
        >>> errors = errors_by_kind([image], {1: twice}, ["cat"], score=0.5)
        >>> errors.total("correct"), errors.total("duplicate"), errors.total("missed")
        (1, 1, 0)
    """
    if not 0 < background < foreground <= 1:
        raise UserError(f"expected 0 < background < foreground <= 1, found {background} and {foreground}")
    images = checked(truth, detections, classes)
    if score is None:
        score = best_threshold(images, detections, classes, foreground).score
    found = np.zeros((len(DETECTION_KINDS), len(classes)), dtype=np.int64)
    objects = np.zeros((len(OBJECT_KINDS), len(classes)), dtype=np.int64)
    for image in images:
        matched = match_image(image, detections.get(image.id), foreground, score)
        kinds, states = _kinds(matched, foreground, background)
        counted = kinds != _IGNORED
        np.add.at(found, (kinds[counted], matched.labels[counted]), 1)
        np.add.at(objects, (states, matched.object_labels), 1)
    return Errors(
        tuple(classes),
        score,
        dict(zip(DETECTION_KINDS, found, strict=True)),
        dict(zip(OBJECT_KINDS, objects, strict=True)),
    )


def image_errors(
    image: Reference, found: Detections | None, score: float, foreground: float = 0.5, background: float = 0.1
) -> ImageErrors:
    """The kind of every detection and object of one image, see :func:`errors_by_kind`."""
    matched = match_image(image, found, foreground, score)
    kinds, states = _kinds(matched, foreground, background)
    return ImageErrors(matched.order, kinds, matched.objects, states)


def _kinds(
    matched: Matched, foreground: float, background: float
) -> tuple[Int[np.ndarray, " N"], Int[np.ndarray, " G"]]:
    """The kind of each detection, and the state of each object."""
    same = matched.labels[:, None] == matched.object_labels
    own, own_object = _largest(np.where(same, matched.overlaps, 0.0))
    other, other_object = _largest(np.where(same, 0.0, matched.overlaps))
    conditions = {
        "correct": matched.match >= 0,
        "ignored": matched.on_crowd,
        "localization": (own >= background) & (own < foreground),
        "classification": other >= foreground,
        "duplicate": own >= foreground,
        "background": np.maximum(own, other) < background,
    }
    numbers = [_IGNORED if kind == "ignored" else DETECTION_KINDS.index(kind) for kind in conditions]
    kinds = np.select(list(conditions.values()), numbers, DETECTION_KINDS.index("both"))
    states = np.full(len(matched.objects), OBJECT_KINDS.index("missed"))
    states[own_object[kinds == DETECTION_KINDS.index("localization")]] = OBJECT_KINDS.index("attempted")
    states[other_object[kinds == DETECTION_KINDS.index("classification")]] = OBJECT_KINDS.index("attempted")
    states[matched.match[matched.match >= 0]] = OBJECT_KINDS.index("found")
    return kinds, states


def _largest(overlaps: Float[np.ndarray, "N G"]) -> tuple[Float[np.ndarray, " N"], Int[np.ndarray, " N"]]:
    """The largest value of each row and its column; 0 and 0 without columns."""
    if not overlaps.shape[1]:
        return np.zeros(len(overlaps)), np.zeros(len(overlaps), dtype=np.int64)
    return overlaps.max(1), overlaps.argmax(1)
