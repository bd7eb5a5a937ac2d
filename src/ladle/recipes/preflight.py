"""What is made sure of before the first step."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from ladle.data.depth import spelled
from ladle.data.sources import DatasetSource, Source
from ladle.detectors import Detector, DetectorSpec, load_detector
from ladle.errors import UserError
from ladle.families import network_info
from ladle.networks import prior_mismatches
from ladle.recipes.scoring import Evaluator
from ladle.teachers import FrozenDetector

__all__ = ["check_strength", "check_trainable", "load_teacher", "reads_otherwise", "strength_in_words"]

LEAST_AP = 0.01
"""Below this AP a teacher has nothing to teach."""
_LOOK_AT = 64


def check_trainable(network: Detector, batch: int, sides: Sequence[int]) -> None:
    """Try the smallest batch that a network will train on; the network is not fit for use afterwards.

    Batch normalization has no variance where a map holds one value of one image, such as a map of stride 32 at 32
    pixels, and some backbones take images of one size alone. Raises :class:`UserError` then. ``sides`` are the long
    sides of the images.
    """
    spec, side = network.spec, -(-min(sides) // 32) * 32
    wrong = _failure(network, batch, 32, side)
    if wrong is None:
        return
    if "more than 1 value per channel" in str(wrong):
        group = "--norm group, " if spec.backbone.can_group else ""
        raise UserError(
            f"{spec.name} normalizes by the batch, but of a single image of {side} pixels some of its maps hold one "
            f"value only: give {group}--batch 2, or larger images by --imgsz (and by a smaller --multiscale)"
        )
    wrong = _failure(network, batch, side, side)
    if wrong is not None:
        why = " ".join(str(wrong).split())[:200]
        raise UserError(
            f"the backbone of {spec.name} cannot take images of {side} pixels ({why}): take another --imgsz or model"
        ) from wrong


def _failure(network: Detector, batch: int, height: int, width: int) -> Exception | None:
    """What a network raises at grey images, if it does."""
    try:
        with torch.no_grad():
            network.train().extract_features(torch.zeros(min(batch, 2), 3, height, width))
    except Exception as error:
        return error
    return None


def load_teacher(file: str, student: DetectorSpec, features_only: bool = False, aligned: bool = True) -> FrozenDetector:
    """Load a teacher, every weight of it, and make sure that it speaks of the student's classes and priors.

    With ``features_only`` nothing of it but its feature maps is needed, so that it may have others. What is not
    ``aligned`` may have other priors: a teacher that judges proposals looks at whatever it is shown.
    """
    detector = load_detector(file)
    if features_only:
        return FrozenDetector(detector, None)
    found = prior_mismatches(network_info(student), network_info(detector.spec)) if aligned else []
    if found:
        raise UserError(
            f"--teacher {file} ({detector.spec.name}) and the student {student.name} do not line up: "
            f"{'; '.join(found)}; take a student and a teacher of the same kind of backbone (tiny and small, or any of "
            "the larger ones), or imitate feature maps alone, such as --method pkd"
        )
    try:
        return FrozenDetector(detector, student.classes)
    except UserError as error:
        raise UserError(f"--teacher {file}: {error}") from None


def check_strength(file: str, teacher: Detector, val: Source, imgsz: int, batch: int, allow_weak: bool) -> float:
    """The teacher's AP on a few validation images, seen as the student will see them."""
    evaluator = Evaluator(val, imgsz, batch, limit=_LOOK_AT)
    ap = evaluator(teacher).evaluation.ap
    if not math.isnan(ap) and ap < LEAST_AP and not allow_weak:
        raise UserError(
            f"--teacher {file} reaches {100 * ap:.1f} AP on {len(evaluator.source)} validation images, expected at "
            f"least {100 * LEAST_AP:.0f}: train it on this data first, or insist with --allow-weak-teacher"
        )
    return ap


def strength_in_words(ap: float) -> str:
    """What came of trying a teacher: its AP, or nan where there was nothing to find."""
    if math.isnan(ap):
        return "not tried: the sample of validation images holds no object"
    return f"{100 * ap:.1f} AP on a sample of the validation images"


def reads_otherwise(source: Source, teacher: DetectorSpec) -> list[str]:
    """A line where a teacher was trained on images of 16 bits that were read in another way than these are."""
    if not isinstance(source, DatasetSource) or source.value_range == teacher.value_range:
        return []
    if not any(image.deep for image in source.dataset.images):
        return []
    theirs, ours = spelled(teacher.value_range), spelled(source.value_range)
    return [f"          note: it was trained with --value-range {theirs}, here images are read with {ours}"]
