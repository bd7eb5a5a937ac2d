"""An ONNX file that finds objects, used as the detector that it was made from."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ladle.detectors import Inference, as_floats
from ladle.errors import UserError
from ladle.exporting.runtime import onnx_session, session_runner
from ladle.exporting.suppression import select
from ladle.types import Batch, Detections

__all__ = ["OnnxDetector"]


class OnnxDetector:
    """Finds objects with onnxruntime; ``about`` is what the file says of itself, see :func:`describe`."""

    def __init__(self, model: bytes | Path, threads: int | None = None) -> None:
        session = onnx_session(model, threads)
        self.about = _read_about(session, model)
        self._run = session_runner(session)
        self._mean, self._std = (torch.tensor(self.about[key]).view(1, 3, 1, 1) for key in ("mean", "std"))

    @property
    def inference(self) -> Inference:
        """How predictions become detections; scores come out of the file, whatever their rule is."""
        about = self.about
        return Inference(
            threshold=about["score_threshold"],
            nms=about["iou_threshold"],
            candidates=about["candidates"],
            keep=about["keep"],
            voting=about["voting"],
            least=about["least_side"],
        )

    def detect(self, batch: Batch) -> list[Detections]:
        """Find the objects of a batch of bytes, in the pixels of the images on disk."""
        parts = [self._run(*pair) for pair in self.inputs(batch)]
        found = tuple(torch.cat(one)[: len(batch.sizes)] for one in zip(*parts, strict=True))
        if not self.about["nms"]:
            boxes, scores = found
            counts = self._counts(batch.images, scores)
            found = select(boxes, scores, counts, batch.sizes, self.inference)
        stretches = (batch.originals / batch.sizes).flip(-1).repeat(1, 2)
        return [
            Detections(box[score > 0] * stretch, score[score > 0], label[score > 0])
            for box, score, label, stretch in zip(*found, stretches, strict=True)
        ]

    def inputs(self, batch: Batch) -> Iterator[tuple[Tensor, Tensor]]:
        """Images and sizes as the file takes them; one of a fixed number of images takes a batch in several parts.

        The last part is filled up with images of the batch.
        """
        images, count = self._as_input(self._padded(batch.images)), len(batch.sizes)
        at_once = self.about["batch"]
        if at_once is None:
            yield images, batch.sizes
            return
        for start in range(0, count, at_once):
            part = [index % count for index in range(start, start + at_once)]
            yield images[part], batch.sizes[part]

    def _padded(self, images: Tensor) -> Tensor:
        size = self.about["input_size"]
        if size is None:
            return images
        bottom, right = size[0] - images.shape[2], size[1] - images.shape[3]
        return F.pad(images, (0, right, 0, bottom), value=self.about["pad_value"])

    def _as_input(self, images: Tensor) -> Tensor:
        if self.about["images"] == "uint8":
            return images
        floats = as_floats(images)
        return (floats - self._mean) / self._std if self.about["images"] == "normalized" else floats

    def _counts(self, images: Tensor, scores: Tensor) -> tuple[int, ...]:
        """The priors of each level; proposals have no levels."""
        each = self.about["priors_per_location"]
        if not each:
            return (scores.shape[1],)
        height, width = self.about["input_size"] or images.shape[2:]
        return tuple(-(-height // stride) * -(-width // stride) * each for stride in self.about["strides"])


def _read_about(session: Any, model: bytes | Path) -> dict[str, Any]:
    known = session.get_modelmeta().custom_metadata_map
    try:
        about = {key: json.loads(value) for key, value in known.items()}
    except ValueError:
        about = {}
    if "ladle_version" not in about:
        name = model if isinstance(model, Path) else "the model"
        raise UserError(f"{name}: expected a file written by `ladle export`, found another ONNX model")
    return about
