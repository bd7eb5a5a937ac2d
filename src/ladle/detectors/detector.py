"""A detector: a backbone, a neck and a chain of stages; and everything needed to build it again, as plain values."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn

from ladle.detectors.backbones import Backbone, BackboneSpec
from ladle.detectors.dense import DenseSpec, DenseStage
from ladle.detectors.postprocess import Inference
from ladle.detectors.priors import Anchors
from ladle.types import Batch, Detections, GroundTruth, Output, Priors, Pyramid

__all__ = ["Detector", "DetectorSpec", "Neck"]

STRIDES = (8, 16, 32, 64, 128)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class DetectorSpec:
    """A detector in plain values, as stored beside its weights.

    ``classes`` are in label order, ``category_ids`` are the data set's own ids of these classes, for results files.
    ``extra`` counts the pyramid levels above stride 32, 0 or 2. ``imgsz`` is the long side it was trained at.
    """

    name: str
    family: str
    classes: tuple[str, ...]
    category_ids: tuple[int, ...]
    backbone: BackboneSpec
    head: DenseSpec
    inference: Inference = field(default_factory=Inference)
    extra: int = 2
    imgsz: int = 640
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    @property
    def strides(self) -> tuple[int, ...]:
        """Strides of the pyramid's levels."""
        return STRIDES[: 3 + self.extra]

    @property
    def pyramid(self) -> Pyramid:
        """What the feature maps are like."""
        return Pyramid((self.head.width,) * len(self.strides), self.strides)

    def build(self) -> Detector:
        """Build the detector, its backbone started as the spec says and the rest at random."""
        backbone = self.backbone.build()
        neck = Neck(backbone.channels, self.head.width, self.extra)
        detector = Detector(self, backbone, neck, [self.head.build(len(self.classes), self.strides)])
        # Channels last: a fifth faster on the CPU for our small networks, and what half precision wants on a GPU.
        return detector.to(memory_format=torch.channels_last)

    def to_json(self) -> str:
        """The spec as one line of JSON; where the first weights came from is left out, they are stored beside it."""
        values = asdict(self)
        values["backbone"] |= {"pretrained": False, "weights": None}
        return json.dumps(values)

    @classmethod
    def from_json(cls, text: str) -> DetectorSpec:
        """The spec that :meth:`to_json` wrote; raises KeyError, TypeError or ValueError for anything else."""
        values = json.loads(text)
        head = values["head"]
        anchors: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in head["anchors"].items()}
        rebuilt: dict[str, Any] = {
            "backbone": BackboneSpec(**values["backbone"]),
            "head": DenseSpec(**(head | {"anchors": Anchors(**anchors)})),
            "inference": Inference(**values["inference"]),
        }
        plain: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}
        return cls(**(plain | rebuilt))


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
        inside: int | None = None,
    ) -> list[Output]:
        """Look at pictures (B,3,H,W), bytes or floats in [0,1].

        ``sizes`` (B,2) says how much of each picture is not padding. Passing one ``priors`` per stage asks what this
        detector says *there*, instead of at the places it would propose itself. ``inside`` also asks for what the
        towers of the heads hold after so many convolutions.
        """
        features = self.look(images)
        outputs: list[Output] = []
        for number, stage in enumerate(cast("Sequence[DenseStage]", self.stages)):
            previous = outputs[-1] if outputs else None
            own = priors[number] if priors is not None else stage.propose(features, previous, truth, sizes)
            said, towers = stage(features, own, inside)
            outputs.append(Output(said, own, features, sizes, towers))
        return outputs

    def look(self, images: Tensor) -> tuple[Tensor, ...]:
        """The feature maps of pictures (B,3,H,W), bytes or floats in [0,1], finest first."""
        floats = images.float() / 255 if images.dtype == torch.uint8 else images
        maps: tuple[Tensor, ...] = self.neck(self.backbone((floats - self.mean) / self.std))
        return maps

    @property
    def pyramid(self) -> Pyramid:
        """What the feature maps are like."""
        return self.spec.pyramid

    @property
    def head(self) -> DenseStage:
        """The head of the last stage."""
        return cast("DenseStage", self.stages[-1])

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
