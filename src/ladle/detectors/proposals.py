"""The first stage of two-stage detectors: a region proposal network and the selection of proposals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ladle.boxes import clip, decode_deltas
from ladle.detectors.priors import Anchors
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
        shapes = [(int(f.shape[-2]), int(f.shape[-1])) for f in features]
        return self.spec.anchors.grid(shapes, self.strides, sizes, features[0].device)

    def forward(
        self, features: Sequence[Tensor], priors: Priors, tower_depth: int | None = None
    ) -> tuple[Predictions, None]:
        """Predict at the anchors, which must be those of this stage."""
        logits, deltas = self.head(list(features))
        regressed = torch.cat([_rows(maps, 4) for maps in deltas], dim=1)
        boxes = decode_deltas(priors.boxes, at_least_float32(regressed), PLAIN_STDS)
        return Predictions(torch.cat([_rows(maps, 1) for maps in logits], dim=1), boxes), None


@torch.no_grad()
def best_proposals(
    output: Output, candidates: int, keep: int, nms: float
) -> tuple[Float[Tensor, "B keep 4"], Bool[Tensor, "B keep"]]:
    """The boxes with the highest objectness after non-maximum suppression within each level.

    Best first, padded; the second result marks those that are not padding. Suppression needs a device sync.
    """
    from torchvision.ops import batched_nms

    predictions, priors = output.predictions, output.priors
    score = predictions.log_odds.amax(-1).masked_fill(~priors.valid, -torch.inf)
    index = _best_of_levels(score, priors.counts, candidates)
    boxes = at_least_float32(predictions.boxes).gather(1, index.unsqueeze(-1).expand(-1, -1, 4))
    boxes = boxes if output.sizes is None else clip(boxes, output.sizes)
    score = score.gather(1, index)
    wide = ((boxes[..., 2:] - boxes[..., :2]) >= LEAST_SIDE).all(-1) & score.isfinite() & boxes.isfinite().all(-1)

    levels = len(priors.counts)
    image, place = wide.nonzero(as_tuple=True)
    flat, prob = boxes[image, place], score[image, place].sigmoid()
    # In double precision: suppression by groups moves each group's boxes far from the others'.
    kept = batched_nms(flat.double(), prob.double(), image * levels + priors.level[index[image, place]], nms)
    return _padded(flat, image, kept, len(boxes), keep)


def _best_of_levels(score: Float[Tensor, "B P"], counts: tuple[int, ...], most: int) -> Int[Tensor, "B n"]:
    parts, start = [], 0
    for count in counts:
        parts.append(score[:, start : start + count].topk(min(count, most), dim=1).indices + start)
        start += count
    return torch.cat(parts, dim=1)


def _padded(
    boxes: Float[Tensor, "N 4"], image: Int[Tensor, " N"], kept: Int[Tensor, " K"], batch: int, most: int
) -> tuple[Float[Tensor, "B most 4"], Bool[Tensor, "B most"]]:
    """The first ``most`` of the kept ones of every image, in their order."""
    order = kept[image[kept].argsort(stable=True)]
    image_of = image[order]
    first = torch.searchsorted(image_of, torch.arange(batch, device=image_of.device))
    rank = torch.arange(len(order), device=image_of.device) - first[image_of]
    among = rank < most
    padded = boxes.new_zeros(batch, most, 4)
    real = torch.zeros(batch, most, dtype=torch.bool, device=boxes.device)
    padded[image_of[among], rank[among]] = boxes[order[among]]
    real[image_of[among], rank[among]] = True
    return padded, real


def _rows(maps: Tensor, width: int) -> Tensor:
    """Maps (B, A*width, H, W) to rows (B, H*W*A, width)."""
    return maps.permute(0, 2, 3, 1).reshape(maps.shape[0], -1, width)
