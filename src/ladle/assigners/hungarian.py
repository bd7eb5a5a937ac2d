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
"""Weight of the focal loss of an object; gamma is 2."""


@dataclass(frozen=True)
class Hungarian:
    """Each object is learnt by one prior, each prior learns at most one, at the least total cost (Carion et al. 2020).

    A pair costs ``class_weight * class + box_weight * L1 - giou_weight * GIoU``, L1 between centers and sizes in units
    of the image. With more objects than priors the priors are shared out as cheaply as possible and objects are left
    over. A pair whose cost is not finite is avoided, and never made.

    The only assigner that waits for the device, and cannot be compiled into one graph: the matching itself is SciPy's,
    on the processor, image by image. Of each object only as many cheapest priors take part as there are objects, which
    changes nothing: in a matching of least cost that gives an object another one, the other objects leave at least one
    of those free, and moving there costs no more.

    Args:
        class_cost: ``"focal"``, what learning the class costs less what the same logit costs as background, alpha 0.25
            and gamma 2 (Deformable DETR); or ``"softmax"``, minus the probability among all classes (DETR).
        class_weight: its weight; 2 with focal, 1 with softmax in the papers.
        box_weight: weight of the L1 distance.
        giou_weight: weight of the generalized IoU.
        size: width and height of the image in pixels; None takes the lower right corner of all priors of an image,
            which for queries that have the whole image for a prior is its size.
        crowd: a prior with more than this share inside a crowd region is not background.

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
        """Match by what is predicted, classes and boxes alike."""
        free = outside_crowds(priors, truth, self.crowd)
        cost, prior = self._cheapest(predictions, priors, truth)
        rows, numbers, chosen = [], [], []
        costs, names, learnable = cost.cpu().numpy(), prior.cpu().numpy(), truth.learnable.cpu().numpy()
        for row, real in enumerate(learnable):
            objects, matched = _match(costs[row][real], names[row][real])
            numbers.append(np.flatnonzero(real)[objects])
            chosen.append(matched)
            rows.append(np.full(len(matched), row))
        image, number, place = (
            torch.from_numpy(np.concatenate(each)).to(free.device) for each in (rows, numbers, chosen)
        )
        index = torch.zeros_like(free, dtype=torch.long)
        index[image, place] = number
        positive = torch.zeros_like(free)
        positive[image, place] = True
        return Assignment.hard(index, positive, free)

    def _cheapest(
        self, said: Predictions, priors: Priors, truth: GroundTruth
    ) -> tuple[Float[Tensor, "B G K"], Int[Tensor, "B G K"]]:
        """The cheapest priors of each object, as many as the fullest image has objects; infinite where not finite."""
        most = int(truth.learnable.sum(1).max()) if truth.learnable.numel() else 0
        count = min(most, said.boxes.shape[1])
        kept = [
            cost.masked_fill(~(cost.isfinite() & priors.valid.unsqueeze(1)), torch.inf).topk(count, largest=False)
            for cost in self._costs(said, priors, truth)
        ]
        if not kept:
            empty = said.boxes.new_zeros(len(truth.labels), 0, 0)
            return empty, empty.long()
        return torch.cat([each.values for each in kept], 1), torch.cat([each.indices for each in kept], 1)

    def _costs(self, said: Predictions, priors: Priors, truth: GroundTruth) -> Iterator[Float[Tensor, "B g P"]]:
        """What every pair costs, in slices of the objects; object-major and coordinate by coordinate."""
        size = self._size(priors).repeat(1, 2).t().view(4, -1, 1, 1)
        boxes = said.boxes.permute(2, 0, 1).contiguous().unsqueeze(2)
        corners = truth.boxes.permute(2, 0, 1).contiguous().unsqueeze(-1)
        units, unit_corners = boxes / size, corners / size
        labels = torch.where(truth.learnable, truth.labels, 0)
        said_of = (said.logits if self.class_cost == "focal" else said.logits.softmax(-1)).transpose(1, 2)
        for part in object_slices(len(labels), boxes.shape[-1], labels.shape[1]):
            label = labels[:, part].unsqueeze(-1).expand(-1, -1, boxes.shape[-1])
            cost = self._class_cost(said_of.gather(1, label)).mul_(self.class_weight)
            cost = cost.add_(_distance(units, unit_corners[:, :, part]), alpha=self.box_weight)
            yield cost.sub_(_giou(boxes, corners[:, :, part]), alpha=self.giou_weight)

    def _class_cost(self, said: Tensor) -> Tensor:
        """From the logits of the objects' classes, or their probabilities."""
        if self.class_cost == "softmax":
            return -said
        prob = said.sigmoid()
        surprise = said.clamp(max=0).neg_() + (1 + said.abs().neg_().exp_()).log_()
        own = _ALPHA * (1 - prob).square_() * surprise
        return own - (1 - _ALPHA) * prob.square_() * surprise.add_(said)

    def _size(self, priors: Priors) -> Float[Tensor, "B 2"]:
        if self.size is not None:
            return priors.boxes.new_tensor([self.size])
        corner = torch.where(priors.valid.unsqueeze(-1), priors.boxes[..., 2:], 0.0)
        return corner.amax(1).clamp(min=1.0)


def _distance(first: Float[Tensor, "4 B 1 P"], second: Float[Tensor, "4 B g 1"]) -> Float[Tensor, "B g P"]:
    """L1 between centers and sizes, summed."""
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
    """Which objects are matched and with which priors, from the cost of each object's cheapest priors (G, K)."""
    # SciPy takes a noticeable time to import and only this method needs it.
    from scipy.optimize import linear_sum_assignment

    present = np.zeros(prior.max(initial=-1) + 1, dtype=bool)
    present[prior] = True
    names, column = np.flatnonzero(present), np.cumsum(present) - 1
    known = np.isfinite(cost)
    reach = np.abs(cost[known]).max(initial=0.0).astype(np.float64)
    # More than any difference that avoiding one such pair can make to the rest.
    avoided = 2 * (reach + 1) * (len(cost) + 1)
    matrix = np.full((len(cost), len(names)), avoided)
    matrix[np.arange(len(cost))[:, None], column[prior]] = np.where(known, cost, avoided)
    objects, places = linear_sum_assignment(matrix)
    made = matrix[objects, places] < avoided
    return objects[made], names[places[made]]
