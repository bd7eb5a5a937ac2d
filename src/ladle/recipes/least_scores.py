"""The least score of each class at which a teacher's box is taken for an object."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import TypeAlias

from torch import Tensor

from ladle.errors import UserError
from ladle.evaluation import class_thresholds
from ladle.evaluation.average_precision import Reference
from ladle.teachers.detections import FINAL_LEAST
from ladle.types import Detections

__all__ = ["Scores", "choose_scores", "chosen", "parse_scores"]

_USUAL = 0.5
"""The score of a class of which the teacher finds no object."""

Scores: TypeAlias = dict[str, float]
"""The least score of each class, by its name."""


def parse_scores(text: str | None, classes: Sequence[str]) -> Scores:
    """The scores of ``--unlabelled-score`` by class: one number for all, or ``cat=0.4,dog=0.6``.

    Raises:
        UserError: for a class that the data lacks, and for a number that is not between 0.01 and 1.

    Examples:
        >>> from ladle.recipes.least_scores import parse_scores
        >>> parse_scores("0.4", ["cat", "dog"]), parse_scores("dog=0.6", ["cat", "dog"])
        ({'cat': 0.4, 'dog': 0.4}, {'dog': 0.6})
    """
    if text is None:
        return {}
    pairs = [part.rpartition("=") for part in str(text).split(",")]
    if len(pairs) == 1 and not pairs[0][1]:
        pairs = [(name, "=", pairs[0][2]) for name in classes]
    scores = {}
    for name, _, number in pairs:
        if name not in classes:
            raise UserError(
                f"--unlabelled-score {text}: {name!r} is no class of the data; expected one number for all, or such as "
                f"{classes[0]}=0.5"
            )
        try:
            value = float(number)
        except ValueError:
            value = 0.0
        if not FINAL_LEAST <= value <= 1:
            raise UserError(f"--unlabelled-score {text}: expected numbers from {FINAL_LEAST} to 1, found {number!r}")
        scores[name] = value
    return scores


def choose_scores(truth: Sequence[Reference], found: Mapping[Hashable, Detections], classes: Sequence[str]) -> Scores:
    """The score of each class at which F1 of what is ``found`` in images with labels is highest.

    A box and an object of the class match at an IoU of at least 0.5. It is 0.5 for a class of which no object is found.
    """
    every = zip(classes, class_thresholds(truth, found, classes), strict=True)
    return {name: best.score if best.f1 > 0 else _USUAL for name, best in every}


def chosen(found: Detections, kept: Tensor) -> Detections:
    """Those of the detections of an image that a mask keeps."""
    return found.map(lambda values: values[kept])
