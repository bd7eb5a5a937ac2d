"""The only place that calls a detector's methods for an export: from images to predictions, of fixed shapes throughout.

A detector in training or in ``detect`` lays its priors by the sizes of its maps, remembers them, and keeps as many
proposals as there are. A file needs priors that are constants or follow from the input, and a fixed number of
proposals. Everything else is the detector's own code.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ladle.boxes import clip
from ladle.detectors import Anchors, Detector, Inference, ProposalSpec, RegionStage
from ladle.detectors.proposals import LEAST_SIDE
from ladle.exporting.suppression import best_of_levels, rows, suppress
from ladle.types import Output, Predictions, Priors, at_least_float32

__all__ = ["Raw", "feature_maps", "lay_priors", "predict_raw", "reference_output"]


class Raw(NamedTuple):
    """What a detector predicts at its priors, ready to be suppressed.

    ``boxes`` (B,P,4), or (B,P,C,4) where each class has its own, lie inside their images, in pixels of the network
    input; ``scores`` (B,P,C) are 0 where a prior lies in the padding. ``counts`` are the priors of each level.
    """

    boxes: Tensor
    scores: Tensor
    counts: tuple[int, ...]


def feature_maps(detector: Detector, images: Tensor, normalized: bool) -> tuple[Tensor, ...]:
    """The feature maps of images: bytes, floats in [0, 1], or ``normalized`` already."""
    if not normalized:
        return detector.extract_features(images)
    maps: tuple[Tensor, ...] = detector.neck(detector.backbone(images))
    return maps


def lay_priors(detector: Detector, shapes: Sequence[tuple[int, int]]) -> tuple[Tensor, Tensor]:
    """The priors (P,4) of feature maps of such heights and widths, and the stride (P) of each."""
    anchors: Anchors = detector.spec.head.anchors
    device = detector.mean.device
    levels = [
        anchors.level(*shape, stride, device) for shape, stride in zip(shapes, detector.spec.strides, strict=True)
    ]
    strides = [
        torch.full_like(level[:, 0], float(stride)) for level, stride in zip(levels, detector.spec.strides, strict=True)
    ]
    return torch.cat(levels), torch.cat(strides)


def predict_raw(detector: Detector, features: Sequence[Tensor], boxes: Tensor, strides: Tensor, sizes: Tensor) -> Raw:
    """Predictions at the priors ``boxes`` (P,4) of ``strides`` (P) for images that fill ``sizes`` (B,2)."""
    anchors: Anchors = detector.spec.head.anchors
    counts = tuple(maps.shape[-2] * maps.shape[-1] * anchors.per_location for maps in features)
    level = torch.zeros_like(strides, dtype=torch.long)
    grid = Priors(boxes[None], strides, level, torch.ones_like(level, dtype=torch.bool)[None], counts)
    priors = anchors.masked(grid, sizes)
    first, *later = detector.chain
    predictions, _ = first(features, priors)
    outputs = [Output(predictions, priors, tuple(features), sizes)]
    for stage in later:
        assert isinstance(stage, RegionStage)
        priors = _proposals(stage, outputs[-1], sizes)
        predictions, _ = stage(features, priors)
        outputs.append(Output(predictions, priors, tuple(features), sizes))
    return _raw(detector.spec.inference, detector.joined(outputs), sizes)


def reference_output(detector: Detector, images: Tensor, sizes: Tensor) -> Raw:
    """The same by the detector's ordinary way, as ``predict`` and ``val`` go; what a file is compared with."""
    detector = detector.deployed()
    return _raw(detector.spec.inference, detector.joined(detector(images, sizes)), sizes)


def _raw(inference: Inference, output: Output, sizes: Tensor) -> Raw:
    predictions = output.predictions
    scores = inference.scores(predictions).masked_fill(~output.priors.valid.unsqueeze(-1), 0.0)
    if predictions.class_boxes is None:
        return Raw(clip(predictions.boxes.float(), sizes), scores, output.priors.counts)
    return Raw(clip(predictions.class_boxes.float(), sizes.unsqueeze(1)), scores, output.priors.counts)


def _proposals(stage: RegionStage, previous: Output, sizes: Tensor) -> Priors:
    """The boxes that a region head looks at: always the same number, those that are not there marked."""
    rule = stage.spec.proposals
    if rule is None:
        boxes, real = at_least_float32(previous.predictions.boxes), previous.priors.valid
    else:
        boxes, real = _fixed_proposals(previous, rule, sizes)
    level = torch.zeros_like(boxes[0, :, 0], dtype=torch.long)
    return Priors(clip(boxes, sizes), torch.ones_like(boxes[0, :, 0]), level, real, (boxes.shape[1],))


def _fixed_proposals(output: Output, rule: ProposalSpec, sizes: Tensor) -> tuple[Tensor, Tensor]:
    """As :func:`~ladle.detectors.proposals.best_proposals`, with zeros for the boxes that are not there."""
    predictions, priors = output.predictions, output.priors
    score = _prob(predictions).masked_fill(~priors.valid, 0.0)
    index, level = best_of_levels(score, priors.counts, rule.candidates[1])
    boxes = clip(rows(at_least_float32(predictions.boxes), index), sizes)
    score = score.gather(1, index)
    wide = ((boxes[..., 2:] - boxes[..., :2]) >= LEAST_SIDE).all(-1) & boxes.isfinite().all(-1)
    score = torch.where(wide, score, 0.0)
    levels = torch.arange(len(priors.counts), device=level.device)
    by_level = torch.where(level[None, None] == levels[None, :, None], score.unsqueeze(1), 0.0)
    kept = suppress(boxes, by_level, rule.nms).any(1)
    score = torch.cat([torch.where(kept, score, 0.0), torch.zeros_like(score[:, :1]).expand(-1, rule.keep[1])], dim=1)
    best = score.topk(rule.keep[1], dim=1)
    real = best.values > 0
    chosen = rows(boxes, best.indices.clamp(max=boxes.shape[1] - 1))
    return torch.where(real.unsqueeze(-1), chosen, 0.0), real


def _prob(predictions: Predictions) -> Tensor:
    return predictions.log_odds.amax(-1).sigmoid()
