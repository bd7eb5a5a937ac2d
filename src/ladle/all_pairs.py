"""Every prior with every object of its image, as broadcast views: the counterpart of a list of pairs on a GPU.

A GPU computes a whole matrix faster than a list can be built. :class:`AllPairs` has the same methods as
:class:`ladle.pairs.Pairs`, so one formula serves both.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from ladle.boxes import centers, iou
from ladle.device import fused
from ladle.overlaps import object_slices
from ladle.types import GroundTruth, Priors, Record

__all__ = ["AllPairs", "all_pairs"]


@dataclass(frozen=True)
class AllPairs(Record):
    """All pairs of P priors and some of the objects of each image: matrices (B, g, P).

    Attributes:
        truth: the objects of this part, g of each image.
        part: which ones of all objects these are.
        real: False where a pair does not count; None if all count.
    """

    truth: GroundTruth
    part: slice
    real: Bool[Tensor, "B g P"] | None = None

    def of_prior(self, values: Shaped[Tensor, "#B P *n"]) -> Shaped[Tensor, "#B 1 P *n"]:
        """Per-prior values, to be broadcast over objects."""
        return values.unsqueeze(1)

    def of_object(self, values: Shaped[Tensor, "B G *n"]) -> Shaped[Tensor, "B g 1 *n"]:
        """Per-object values, to be broadcast over priors."""
        return values[:, self.part].unsqueeze(2)

    def of_label(self, logits: Float[Tensor, "B P C"], labels: Int[Tensor, "B G"]) -> Float[Tensor, "B g P"]:
        """The logit of each prior for the class of each object; for class 0 of padding, whose label is arbitrary."""
        label = torch.where(self.truth.valid, labels[:, self.part], 0).unsqueeze(-1)
        return logits.transpose(1, 2).gather(1, label.expand(-1, -1, logits.shape[1]))

    def sum_per_object(self, values: Float[Tensor, "B g P"], batch: int, objects: int) -> Float[Tensor, "B g"]:
        """The sum of ``values`` over each object's pairs."""
        return values.sum(2, dtype=torch.float64).to(values.dtype)

    def sum_per_image(self, values: Float[Tensor, "B g P"], batch: int) -> Float[Tensor, " B"]:
        """The sum of ``values`` over each image's pairs."""
        return values.sum((1, 2), dtype=torch.float64).to(values.dtype)

    def iou(self, boxes: Float[Tensor, "#B P 4"], objects: Float[Tensor, "B G 4"]) -> Float[Tensor, "B g P"]:
        """The IoU of each prior's box with each object."""
        overlap: Tensor = _IOU_MATRIX(boxes, objects[:, self.part])
        return overlap

    def inside(self, priors: Priors, regions: Float[Tensor, "B G L 4"], margin: float = 0.0) -> Bool[Tensor, "B g P"]:
        """Whether each prior's center is more than ``margin`` inside the object's region on the prior's level."""
        inside: Tensor = _INSIDE(priors.boxes, priors.level, regions[:, self.part], margin)
        return inside


def all_pairs(priors: Priors, truth: GroundTruth, parts: int = 1) -> Iterator[AllPairs]:
    """All pairs, in parts whose matrices are one block on the device (:func:`ladle.device.block_size`).

    With ``parts`` above 1 they are smaller by this factor, for formulas with many intermediate matrices.
    """
    batch, objects = truth.labels.shape
    for part in object_slices(batch * parts, priors.boxes.shape[1], objects, truth.boxes):
        yield AllPairs(truth.map(lambda tensor, part=part: tensor[:, part]), part)  # type: ignore[misc]


def _iou_matrix(boxes: Tensor, objects: Tensor) -> Tensor:
    """The IoU of every object (B, G, 4) with every box of its image (b, P, 4), (B, G, P), in plain operations."""
    return iou(boxes.unsqueeze(1), objects.unsqueeze(2))


def _inside_matrix(boxes: Tensor, level: Tensor, regions: Tensor, margin: float) -> Tensor:
    """Whether each center is inside the region of each object on its level, (B, G, P), in plain operations."""
    x, y = centers(boxes).unsqueeze(1).unbind(-1)  # (b, 1, P)
    left, top, right, bottom = (side.index_select(2, level) for side in regions.unbind(-1))  # (B, G, P)
    across = (x - left).minimum(right - x)
    return across.minimum(y - top).minimum(bottom - y) > margin


_INSIDE = fused(
    "inside_matrix(Tensor boxes, Tensor level, Tensor regions, float margin) -> Tensor",
    _inside_matrix,
    module="points",
    launches=1,
)
_IOU_MATRIX = fused("iou_matrix(Tensor boxes, Tensor objects) -> Tensor", _iou_matrix, module="overlaps", launches=1)
