"""The first stage of two-stage detectors: a region proposal network and the selection of proposals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ladle.boxes import clip, decode_deltas
from ladle.detectors.head_layers import flattened
from ladle.detectors.priors import Anchors
from ladle.device import may_look
from ladle.limits import Range
from ladle.types import GroundTruth, Output, Predictions, Priors, at_least_float32

__all__ = ["LEAST_SIDE", "PLAIN_STDS", "ProposalSpec", "ProposalStage", "best_proposals"]

PLAIN_STDS = (1.0, 1.0)
"""The deltas of proposals are not scaled (torchvision)."""
LEAST_SIDE = 1e-3
"""Proposals with a side below this, in pixels, are dropped."""


_Count = Annotated[int, Range(1, 100_000)]


@dataclass(frozen=True)
class ProposalSpec:
    """A region proposal network (Ren et al. 2015): torchvision's head over a pyramid, one class, "object".

    Args:
        width: channels of the pyramid.
        depth: convolutions before the two outputs.
        anchors: the priors, level by level the same in strides.
        candidates: number of highest-scoring priors of a level that enter suppression, in training and in inference.
        keep: largest number of proposals of an image after suppression, likewise.
        nms: IoU above which the lower-scoring of two proposals of a level is removed.
    """

    width: Annotated[int, Range(1, 4096)] = 256
    depth: Annotated[int, Range(1, 64)] = 1
    anchors: Anchors = field(default_factory=lambda: Anchors(ratios=(0.5, 1.0, 2.0), rounded=True))
    candidates: tuple[_Count, _Count] = (2000, 1000)
    keep: tuple[_Count, _Count] = (2000, 1000)
    nms: Annotated[float, Range(0, 1)] = 0.7

    def build(self, classes: int, strides: Sequence[int]) -> ProposalStage:
        """Build the stage for a pyramid of ``strides``; it has one class, "object", whatever the ``classes``."""
        return ProposalStage(self, strides)


class ProposalStage(nn.Module):
    """Predicts objectness and a box at every anchor; ``classes`` is 1."""

    classes = 1
    class_agnostic = True
    samples_first = False

    def __init__(self, spec: ProposalSpec, strides: Sequence[int]) -> None:
        super().__init__()
        from torchvision.models.detection.rpn import RPNHead

        self.spec, self.strides = spec, tuple(strides)
        self.head = RPNHead(spec.width, spec.anchors.per_location, conv_depth=spec.depth)

    def propose(
        self, features: Sequence[Tensor], previous: Output | None, truth: GroundTruth | None, sizes: Tensor | None
    ) -> Priors:
        """The anchors of all levels; ``previous`` and ``truth`` are not used."""
        return self.spec.anchors.over(features, self.strides, sizes)

    def forward(
        self, features: Sequence[Tensor], priors: Priors, tower_depth: int | None = None
    ) -> tuple[Predictions, None]:
        """Predict at the anchors, which must be those of this stage."""
        logits, deltas = self.head(list(features))
        regressed = torch.cat([flattened(maps, 4) for maps in deltas], dim=1)
        boxes = decode_deltas(priors.boxes, at_least_float32(regressed), PLAIN_STDS)
        return Predictions(torch.cat([flattened(maps, 1) for maps in logits], dim=1), boxes), None


@torch.no_grad()
def best_proposals(
    output: Output, candidates: int, keep: int, nms: float
) -> tuple[Float[Tensor, "B keep 4"], Bool[Tensor, "B keep"]]:
    """The boxes with the highest objectness after non-maximum suppression within each level.

    Best first, padded; the second result marks those that are not padding. On a GPU suppression needs one device sync.
    """
    predictions, priors = output.predictions, output.priors
    score = predictions.log_odds.amax(-1).masked_fill(~priors.valid, -torch.inf)
    index = _best_of_levels(score, priors.counts, candidates)
    boxes = at_least_float32(predictions.boxes).gather(1, index.unsqueeze(-1).expand(-1, -1, 4))
    boxes = boxes if output.sizes is None else clip(boxes, output.sizes)
    score = score.gather(1, index)
    wide = ((boxes[..., 2:] - boxes[..., :2]) >= LEAST_SIDE).all(-1) & score.isfinite() & boxes.isfinite().all(-1)

    image = torch.arange(len(boxes), device=boxes.device).unsqueeze(1)
    group = image * len(priors.counts) + priors.level[index]
    if may_look(boxes):
        kept = _suppressed(boxes, score, group, wide, nms)
    else:
        kept = _suppressed_at_once(boxes, score, group, wide, nms)
    image_of = torch.where(wide, image, len(boxes)).flatten()[kept]
    return _padded(boxes.flatten(0, 1)[kept], image_of, len(boxes), keep)


def _suppressed(boxes: Tensor, score: Tensor, group: Tensor, wide: Tensor, nms: float) -> Int[Tensor, " K"]:
    """The places of the ``wide`` boxes that are left in each group, best first."""
    from torchvision.ops import batched_nms

    place = wide.flatten().nonzero()[:, 0]
    flat, prob = boxes.flatten(0, 1)[place], score.flatten()[place].sigmoid()
    # In double precision: suppression by groups moves each group's boxes far from the others'.
    kept: Tensor = batched_nms(flat.double(), prob.double(), group.flatten()[place], nms)
    return place[kept]


def _suppressed_at_once(boxes: Tensor, score: Tensor, group: Tensor, wide: Tensor, nms: float) -> Int[Tensor, " K"]:
    """The same with a single wait, where torchvision waits for each group; boxes that are not ``wide`` come last.

    Such boxes are made empty, so that their overlap with any other is not above 0.
    """
    from torchvision.ops import nms as suppress

    flat = torch.where(wide.unsqueeze(-1), boxes, 0.0).double()
    low = flat.amin()
    moved = flat - low + (group * (flat.amax() - low + 1)).unsqueeze(-1)
    prob = torch.where(wide, score.sigmoid(), -1.0).double()
    kept: Tensor = suppress(moved.flatten(0, 1), prob.flatten(), nms)
    return kept


def _best_of_levels(score: Float[Tensor, "B P"], counts: tuple[int, ...], most: int) -> Int[Tensor, "B n"]:
    parts, start = [], 0
    for count in counts:
        parts.append(score[:, start : start + count].topk(min(count, most), dim=1).indices + start)
        start += count
    return torch.cat(parts, dim=1)


def _padded(
    boxes: Float[Tensor, "K 4"], image: Int[Tensor, " K"], batch: int, most: int
) -> tuple[Float[Tensor, "B most 4"], Bool[Tensor, "B most"]]:
    """The first ``most`` boxes of every image, in their order; those of an image number ``batch`` are left out."""
    order = image.argsort(stable=True)
    image = image[order]
    first = torch.searchsorted(image, torch.arange(batch + 1, device=image.device))
    rank = torch.arange(len(order), device=image.device) - first[image]
    # What is left out is written behind the last place.
    place = torch.where((image < batch) & (rank < most), image * most + rank, batch * most)
    padded = boxes.new_zeros(batch * most + 1, 4).index_copy(0, place, boxes[order])
    real = torch.zeros(batch * most + 1, dtype=torch.bool, device=boxes.device).index_fill(0, place, True)
    return padded[:-1].view(batch, most, 4), real[:-1].view(batch, most)
