"""The second stage of two-stage detectors: class scores and refined boxes of proposals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import Annotated

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ladle.boxes import STDS, clip, decode_deltas
from ladle.detectors.proposals import ProposalSpec, best_proposals
from ladle.detectors.roi_align import roi_align
from ladle.limits import Range
from ladle.types import GroundTruth, Output, Predictions, Priors, at_least_float32

__all__ = ["RegionSpec", "RegionStage"]


_Scale = Annotated[float, Range(0, 100, above=True)]


@dataclass(frozen=True)
class RegionSpec:
    """A region head (Girshick 2015): features are pooled from each proposal, then pass through fully connected layers.

    Args:
        width: channels of the pyramid.
        hidden: width of the fully connected layers.
        convs: convolutions before them; 0 makes two layers (torchvision), any number makes one after them (its v2).
        pool: cells along each side of a proposal.
        levels: number of pyramid levels from which features are pooled, from the finest on.
        agnostic: one box for all classes (Cascade R-CNN) instead of one each.
        stds: scales of the deltas of shift and stretch.
        proposals: how the first region head selects proposals; None in a later one, which takes all refined boxes.
    """

    width: Annotated[int, Range(1, 4096)] = 256
    hidden: Annotated[int, Range(1, 65_536)] = 1024
    convs: Annotated[int, Range(0, 64)] = 0
    pool: Annotated[int, Range(1, 64)] = 7
    levels: Annotated[int, Range(1, 6)] = 4
    agnostic: bool = False
    stds: tuple[_Scale, _Scale] = STDS
    proposals: ProposalSpec | None = None

    def proposing(self, times: float) -> RegionSpec:
        """The same head with ``times`` as many proposals in inference."""
        if self.proposals is None:
            return self
        candidates, keep = self.proposals.candidates, self.proposals.keep
        more = (candidates[0], ceil(times * candidates[1])), (keep[0], ceil(times * keep[1]))
        return replace(self, proposals=replace(self.proposals, candidates=more[0], keep=more[1]))

    def build(self, classes: int, strides: Sequence[int]) -> RegionStage:
        """Build the stage for ``classes``."""
        return RegionStage(self, classes, strides)


class RegionStage(nn.Module):
    """Predicts at proposals. In training they are sampled before pooling, which is most of the work."""

    class_agnostic = False
    samples_first = True

    def __init__(self, spec: RegionSpec, classes: int, strides: Sequence[int]) -> None:
        super().__init__()
        self.spec, self.classes, self.strides = spec, classes, tuple(strides)[: spec.levels]
        self.layers = _layers(spec)
        self.class_score = nn.Linear(spec.hidden, classes + 1)
        self.box_deltas = nn.Linear(spec.hidden, 4 if spec.agnostic else 4 * (classes + 1))

    def propose(
        self, features: Sequence[Tensor], previous: Output | None, truth: GroundTruth | None, sizes: Tensor | None
    ) -> Priors:
        """The boxes of the previous stage; in training also the ground-truth boxes."""
        if previous is None:
            raise ValueError("a region stage needs the proposals of a stage before it, but it is the first")
        boxes, real = self._boxes(previous, training=truth is not None)
        boxes = boxes if sizes is None else clip(boxes, sizes)
        counts: tuple[int, ...] = (boxes.shape[1],)
        level = torch.zeros(boxes.shape[1], dtype=torch.long, device=boxes.device)
        if truth is not None:
            boxes = torch.cat([boxes, truth.boxes], dim=1)
            real = torch.cat([real, truth.learnable], dim=1)
            counts = (*counts, truth.boxes.shape[1])
            level = torch.cat([level, level.new_ones(counts[1])])
        is_ground_truth = (level == 1).unsqueeze(0) if truth is not None else None
        return Priors(
            boxes, torch.ones_like(level, dtype=torch.float32), level, real, counts, is_ground_truth=is_ground_truth
        )

    def _boxes(self, previous: Output, training: bool) -> tuple[Float[Tensor, "B P 4"], Bool[Tensor, "B P"]]:
        if self.spec.proposals is not None:
            rule, late = self.spec.proposals, 0 if training else 1
            return best_proposals(previous, rule.candidates[late], rule.keep[late], rule.nms)
        # Refined ground truth is dropped: the ground-truth boxes are appended again.
        is_ground_truth, real = previous.priors.is_ground_truth, previous.priors.valid
        boxes = at_least_float32(previous.predictions.boxes.detach())
        return boxes, real if is_ground_truth is None else real & ~is_ground_truth

    def forward(
        self, features: Sequence[Tensor], priors: Priors, tower_depth: int | None = None
    ) -> tuple[Predictions, None]:
        """Predict at proposals: classes that share a softmax with background, and a box for each class or for all."""
        batch, count = features[0].shape[0], priors.boxes.shape[1]
        boxes = priors.boxes.expand(batch, -1, -1).contiguous()
        pooled = self.layers(roi_align(features[: self.spec.levels], self.strides, boxes, self.spec.pool))
        score, deltas = at_least_float32(self.class_score(pooled)), at_least_float32(self.box_deltas(pooled))
        # Relative to background, which then has logit 0.
        logits = (score[:, 1:] - score[:, :1]).view(batch, count, -1)
        if self.spec.agnostic:
            refined = decode_deltas(boxes, deltas.view(batch, count, 4), self.spec.stds)
            return Predictions(logits, refined, exclusive=True), None
        each = deltas.view(batch, count, -1, 4)[:, :, 1:]
        every = decode_deltas(boxes.unsqueeze(2), each, self.spec.stds)
        likeliest = logits.argmax(-1)[..., None, None].expand(-1, -1, 1, 4)
        refined = every.gather(2, likeliest)[:, :, 0]
        return Predictions(logits, refined, class_boxes=every, exclusive=True), None


def _layers(spec: RegionSpec) -> nn.Module:
    from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead, TwoMLPHead

    shape = (spec.width, spec.pool, spec.pool)
    layers: nn.Module = TwoMLPHead(spec.width * spec.pool**2, spec.hidden)
    if spec.convs:
        layers = FastRCNNConvFCHead(shape, [spec.width] * spec.convs, [spec.hidden], norm_layer=nn.BatchNorm2d)
    return layers
