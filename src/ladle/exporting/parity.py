"""Whether a file answers as the detector does."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from ladle.detectors import Detector, Inference, as_floats
from ladle.errors import UserError
from ladle.exporting.adapter import Raw, reference_output
from ladle.exporting.module import Images, Plan
from ladle.exporting.runtime import RunFile
from ladle.exporting.suppression import select
from ladle.types import Batch, Detections

__all__ = ["TOLERANCE", "Parity", "as_input", "check_parity", "compare_detections"]

TOLERANCE = 1e-3
"""Pixels by which a box may differ; a score may differ by a tenth of that number."""
_SCORE_SHARE = 0.1


class Parity(NamedTuple):
    """The largest differences of boxes in pixels and of scores, over so many images with so many detections."""

    boxes: float
    scores: float
    images: int = 0
    detections: int = 0


def check_parity(
    detector: Detector, plan: Plan, run: RunFile, batches: Iterable[Batch], tolerance: float = TOLERANCE
) -> Parity:
    """Compare a file with its detector on batches of images.

    Compared are all scores, and the boxes of scores above the detector's threshold. Raises :class:`UserError` where a
    box differs by more than ``tolerance`` pixels, a score by more than a tenth of that number, or one finds an object
    that the other does not.
    """
    worst = Parity(0.0, 0.0)
    for batch in batches:
        found = run(as_input(batch.images, detector, plan.images), batch.sizes)
        one = _compare(detector, plan, batch, found, tolerance * _SCORE_SHARE)
        if not (one.boxes <= tolerance and one.scores <= tolerance * _SCORE_SHARE):
            raise UserError(_failure(one, batch, tolerance))
        worst = Parity(
            max(worst.boxes, one.boxes),
            max(worst.scores, one.scores),
            worst.images + len(batch.ids),
            worst.detections + one.detections,
        )
    return worst


def as_input(images: Tensor, detector: Detector, kind: Images) -> Tensor:
    """Images of bytes as a file takes them."""
    if kind == "uint8":
        return images
    floats = as_floats(images)
    return (floats - detector.mean) / detector.std if kind == "normalized" else floats


def compare_detections(
    found: Detections, expected: Detections, inference: Inference, most: float = TOLERANCE * _SCORE_SHARE
) -> tuple[float, float]:
    """The largest difference of boxes and of scores; infinite where one has an object that the other has not.

    Objects of one class whose scores differ by at most ``most`` may be the same.

    An object whose score lies at the threshold, or at that of the last one kept, may be missing on either side.
    """
    left = torch.ones(len(found.scores), dtype=torch.bool)
    boxes = scores = 0.0
    lost = []
    for box, score, label in zip(expected.boxes, expected.scores, expected.labels, strict=True):
        near = left & (found.labels == label) & ((found.scores - score).abs() <= most)
        if not near.any():
            lost.append(float(score))
            continue
        distance = (found.boxes - box).abs().amax(-1).masked_fill(~near, torch.inf)
        nearest = int(distance.argmin())
        left[nearest] = False
        boxes = max(boxes, float(distance[nearest]))
        scores = max(scores, float((found.scores[nearest] - score).abs()))
    lost += found.scores[left].tolist()
    edge = max(_edge(found, inference), _edge(expected, inference)) + most
    return (math.inf, math.inf) if any(score > edge for score in lost) else (boxes, scores)


def _edge(detections: Detections, inference: Inference) -> float:
    """The score below which an object is not kept."""
    full = len(detections.scores) >= inference.keep
    return float(detections.scores.min()) if full else inference.threshold


@torch.no_grad()
def _compare(detector: Detector, plan: Plan, batch: Batch, found: tuple[Tensor, ...], most: float) -> Parity:
    inference = detector.spec.inference
    reference = reference_output(detector, batch.images, batch.sizes)
    if not plan.nms:
        boxes, scores = found
        if not detector.spec.regions:
            return _compare_raw(boxes, scores, reference, inference)
        # Proposals of nearly the same score may stand in another order: what is found in the end is compared.
        found = select(boxes, scores, (scores.shape[1],), batch.sizes, inference)
    expected = detector.detect(_in_network_pixels(batch))
    pairs = [
        compare_detections(Detections(box[score > 0], score[score > 0], label[score > 0]), one, inference, most)
        for box, score, label, one in zip(*found, expected, strict=True)
    ]
    return Parity(
        max(boxes for boxes, _ in pairs),
        max(scores for _, scores in pairs),
        0,
        sum(len(one.scores) for one in expected),
    )


def _in_network_pixels(batch: Batch) -> Batch:
    return Batch(batch.images, batch.truth, batch.sizes, batch.sizes, batch.ids)


def _compare_raw(boxes: Tensor, scores: Tensor, reference: Raw, inference: Inference) -> Parity:
    if boxes.shape != reference.boxes.shape or scores.shape != reference.scores.shape:
        return Parity(math.inf, math.inf)
    likely = reference.scores > inference.threshold
    apart = (boxes - reference.boxes).abs().amax(-1)[likely.any(-1)]
    largest = float(apart.max()) if len(apart) else 0.0
    return Parity(largest, float((scores - reference.scores).abs().max()), 0, int(likely.sum()))


def _failure(parity: Parity, batch: Batch, tolerance: float) -> str:
    which = ", ".join(map(str, batch.ids))
    if math.isinf(parity.boxes):
        return (
            f"the exported detector does not find the objects that PyTorch finds in {which}, with scores that differ "
            f"by at most {tolerance * _SCORE_SHARE:g}; no file was written, --tolerance allows more"
        )
    return (
        f"in {which} the exported detector differs from PyTorch by {parity.boxes:.2g} pixels in boxes (at most "
        f"{tolerance:g}) and by {parity.scores:.2g} in scores (at most {tolerance * _SCORE_SHARE:g}); no file was "
        "written, --tolerance allows more"
    )
