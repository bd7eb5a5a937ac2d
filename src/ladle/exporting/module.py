"""A detector as one function of tensors, which can be written to a file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from ladle.detectors import Detector
from ladle.exporting.adapter import Raw, feature_maps, lay_priors, predict_raw
from ladle.exporting.suppression import select

__all__ = ["Dynamic", "Exportable", "Format", "Images", "Plan"]

Format = Literal["onnx", "pt2"]
Images = Literal["uint8", "float", "normalized"]
Dynamic = Literal["batch", "sizes", "none"]


@dataclass(frozen=True)
class Plan:
    """What a file takes and gives.

    Args:
        format: ``onnx``, or ``pt2``, PyTorch's own.
        images: RGB ``uint8``, ``float`` in [0, 1], or ``normalized`` by mean and standard deviation already.
        dynamic: what may vary from call to call: how many images there are (``batch``), also their ``sizes``, or
            nothing (``none``).
        nms: whether detections come out, or boxes and scores of every prior.
        half: whether the weights are stored in 16 bits.
        side: height and width of the network input, a multiple of 32; the largest of a file whose sizes vary.
        batch: images at once, where nothing varies.
    """

    format: Format = "onnx"
    images: Images = "uint8"
    dynamic: Dynamic = "batch"
    nms: bool = True
    half: bool = False
    side: int = 640
    batch: int = 1

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of what comes out."""
        return ("boxes", "scores", "labels") if self.nms else ("boxes", "scores")


class Exportable(nn.Module):
    """``(images, sizes)`` to detections, or to boxes and scores.

    ``images`` are (B,3,H,W); ``sizes`` (B,2) are the heights and widths that they fill of that, the rest being padding
    at the right and the bottom. Out come, in pixels of ``images``, with ``plan.nms`` boxes (B,K,4), scores (B,K) and
    labels (B,K), best first, score 0 and label -1 where there is no detection; else boxes (B,P,4), or (B,P,C,4) where
    each class has its own, and scores (B,P,C).
    """

    prior_boxes: Tensor
    prior_strides: Tensor

    def __init__(self, detector: Detector, plan: Plan) -> None:
        super().__init__()
        self.detector = detector = detector.eval().deployed()
        self.plan = plan
        if plan.dynamic != "sizes":
            with torch.no_grad():
                blank = torch.zeros(1, 3, plan.side, plan.side, device=detector.mean.device)
                maps = feature_maps(detector, blank, normalized=True)
                boxes, strides = lay_priors(detector, [(m.shape[-2], m.shape[-1]) for m in maps])
            self.register_buffer("prior_boxes", boxes, persistent=False)
            self.register_buffer("prior_strides", strides, persistent=False)

    def forward(self, images: Tensor, sizes: Tensor) -> tuple[Tensor, ...]:
        """Detections, or boxes and scores."""
        features = feature_maps(self.detector, images, self.plan.images == "normalized")
        raw = self.predict(features, sizes)
        if not self.plan.nms:
            return raw.boxes, raw.scores
        return select(raw.boxes, raw.scores, raw.counts, sizes, self.detector.spec.inference)

    def predict(self, features: tuple[Tensor, ...], sizes: Tensor) -> Raw:
        """Boxes and scores from the feature maps."""
        if self.plan.dynamic == "sizes":
            boxes, strides = lay_priors(self.detector, [(m.shape[-2], m.shape[-1]) for m in features])
        else:
            boxes, strides = self.prior_boxes, self.prior_strides
        return predict_raw(self.detector, features, boxes, strides, sizes)
