"""Final boxes of a teacher as predictions at the priors of a student."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ladle.boxes import pairwise_iou
from ladle.overlaps import object_slices
from ladle.teachers.detections import TeacherDetections, logit
from ladle.types import Predictions, Priors

__all__ = ["MOST_BOXES", "place"]

MOST_BOXES = 300
"""The largest number of boxes of an image that are placed, those with the highest scores."""


class _Best(NamedTuple):
    """For each prior the box that covers it best: its number, how well it covers, and this times its score."""

    box: Int[Tensor, "B P"]
    cover: Float[Tensor, "B P"]
    value: Float[Tensor, "B P"]


def place(found: TeacherDetections, priors: Priors) -> Predictions:
    """Predictions at ``priors`` that say what the teacher's final boxes say.

    A box n *covers* a prior p whose center lies in it by ``cover = IoU(p, n) / max over all priors of IoU(., n)``, so
    that some prior is covered by 1, at the right place and of the right size, whatever the sizes of the priors are. A
    box that holds no prior's center covers the priors that reach the maximum. Each prior takes the box with the
    largest ``cover * score``, its class scores times ``cover``, and the box itself. A prior that no box covers is
    background at its own box.

    Examples:
        >>> import torch
        >>> from ladle.teachers import TeacherDetections, place
        >>> from ladle.testing import example_scene
        >>> _, priors, truth = example_scene()
        >>> scores = torch.full((*truth.labels.shape, 1), 0.9)
        >>> predictions = place(TeacherDetections.final(truth.boxes, scores), priors)
        >>> round(float(predictions.scores.max()), 3)
        0.9
    """
    strength = found.logits.sigmoid().amax(-1)
    kept = strength.topk(min(MOST_BOXES, strength.shape[1]), dim=1)
    rows = kept.indices.unsqueeze(-1)
    boxes = found.boxes.gather(1, rows.expand(-1, -1, 4))
    scores = found.logits.sigmoid().gather(1, rows.expand(-1, -1, found.logits.shape[-1]))
    own = priors.boxes.expand(len(boxes), -1, -1)
    if not boxes.shape[1]:
        return Predictions(logit(own.new_zeros(*own.shape[:2], scores.shape[-1])), own)
    best = _best(boxes, kept.values, own, priors.valid)
    covered = (best.cover > 0).unsqueeze(-1)
    chosen = best.box.unsqueeze(-1)
    theirs = boxes.gather(1, chosen.expand(-1, -1, 4))
    given = scores.gather(1, chosen.expand(-1, -1, scores.shape[-1])) * best.cover.unsqueeze(-1)
    return Predictions(logit(given), torch.where(covered, theirs, own))


def _best(
    boxes: Float[Tensor, "B N 4"],
    strength: Float[Tensor, "B N"],
    priors: Float[Tensor, "B P 4"],
    valid: Bool[Tensor, "#B P"],
) -> _Best:
    """The best box of each prior, one slice of boxes at a time."""
    batch, count = priors.shape[:2]
    zero = priors.new_zeros(batch, count)
    best = _Best(zero.long(), zero, zero)
    for part in object_slices(batch, count, boxes.shape[1], boxes):
        cover = _cover(priors, boxes[:, part], valid)
        value, index = (cover * strength[:, None, part]).max(-1)
        better = value > best.value
        here = cover.gather(-1, index.unsqueeze(-1)).squeeze(-1)
        new = _Best(index + part.start, here, value)
        best = _Best(*(torch.where(better, one, old) for one, old in zip(new, best, strict=True)))
    return best


def _cover(
    priors: Float[Tensor, "B P 4"], boxes: Float[Tensor, "B N 4"], valid: Bool[Tensor, "#B P"]
) -> Float[Tensor, "B P N"]:
    """How well each box covers each prior, in [0, 1]."""
    overlap = pairwise_iou(priors, boxes) * valid.unsqueeze(-1)
    peak = overlap.amax(1, keepdim=True)
    x, y = ((priors[..., :2] + priors[..., 2:]) / 2).unsqueeze(2).unbind(-1)
    left, top, right, bottom = boxes.unsqueeze(1).unbind(-1)
    inside = (x > left) & (x < right) & (y > top) & (y < bottom)
    return torch.where(inside | (overlap == peak), overlap / peak.clamp(min=1e-12), 0.0)
