"""A detector: a backbone, a neck and a chain of stages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from ladle.detectors.backbones import Backbone
from ladle.detectors.dense import DenseStage
from ladle.detectors.postprocess import Inference
from ladle.detectors.spec import DetectorSpec
from ladle.types import Batch, Detections, GroundTruth, Output, Priors

__all__ = ["Detector", "Neck"]


class Detector(nn.Module):
    """Turns pictures into one :class:`~ladle.types.Output` per stage."""

    mean: Tensor
    std: Tensor

    def __init__(self, spec: DetectorSpec, backbone: Backbone, neck: Neck, stages: Sequence[DenseStage]) -> None:
        super().__init__()
        self.spec = spec
        self.backbone = backbone
        self.neck = neck
        self.stages = nn.ModuleList(stages)
        self.register_buffer("mean", torch.tensor(spec.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(spec.std).view(1, 3, 1, 1), persistent=False)

    def forward(
        self,
        images: Tensor,
        sizes: Tensor | None = None,
        truth: GroundTruth | None = None,
        priors: Sequence[Priors] | None = None,
    ) -> list[Output]:
        """Look at pictures (B,3,H,W), bytes or floats in [0,1].

        ``sizes`` (B,2) says how much of each picture is not padding. Passing one ``priors`` per stage asks what this
        detector says *there*, instead of at the places it would propose itself.
        """
        floats = images.float() / 255 if images.dtype == torch.uint8 else images
        features = self.neck(self.backbone((floats - self.mean) / self.std))
        outputs: list[Output] = []
        for number, stage in enumerate(cast("Sequence[DenseStage]", self.stages)):
            previous = outputs[-1] if outputs else None
            own = priors[number] if priors is not None else stage.propose(features, previous, truth, sizes)
            outputs.append(Output(stage(features, own), own, features, sizes))
        return outputs

    @torch.no_grad()
    def detect(self, batch: Batch, inference: Inference | None = None) -> list[Detections]:
        """Find the objects of a batch, in the pixels of the pictures on disk."""
        output = self(batch.images, batch.sizes)[-1]
        return (inference or self.spec.inference).find(output, batch.sizes, batch.originals)


class Neck(nn.Module):
    """torchvision's feature pyramid over the backbone's maps, with up to two coarser levels on top."""

    def __init__(self, channels: Sequence[int], width: int, extra: int) -> None:
        super().__init__()
        from torchvision.ops import FeaturePyramidNetwork
        from torchvision.ops.feature_pyramid_network import LastLevelP6P7

        blocks = LastLevelP6P7(width, width) if extra else None
        self.levels = len(channels) + extra
        self.fpn = FeaturePyramidNetwork(list(channels), width, blocks)

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Maps of stride 8, 16, 32 to pyramid levels of stride 8, 16, 32 (64, 128)."""
        pyramid = self.fpn({str(index): level for index, level in enumerate(maps)})
        return tuple(pyramid.values())[: self.levels]
