"""From dense predictions to the objects of an image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ladle.boxes import clip, pairwise_iou
from ladle.limits import Range
from ladle.types import Detections, Output, Predictions

__all__ = ["Inference", "vote"]

_VOTE_SPREAD, _VOTE_LEAST = 0.025, 0.01


@dataclass(frozen=True)
class Inference:
    """How a detector's predictions become detections.

    Args:
        rule: how a class probability and the quality branch make a score: ``class`` alone (RetinaNet, GFL, TOOD,
            RTMDet), their ``product`` (ATSS, FCOS, YOLOX, AutoAssign), or its square ``root`` (PAA, OTA).
        threshold: lowest score of a detection.
        nms: IoU above which the lower-scoring of two boxes of one class is removed; None removes none, as for a
            one-to-one head.
        candidates: number of highest-scoring priors of each level that enter suppression.
        keep: largest number of detections of an image, by score; :meth:`DetectorSpec.keeping` changes it along with
            ``candidates``.
        voting: whether each kept box becomes the average of what it suppressed, weighted by overlap and score (PAA).
        least: shortest side of a box in pixels, after clipping to the image.
    """

    rule: Literal["class", "product", "root"] = "class"
    threshold: Annotated[float, Range(0, 1)] = 0.05
    nms: Annotated[float, Range(0, 1)] | None = 0.6
    candidates: Annotated[int, Range(1, 100_000)] = 1000
    keep: Annotated[int, Range(1, 10_000)] = 100
    voting: bool = False
    least: Annotated[float, Range(0, 10_000)] = 0.0

    def find(self, output: Output, sizes: Int[Tensor, "B 2"], originals: Int[Tensor, "B 2"]) -> list[Detections]:
        """Detections of every image, best first, in the pixels of ``originals`` (B,2)."""
        from torchvision.ops import batched_nms

        scores = self.scores(output.predictions).masked_fill(~output.priors.valid.unsqueeze(-1), 0.0)
        classes = scores.shape[-1]
        image, prior, label = self._candidates(scores, output.priors.counts)
        score = scores[image, prior, label]
        boxes = clip(_boxes(output.predictions, image, prior, label)[:, None], sizes.index_select(0, image))[:, 0]
        if self.least:
            wide = ((boxes[:, 2:] - boxes[:, :2]) >= self.least).all(-1)
            image, label, score, boxes = image[wide], label[wide], score[wide], boxes[wide]
        if self.nms is None:
            kept = score.argsort(descending=True, stable=True)
        else:
            # In double precision: suppression by groups moves each group's boxes far from the others'.
            kept = batched_nms(boxes.double(), score.double(), image * classes + label, self.nms)
        return [
            self._image(boxes, score, label, image == row, kept[image[kept] == row][: self.keep], stretch)
            for row, stretch in enumerate((originals / sizes).flip(-1).repeat(1, 2))
        ]

    def scores(self, predictions: Predictions) -> Float[Tensor, "B P C"]:
        """The score of every class at every prior, in [0, 1]."""
        scores = predictions.scores
        if self.rule == "class":
            return scores
        if predictions.quality is None:
            raise ValueError(f"score rule {self.rule!r} needs a quality branch, which this detector has not")
        joint = scores * predictions.quality.float().sigmoid().unsqueeze(-1)
        return joint.sqrt() if self.rule == "root" else joint

    def _candidates(self, scores: Float[Tensor, "B P C"], counts: tuple[int, ...]) -> tuple[Tensor, ...]:
        best, keep, start = scores.amax(-1), [], 0
        for count in counts:
            top = best[:, start : start + count].topk(min(count, self.candidates), dim=1).indices
            keep.append(top + start)
            start += count
        prior = torch.cat(keep, dim=1)
        chosen = scores.gather(1, prior.unsqueeze(-1).expand(-1, -1, scores.shape[-1])) > self.threshold
        image, rank, label = chosen.nonzero(as_tuple=True)
        return image, prior[image, rank], label

    def _image(
        self, boxes: Tensor, score: Tensor, label: Tensor, here: Bool[Tensor, " N"], kept: Tensor, stretch: Tensor
    ) -> Detections:
        found = boxes[kept]
        if self.voting:
            same = label[kept].unsqueeze(1) == label[here]
            found = vote(found, boxes[here], torch.where(same, score[here], 0.0))
        return Detections(found * stretch, score[kept], label[kept])


def _boxes(
    predictions: Predictions, image: Int[Tensor, " N"], prior: Int[Tensor, " N"], label: Int[Tensor, " N"]
) -> Float[Tensor, "N 4"]:
    """The box of every candidate; the box of its class if there is one for each class."""
    if predictions.class_boxes is not None:
        return predictions.class_boxes[image, prior, label].float()
    return predictions.boxes[image, prior].float()


def vote(
    kept: Float[Tensor, "*b K 4"], boxes: Float[Tensor, "*b N 4"], scores: Float[Tensor, "*b K N"]
) -> Float[Tensor, "*b K 4"]:
    """Score voting (Kim & Lee 2020, section 3.4): average the boxes of a class, weighted by overlap and score.

    ``scores`` are those of ``boxes`` for the class of each kept one; a box of another class has score 0.
    """
    overlap = pairwise_iou(kept, boxes)
    votes = (overlap > _VOTE_LEAST) & (scores > 0)
    weight = torch.where(votes, (-(1 - overlap).square() / _VOTE_SPREAD).exp() * scores, 0.0)
    mean = weight @ boxes / weight.sum(-1, keepdim=True).clamp(min=1e-12)
    if not boxes.shape[-2]:
        return mean
    # A mean lies between its smallest and largest value; rounding could move it outside.
    voters = (scores > 0).any(-2).unsqueeze(-1)
    most = boxes.masked_fill(~voters, -torch.inf).amax(-2, keepdim=True)
    least = boxes.masked_fill(~voters, torch.inf).amin(-2, keepdim=True)
    return mean.minimum(most).maximum(least)
