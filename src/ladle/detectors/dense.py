"""The dense stage: the same small network at every location of every level."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ladle.boxes import decode_deltas
from ladle.detectors.backbones import group_norm
from ladle.detectors.priors import Anchors
from ladle.types import GroundTruth, Output, Predictions, Priors

__all__ = ["DenseSpec", "DenseStage"]


@dataclass(frozen=True)
class DenseSpec:
    """A dense head: two towers of convolutions, and what is predicted on top of them.

    Args:
        width: channels of the towers, those of the neck.
        depth: convolutions per tower.
        anchors: the priors.
        quality: whether a branch predicts localisation quality (PAA's IoU, ATSS's centerness).
        norm: group normalisation in the towers (RetinaNet has none).
        level_scale: a learnt factor per level on the box deltas (ATSS, PAA).
    """

    width: int = 256
    depth: int = 4
    anchors: Anchors = field(default_factory=Anchors)
    quality: bool = True
    norm: bool = True
    level_scale: bool = True

    def build(self, classes: int, strides: Sequence[int]) -> DenseStage:
        """Build the stage for ``classes`` and a pyramid of ``strides``."""
        return DenseStage(self, classes, strides)


class DenseStage(nn.Module):
    """One pass over the pyramid: ``propose`` lays the priors, calling it predicts at them."""

    def __init__(self, spec: DenseSpec, classes: int, strides: Sequence[int]) -> None:
        super().__init__()
        self.spec, self.strides, self.classes = spec, tuple(strides), classes
        per_location = spec.anchors.per_location
        self.class_tower = _tower(spec)
        self.box_tower = _tower(spec)
        self.class_conv = nn.Conv2d(spec.width, per_location * classes, 3, padding=1)
        self.box_conv = nn.Conv2d(spec.width, per_location * 4, 3, padding=1)
        self.quality_conv = nn.Conv2d(spec.width, per_location, 3, padding=1) if spec.quality else None
        self.scales = nn.Parameter(torch.ones(len(self.strides))) if spec.level_scale else None
        for conv in self.modules():
            if isinstance(conv, nn.Conv2d):
                nn.init.normal_(conv.weight, std=0.01)
                if conv.bias is not None:
                    nn.init.zeros_(conv.bias)
        # Every class starts at probability 0.01, so that the first steps are not spent on unlearning the background.
        self.class_conv.bias = nn.Parameter(torch.full((per_location * classes,), -math.log(99)))

    def propose(
        self, features: Sequence[Tensor], previous: Output | None, truth: GroundTruth | None, sizes: Tensor | None
    ) -> Priors:
        """Lay the anchors over the maps; a dense stage needs neither a previous stage nor the objects."""
        shapes = [(int(f.shape[-2]), int(f.shape[-1])) for f in features]
        return self.spec.anchors.grid(shapes, self.strides, sizes, features[0].device)

    def forward(self, features: Sequence[Tensor], priors: Priors) -> Predictions:
        """Predict at the priors, which must be this stage's own grid."""
        logits, deltas, quality = [], [], []
        for level, feature in enumerate(features):
            of_class, of_box = self.class_tower(feature), self.box_tower(feature)
            logits.append(_flatten(self.class_conv(of_class), self.classes))
            delta = _flatten(self.box_conv(of_box), 4)
            deltas.append(delta * self.scales[level] if self.scales is not None else delta)
            if self.quality_conv is not None:
                quality.append(_flatten(self.quality_conv(of_box), 1))
        every = torch.cat(deltas, dim=1)
        if every.shape[1] != priors.boxes.shape[1]:
            raise ValueError(
                f"a dense head predicts at its own {every.shape[1]} priors, but was asked about {priors.boxes.shape[1]}"
            )
        return Predictions(
            logits=torch.cat(logits, dim=1),
            boxes=decode_deltas(priors.boxes, every.float()),
            quality=torch.cat(quality, dim=1)[..., 0] if quality else None,
        )


def _tower(spec: DenseSpec) -> nn.Sequential:
    layers: list[nn.Module] = []
    for _ in range(spec.depth):
        layers.append(nn.Conv2d(spec.width, spec.width, 3, padding=1, bias=not spec.norm))
        layers += [group_norm(spec.width)] if spec.norm else []
        layers.append(nn.ReLU())
    return nn.Sequential(*layers)


def _flatten(maps: Tensor, width: int) -> Tensor:
    """Maps (B, A*width, H, W) to rows (B, H*W*A, width): row by row, then the anchors of a location."""
    batch = maps.shape[0]
    return maps.permute(0, 2, 3, 1).reshape(batch, -1, width)
