"""Checks before the first training step."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from ladle.data.depth import spelled
from ladle.data.loader import padded_side
from ladle.data.sources import DatasetSource, Source
from ladle.detectors import Detector, DetectorSpec, load_detector
from ladle.errors import UserError
from ladle.methods import Plan
from ladle.recipes.opened import OpenedTeacher
from ladle.recipes.scoring import Evaluator, find_of
from ladle.teachers import DenseTeacher, ForeignTeacher, FrozenDetector, MovedTeacher, TimmTeacher

__all__ = [
    "MOVED",
    "check_ap",
    "check_strength",
    "check_trainable",
    "load_foreign",
    "load_teacher",
    "reads_otherwise",
    "strength_in_words",
]

LEAST_AP = 0.01
"""A teacher below this AP is an error."""
MOVED = "its predictions are moved to the student's priors: re-sampled from grid to grid, final boxes placed by overlap"
"""A line about a teacher that does not have the student's priors."""
_SAMPLE = 64


def check_trainable(network: Detector, batch: int, sides: Sequence[int]) -> None:
    """Run the smallest batch that a network will train on; the network must not be used afterwards.

    Batch normalization has no variance if a feature map has one value of one image, such as a map of stride 32 at 32
    pixels, and some backbones take images of one size only. Raises :class:`UserError` in these cases. ``sides`` are the
    long sides of the images.
    """
    spec, side = network.spec, padded_side(min(sides))
    wrong = _failure(network, batch, 32, side)
    if wrong is None:
        return
    if "more than 1 value per channel" in str(wrong):
        group = "--norm group, " if spec.backbone.can_group else ""
        raise UserError(
            f"{spec.name} uses batch normalization, but of a single image of {side} pixels some of its maps hold one "
            f"value only: give {group}--batch 2, or larger images by --imgsz (and by a smaller --multiscale)"
        )
    wrong = _failure(network, batch, side, side)
    if wrong is not None:
        why = " ".join(str(wrong).split())[:200]
        raise UserError(
            f"the backbone of {spec.name} cannot take images of {side} pixels ({why}): take another --imgsz or model"
        ) from wrong


def _failure(network: Detector, batch: int, height: int, width: int) -> Exception | None:
    """The exception that a network raises for black images, or None."""
    try:
        with torch.no_grad():
            network.train().extract_features(torch.zeros(min(batch, 2), 3, height, width))
    except Exception as error:
        return error
    return None


def load_teacher(file: str, student: DetectorSpec, plan: Plan) -> FrozenDetector | MovedTeacher:
    """Load a teacher of Ladle's with the student's classes; raises :class:`UserError` if it lacks one.

    If only feature maps are used, its classes may differ. If its priors differ and its predictions are needed at the
    student's, they are moved.
    """
    detector = load_detector(file)
    if plan.features_only:
        return FrozenDetector(detector, None)
    try:
        frozen = FrozenDetector(detector, student.classes)
    except UserError as error:
        raise UserError(f"--teacher {file}: {error}") from None
    return MovedTeacher(frozen) if plan.moved else frozen


def load_foreign(opened: OpenedTeacher, plan: Plan) -> ForeignTeacher | TimmTeacher | DenseTeacher:
    """A foreign teacher; raises :class:`UserError` if it would teach that there are no objects of some classes."""
    teacher = opened()
    if isinstance(teacher, TimmTeacher):
        return teacher
    missing = teacher.table.missing
    if missing and any(lesson.distillers for lesson in plan.lessons):
        raise UserError(
            f"--teacher {opened.text}: it does not know {', '.join(map(repr, missing))}, so its scores would teach "
            "that there is none of it; take --method lad, or name the teacher's class for it by --class-map names.yaml"
        )
    return teacher


def check_strength(
    text: str,
    teacher: Detector | ForeignTeacher,
    val: Source,
    imgsz: int,
    batch: int,
    device: str,
    allow_weak: bool,
    views: Source | None = None,
) -> float:
    """The teacher's AP on a sample of images, at the image size of the student."""
    evaluator = Evaluator(val, imgsz, batch, limit=_SAMPLE, views=views)
    if isinstance(teacher, Detector):
        ap = evaluator(teacher).evaluation.ap
    else:
        ap = evaluator.score(find_of(teacher, device), val.classes, 100).evaluation.ap
    check_ap(text, ap, f"{len(evaluator.source)} images", allow_weak)
    return ap


def check_ap(text: str, ap: float, where: str, allow_weak: bool) -> None:
    """Raise :class:`UserError` for a teacher whose AP is too low; nan is accepted."""
    if not math.isnan(ap) and ap < LEAST_AP and not allow_weak:
        raise UserError(
            f"--teacher {text} reaches {100 * ap:.1f} AP on {where}, expected at "
            f"least {100 * LEAST_AP:.0f}: train it on this data first, or accept it with --allow-weak-teacher"
        )


def strength_in_words(ap: float, split: str = "validation") -> str:
    """The AP of a teacher as text; nan means that the sample has no objects."""
    if math.isnan(ap):
        return f"not evaluated: the sample of {split} images holds no object"
    return f"{100 * ap:.1f} AP on a sample of the {split} images"


def reads_otherwise(source: Source, teacher: DetectorSpec) -> list[str]:
    """A line if a teacher was trained on 16-bit images with another value range."""
    if not isinstance(source, DatasetSource) or source.value_range == teacher.value_range:
        return []
    if not any(image.deep for image in source.dataset.images):
        return []
    theirs, ours = spelled(teacher.value_range), spelled(source.value_range)
    return [f"          note: it was trained with --value-range {theirs}, here images are read with {ours}"]
