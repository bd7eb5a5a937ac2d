"""One-to-one matching at the least total cost (DETR)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from ladle.assigners.protocol import full_precision
from ladle.boxes import IOU_FLOOR
from ladle.overlaps import object_slices, outside_crowds
from ladle.types import Assignment, GroundTruth, Predictions, Priors

__all__ = ["Hungarian"]

_ALPHA = 0.25
"""Weight of positives in the focal loss; gamma is 2."""


@dataclass(frozen=True)
class Hungarian:
    """One-to-one matching of objects and priors at the lowest total cost (Carion et al., ECCV 2020).

    A pair costs ``class_weight * class + box_weight * L1 - giou_weight * GIoU``, where L1 is the distance of centers
    and sizes in units of the image size. If there are more objects than priors, some objects remain without a prior.
    Pairs whose cost is not finite are never matched.

    This is the only assigner with a device sync, and it does not compile into one graph: the matching is done by SciPy
    on the CPU, image by image. With G objects in an image, only the G priors of lowest cost of each object take part.
    This does not change the total cost: if an optimal matching gives an object another prior, the other G - 1 objects
    leave at least one of its G best priors free, and changing to it cannot raise the cost.

    Args:
        class_cost: ``"focal"``: focal loss of the class logit as positive minus focal loss as negative, with alpha 0.25
            and gamma 2 (Deformable DETR). ``"softmax"``: minus the probability among all classes (DETR).
        class_weight: weight of the class cost; 2 with focal and 1 with softmax in the papers.
        box_weight: weight of the L1 distance.
        giou_weight: weight of the generalized IoU.
        size: width and height of the image in pixels. None takes the lower right corner of all priors of an image; this
            is the size of the image if the prior of each query is the whole image.
        crowd: a prior with more than this share of its area inside a crowd region is not background.

    Examples:
        >>> from ladle.assigners import Hungarian
        >>> from ladle.testing import example_scene
        >>> predictions, priors, truth = example_scene()
        >>> plan = Hungarian()(predictions, priors, truth)
        >>> plan.positive.sum(1)  # one for each of six objects
        tensor([6, 6])
    """

    class_cost: Literal["focal", "softmax"] = "focal"
    class_weight: float = 2.0
    box_weight: float = 5.0
    giou_weight: float = 2.0
    size: tuple[float, float] | None = None
    crowd: float = 0.5

    @full_precision
    def __call__(self, predictions: Predictions, priors: Priors, truth: GroundTruth) -> Assignment:
        """Match by the predicted scores and boxes."""
        free = outside_crowds(priors, truth, self.crowd)
        cost, prior = self._lowest_costs(predictions, priors, truth)
        images, objects, matched_priors = [], [], []
        costs, candidates, learnable = cost.cpu().numpy(), prior.cpu().numpy(), truth.learnable.cpu().numpy()
        for row, real in enumerate(learnable):
            rows, matched = _match(costs[row][real], candidates[row][real])
            objects.append(np.flatnonzero(real)[rows])
            matched_priors.append(matched)
            images.append(np.full(len(matched), row))
        image, number, place = (
            torch.from_numpy(np.concatenate(each)).to(free.device) for each in (images, objects, matched_priors)
        )
        index = torch.zeros_like(free, dtype=torch.long)
        index[image, place] = number
        positive = torch.zeros_like(free)
        positive[image, place] = True
        return Assignment.hard(index, positive, free)

    def _lowest_costs(
        self, predictions: Predictions, priors: Priors, truth: GroundTruth
    ) -> tuple[Float[Tensor, "B G K"], Int[Tensor, "B G K"]]:
        """The K priors of lowest cost of each object, and their costs; infinite where a cost is not finite.

        K is the largest number of objects in an image.
        """
        most = int(truth.learnable.sum(1).max()) if truth.learnable.numel() else 0
        count = min(most, predictions.boxes.shape[1])
        kept = [
            cost.masked_fill(~(cost.isfinite() & priors.valid.unsqueeze(1)), torch.inf).topk(count, largest=False)
            for cost in self._costs(predictions, priors, truth)
        ]
        if not kept:
            empty = predictions.boxes.new_zeros(len(truth.labels), 0, 0)
            return empty, empty.long()
        return torch.cat([each.values for each in kept], 1), torch.cat([each.indices for each in kept], 1)

    def _costs(self, predictions: Predictions, priors: Priors, truth: GroundTruth) -> Iterator[Float[Tensor, "B g P"]]:
        """The cost of every pair, in slices of g objects; each coordinate is a matrix of its own, for speed."""
        size = self._size(priors).repeat(1, 2).t().view(4, -1, 1, 1)  # (4, B, 1, 1): width, height, width, height
        boxes = predictions.boxes.permute(2, 0, 1).contiguous().unsqueeze(2)  # (4, B, 1, P)
        corners = truth.boxes.permute(2, 0, 1).contiguous().unsqueeze(-1)  # (4, B, G, 1)
        units, unit_corners = boxes / size, corners / size
        labels = torch.where(truth.learnable, truth.labels, 0)
        class_values = predictions.logits if self.class_cost == "focal" else predictions.logits.softmax(-1)
        class_values = class_values.transpose(1, 2)  # (B, C, P)
        for part in object_slices(len(labels), boxes.shape[-1], labels.shape[1], boxes):
            label = labels[:, part].unsqueeze(-1).expand(-1, -1, boxes.shape[-1])
            cost = self._class_cost(class_values.gather(1, label)).mul_(self.class_weight)
            cost = cost.add_(_distance(units, unit_corners[:, :, part]), alpha=self.box_weight)
            yield cost.sub_(_giou(boxes, corners[:, :, part]), alpha=self.giou_weight)

    def _class_cost(self, values: Tensor) -> Tensor:
        """The class cost from ``values``: logits of the objects' classes (focal) or probabilities (softmax)."""
        if self.class_cost == "softmax":
            return -values
        prob = values.sigmoid()
        negative_log = values.clamp(max=0).neg_() + (1 + values.abs().neg_().exp_()).log_()  # -log(p)
        positive = _ALPHA * (1 - prob).square_() * negative_log
        return positive - (1 - _ALPHA) * prob.square_() * negative_log.add_(values)  # -log(1 - p) = z - log(p)

    def _size(self, priors: Priors) -> Float[Tensor, "B 2"]:
        if self.size is not None:
            return priors.boxes.new_tensor([self.size])
        corner = torch.where(priors.valid.unsqueeze(-1), priors.boxes[..., 2:], 0.0)
        return corner.amax(1).clamp(min=1.0)


def _distance(first: Float[Tensor, "4 B 1 P"], second: Float[Tensor, "4 B g 1"]) -> Float[Tensor, "B g P"]:
    """The sum of the L1 distances of centers and sizes of all pairs."""
    left, top, right, bottom = (a - b for a, b in zip(first, second, strict=True))
    total: Tensor = (left + right).abs_().add_((top + bottom).abs_()).div_(2)
    return total.add_(right.sub_(left).abs_()).add_(bottom.sub_(top).abs_())


def _giou(first: Float[Tensor, "4 B 1 P"], second: Float[Tensor, "4 B g 1"]) -> Float[Tensor, "B g P"]:
    """:func:`ladle.boxes.giou` of all pairs."""
    (x1, y1, x2, y2), (left, top, right, bottom) = first, second
    width = (x2.minimum(right) - x1.maximum(left)).clamp_(min=0)
    shared = (y2.minimum(bottom) - y1.maximum(top)).clamp_(min=0).mul_(width)
    areas = [(c[2] - c[0]).clamp(min=0) * (c[3] - c[1]).clamp(min=0) for c in (first, second)]
    union = (areas[0] + areas[1]).sub_(shared).clamp_(min=IOU_FLOOR)
    width = (x2.maximum(right) - x1.minimum(left)).clamp_(min=0)
    hull = (y2.maximum(bottom) - y1.minimum(top)).clamp_(min=0).mul_(width).clamp_(min=IOU_FLOOR)
    generalized: Tensor = (shared / union).add_(union / hull).sub_(1)
    return generalized


def _match(cost: NDArray[np.float32], prior: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Match G objects with priors, given each object's K candidates: ``prior`` (G, K) and their ``cost`` (G, K).

    Returns the matched objects and the prior of each.
    """
    # SciPy takes a noticeable time to import, and only this assigner needs it.
    from scipy.optimize import linear_sum_assignment

    present = np.zeros(prior.max(initial=-1) + 1, dtype=bool)
    present[prior] = True
    priors, column = np.flatnonzero(present), np.cumsum(present) - 1  # the columns of the matrix
    finite = np.isfinite(cost)
    largest = np.abs(cost[finite]).max(initial=0.0).astype(np.float64)
    # Higher than any total that a matching without forbidden pairs can save by using one.
    forbidden = 2 * (largest + 1) * (len(cost) + 1)
    matrix = np.full((len(cost), len(priors)), forbidden)
    matrix[np.arange(len(cost))[:, None], column[prior]] = np.where(finite, cost, forbidden)
    objects, columns = linear_sum_assignment(matrix)
    allowed = matrix[objects, columns] < forbidden
    return objects[allowed], priors[columns[allowed]]
