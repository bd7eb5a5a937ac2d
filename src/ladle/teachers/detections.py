"""What a teacher of any kind finds in a batch: boxes with class scores, at its own places or as final boxes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ladle.detectors import Inference
from ladle.device import constants
from ladle.types import Batch, Detections, Grid, Output, Predictions, Priors, Record

__all__ = ["FINAL_LEAST", "FINAL_MOST", "LEAST_LOGIT", "TeacherDetections", "logit"]

_LEAST_SCORE = 1e-4
"""The score of background: a score below it, or as near to 1, becomes this."""
LEAST_LOGIT: float = torch.tensor(_LEAST_SCORE, dtype=torch.float64).logit().float().item()
"""The logit of background."""

FINAL_MOST, FINAL_LEAST = 300, 0.01
"""The largest number of final boxes in an image, and the score above which there are any."""
_CANDIDATES = 10_000
"""The largest number of boxes that enter suppression: a crowd has many boxes that say the same."""
_NMS = 0.6
"""IoU above which the lower-scoring of two boxes of one class is removed."""


@dataclass(frozen=True)
class TeacherDetections(Record):
    """Boxes and class logits that a teacher found in a batch, in pixels of the batch's images.

    Attributes:
        boxes: the boxes, in any order; an image with fewer has rows of background at the end.
        logits: class logits, one sigmoid each.
        quality: logits of a quality branch, if the teacher has one beside its scores.
        edges: logits of the distributions of the box edges, as distances from the place in its strides.
        grids: the grids on which the teacher's places lie, level by level, in pixels of its own input. None for final
            boxes, which belong to no place.
        frame: scale x, scale y, shift x and shift y of each image: a pixel x of the batch is ``scale * x + shift`` in
            the teacher's input.

    Examples:
        >>> import torch
        >>> from ladle.teachers import TeacherDetections
        >>> found = TeacherDetections.final(torch.tensor([[[0.0, 0.0, 8.0, 8.0]]]), torch.tensor([[[0.5, 0.0]]]))
        >>> found.logits.sigmoid()
        tensor([[[5.0000e-01, 1.0000e-04]]])
    """

    boxes: Float[Tensor, "B N 4"]
    logits: Float[Tensor, "B N C"]
    frame: Float[Tensor, "B 4"]
    quality: Float[Tensor, "B N"] | None = None
    edges: Float[Tensor, "B N 4 K"] | None = None
    grids: tuple[Grid, ...] | None = None

    @classmethod
    def final(cls, boxes: Float[Tensor, "B N 4"], scores: Float[Tensor, "B N C"]) -> TeacherDetections:
        """Final boxes with class scores in [0, 1]."""
        # In double precision, so that logits that are recorded as scores come back bit for bit.
        return cls(boxes.float(), logit(scores.double()).float(), identity_frame(boxes))

    @classmethod
    def of_each(cls, found: list[Detections], classes: int) -> TeacherDetections:
        """Final boxes of each image, of which each has one class."""
        most = max((len(one.scores) for one in found), default=0)
        like = found[0].boxes
        boxes, scores = like.new_zeros(len(found), most, 4), like.new_zeros(len(found), most, classes)
        for row, one in enumerate(found):
            count = len(one.scores)
            boxes[row, :count] = one.boxes
            scores[row, :count].scatter_(1, one.labels[:, None], one.scores[:, None])
        return cls.final(boxes, scores)

    def suppressed(self, sizes: Int[Tensor, "B 2"]) -> TeacherDetections:
        """Final boxes from boxes of which many say the same: up to 300 of a score above 0.01, NMS at 0.6.

        ``sizes`` are height and width of each image, to which boxes are clipped.
        """
        inference = Inference(threshold=FINAL_LEAST, nms=_NMS, candidates=_CANDIDATES, keep=FINAL_MOST)
        found = inference.find(self._output(), sizes, sizes)
        return self.of_each(found, self.logits.shape[-1])

    def detections(self, batch: Batch, most: int = 100, least: float = 0.05) -> list[Detections]:
        """The detections of each image with scores above ``least``, best first, in pixels of the images on disk.

        Dense predictions are reduced by NMS at 0.6; final boxes are kept as they are.
        """
        nms = _NMS if self.grids is not None else 1.0
        inference = Inference(threshold=least, nms=nms, candidates=_CANDIDATES, keep=most)
        return inference.find(self._output(), batch.sizes, batch.originals)

    def _output(self) -> Output:
        """The same as the output of a detector whose priors are the boxes."""
        count = self.boxes.shape[1]
        none = self.boxes.new_zeros(count)
        everywhere = torch.ones(1, count, dtype=torch.bool, device=none.device)
        priors = Priors(self.boxes, none, none.long(), everywhere, (count,))
        return Output(Predictions(self.logits, self.boxes), priors, ())


def logit(scores: Float[Tensor, "*b"]) -> Tensor:
    """The logits of scores, which are first kept between 0.0001 and 0.9999."""
    return scores.logit(eps=_LEAST_SCORE)


def identity_frame(like: Tensor) -> Float[Tensor, "B 4"]:
    """The frame of a teacher whose input are the images of the batch as they are."""
    return constants(((1.0, 1.0, 0.0, 0.0),), like.device).expand(len(like), 4)
