"""Everything that is needed to build a detector again, as plain values."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from ladle.detectors.backbones import BackboneSpec
from ladle.detectors.dense import DenseSpec
from ladle.detectors.postprocess import Inference
from ladle.detectors.priors import Anchors

if TYPE_CHECKING:
    from ladle.detectors.detector import Detector

__all__ = ["DetectorSpec"]

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

    def build(self) -> Detector:
        """Build the detector, its backbone started as the spec says and the rest at random."""
        from ladle.detectors.detector import Detector, Neck

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
