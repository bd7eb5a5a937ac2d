"""Overlaps between many boxes and objects, in memory that stays bounded however crowded the image is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ladle.boxes import pairwise_coverage, pairwise_iou
from ladle.types import GroundTruth, Priors, Record

__all__ = ["Overlaps", "best_overlaps", "object_slices", "outside_crowds", "rescuers"]

CHUNK = 1 << 22
"""Largest number of prior-object pairs held at once: 16 MiB a matrix in float32."""


@dataclass(frozen=True)
class Overlaps(Record):
    """The best IoU of every prior and the object that gives it, and the best IoU of every object.

    Pairs with an invalid prior, a padded object or a crowd count as -1.
    """

    iou: Float[Tensor, "B P"]
    index: Int[Tensor, "B P"]
    peak: Float[Tensor, "B G"]


def object_slices(batch: int, priors: int, objects: int) -> list[slice]:
    """Cut the objects so that one slice's pairs with all priors fit :data:`CHUNK`; static, hence compilable."""
    width = max(1, CHUNK // max(batch * priors, 1))
    return [slice(start, min(start + width, objects)) for start in range(0, objects, width)]


def best_overlaps(boxes: Float[Tensor, "#B P 4"], valid: Bool[Tensor, "#B P"], truth: GroundTruth) -> Overlaps:
    """Match every box with the object it overlaps most; on a tie the object listed first wins."""
    batch = len(truth.labels)
    best = truth.boxes.new_full((batch, boxes.shape[1]), -1.0)
    index = torch.zeros_like(best, dtype=torch.long)
    peaks = [truth.boxes.new_zeros(batch, 0)]
    for part, overlap in _overlaps(boxes, valid, truth):
        value, here = overlap.max(-1)
        better = value > best
        best, index = torch.where(better, value, best), torch.where(better, here + part.start, index)
        peaks.append(overlap.amax(1))
    return Overlaps(best, index, torch.cat(peaks, dim=1))


def rescuers(
    priors: Priors, truth: GroundTruth, peak: Float[Tensor, "B G"], least: float
) -> tuple[Bool[Tensor, "B P"], Int[Tensor, "B P"]]:
    """Which priors overlap some object as well as any prior does, and which object that is (the last one listed).

    Only objects whose ``peak`` is at least ``least`` and above 0 rescue: an object that touches no prior would
    otherwise claim every prior it does not touch.
    """
    entitled = (peak >= least) & (peak > 0)
    rescued = torch.zeros(len(truth.labels), priors.boxes.shape[1], dtype=torch.bool, device=peak.device)
    index = torch.zeros_like(rescued, dtype=torch.long)
    for part, overlap in _overlaps(priors.boxes, priors.valid, truth):
        match = (overlap == peak[:, None, part]) & entitled[:, None, part]
        last = match.flip(-1).int().argmax(-1)
        here = match.any(-1)
        index = torch.where(here, part.stop - 1 - last, index)
        rescued = rescued | here
    return rescued, index


def outside_crowds(priors: Priors, truth: GroundTruth, share: float) -> Bool[Tensor, "B P"]:
    """The valid priors of which at most ``share`` lies in any one crowd region: those that may be background."""
    batch, objects = truth.labels.shape
    free = priors.valid.expand(batch, -1)
    crowd = truth.crowd & truth.valid
    if _surely_empty(crowd):
        return free
    for part in object_slices(batch, priors.boxes.shape[1], objects):
        covered = pairwise_coverage(priors.boxes, truth.boxes[:, part]) > share
        free = free & ~(covered & crowd[:, None, part]).any(-1)
    return free


def _overlaps(boxes: Tensor, valid: Tensor, truth: GroundTruth) -> Iterator[tuple[slice, Float[Tensor, "B P g"]]]:
    batch, objects = truth.labels.shape
    for part in object_slices(batch, boxes.shape[1], objects):
        counted = valid.unsqueeze(-1) & truth.learnable[:, None, part]
        yield part, torch.where(counted, pairwise_iou(boxes, truth.boxes[:, part]), -1.0)


def _surely_empty(mask: Tensor) -> bool:
    """Whether nothing is marked, asked only where looking is free: on the CPU, outside a compiled graph."""
    return mask.device.type == "cpu" and not torch.compiler.is_compiling() and not bool(mask.any())
