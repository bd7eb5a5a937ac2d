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
from ladle.families import network_info
from ladle.networks import prior_mismatches
from ladle.recipes.scoring import Evaluator
from ladle.teachers import FrozenDetector

__all__ = ["check_strength", "check_trainable", "load_teacher", "reads_otherwise", "strength_in_words"]

LEAST_AP = 0.01
"""A teacher below this AP is an error."""
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


def load_teacher(file: str, student: DetectorSpec, features_only: bool = False, aligned: bool = True) -> FrozenDetector:
    """Load a teacher and check that its classes and priors match the student's.

    With ``features_only`` only its feature maps are used, so its classes and priors may differ. Unless it must be
    ``aligned``, its priors may differ: a teacher that judges proposals predicts at the student's.
    """
    detector = load_detector(file)
    if features_only:
        return FrozenDetector(detector, None)
    found = prior_mismatches(network_info(student), network_info(detector.spec)) if aligned else []
    if found:
        raise UserError(
            f"--teacher {file} ({detector.spec.name}) and the student {student.name} do not match: "
            f"{'; '.join(found)}; take a student and a teacher of the same kind of backbone (tiny and small, or any of "
            "the larger ones), or distill feature maps alone, such as --method pkd"
        )
    try:
        return FrozenDetector(detector, student.classes)
    except UserError as error:
        raise UserError(f"--teacher {file}: {error}") from None


def check_strength(file: str, teacher: Detector, val: Source, imgsz: int, batch: int, allow_weak: bool) -> float:
    """The teacher's AP on a sample of the validation images, at the image size of the student."""
    evaluator = Evaluator(val, imgsz, batch, limit=_SAMPLE)
    ap = evaluator(teacher).evaluation.ap
    if not math.isnan(ap) and ap < LEAST_AP and not allow_weak:
        raise UserError(
            f"--teacher {file} reaches {100 * ap:.1f} AP on {len(evaluator.source)} validation images, expected at "
            f"least {100 * LEAST_AP:.0f}: train it on this data first, or accept it with --allow-weak-teacher"
        )
    return ap


def strength_in_words(ap: float) -> str:
    """The AP of a teacher as text; nan means that the sample has no objects."""
    if math.isnan(ap):
        return "not evaluated: the sample of validation images holds no object"
    return f"{100 * ap:.1f} AP on a sample of the validation images"


def reads_otherwise(source: Source, teacher: DetectorSpec) -> list[str]:
    """A line if a teacher was trained on 16-bit images with another value range."""
    if not isinstance(source, DatasetSource) or source.value_range == teacher.value_range:
        return []
    if not any(image.deep for image in source.dataset.images):
        return []
    theirs, ours = spelled(teacher.value_range), spelled(source.value_range)
    return [f"          note: it was trained with --value-range {theirs}, here images are read with {ours}"]
