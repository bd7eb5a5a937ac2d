"""The losses of AutoAssign, in which an object is found by all priors inside it together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ladle.bags import bag_pairs, center_weight, confidence, learnable_only, object_sums
from ladle.overlaps import may_look
from ladle.pairs import Pairs
from ladle.types import Assignment, GroundTruth, Output, Predictions, Term

__all__ = ["BagCriterion", "joint_background"]

_BLOCK = 1 << 17
"""Elements worked on at once on a processor: a dozen float32 buffers that stay in its cache."""
_LOG_FLOOR = -100.0
"""Cross entropy of a probability that is 0, as in PyTorch."""
_NARROW = 1e-12
"""Least denominator of the published code."""


@dataclass(frozen=True)
class BagCriterion:
    """What a bag of priors pays for its object, what every prior pays as background, and what centers the bags.

    Zhu et al. (arXiv 2007.03496), as mmdetection weighs it. The plan's ``affinity`` says how much of an object each
    prior answers for; gradients flow through it too where it has them.

    Args:
        positive_weight: weight of the entropy of each object's confidence, the mean over objects.
        negative_weight: weight of the focal loss of ``negative_weight * class * objectness``, by the sum of the center
            priors.
        center_weight: weight of the number of objects by the sum of their center priors, the mean over images.
        box_weight: what a unit of 1 - GIoU weighs in the confidence; as in the assigner.

    Examples:
        >>> from dataclasses import replace
        >>> import torch
        >>> from ladle.assigners import AutoAssign
        >>> from ladle.criteria import BagCriterion
        >>> from ladle.testing import example_output
        >>> output, truth, _ = example_output()
        >>> centers = torch.tensor([0.0, 0.0, 1.0, 1.0]).expand(2, 5, 4)  # of two images and five classes
        >>> output = replace(output, predictions=replace(output.predictions, center_prior=centers))
        >>> plan = AutoAssign()(output.predictions, output.priors, truth)
        >>> sorted(BagCriterion()(output, truth, plan))
        ['center', 'negative', 'positive']
    """

    positive_weight: float = 0.25
    negative_weight: float = 0.75
    center_weight: float = 0.75
    box_weight: float = 5.0

    def __call__(self, output: Output, truth: GroundTruth, assignment: Assignment) -> dict[str, Term]:
        """Terms ``positive``, ``negative`` and ``center``, in float32. Ignored priors cost nothing.

        Under a hard plan an object is found by the mean confidence of its priors, and these are no background for its
        class.
        """
        with torch.autocast(output.predictions.logits.device.type, enabled=False):
            said, priors = output.predictions.map(Tensor.float), output.priors
            truth = learnable_only(truth)
            pairs = bag_pairs(priors, truth)
            central = center_weight(said, priors, truth, pairs)
            return {
                "positive": self._positive(said, truth, assignment),
                "negative": self._negative(said, truth, assignment, central.detach().sum()),
                "center": self._center(central, pairs, truth),
            }

    def _positive(self, said: Predictions, truth: GroundTruth, plan: Assignment) -> Term:
        pairs, position = _entries(plan, plan.affinity > 0, truth)
        weight = plan.affinity.flatten().index_select(0, position)
        answered = weight * confidence(said, truth, pairs, self.box_weight)
        found = object_sums(pairs, torch.where(pairs.real, answered, 0.0), truth)
        # The weights of a bag sum to 1, up to rounding; those of a hard plan to the number of its priors.
        found = found / object_sums(pairs, weight.detach(), truth).clamp(min=1)
        missed = found == 0
        cost = torch.where(missed, -_LOG_FLOOR, -torch.where(missed, 1.0, found).log()).clamp(max=-_LOG_FLOOR)
        total = self.positive_weight * torch.where(truth.learnable, cost, 0.0).sum()
        count = truth.learnable.sum().float()
        return Term(total, count, torch.ones_like(count))

    def _negative(self, said: Predictions, truth: GroundTruth, plan: Assignment, count: Tensor) -> Term:
        learnt = plan.affinity.detach()
        negative_weight = plan.negative_weight if plan.negative_weight is not None else (learnt <= 0).float()
        pairs, position = _entries(plan, negative_weight < 1, truth)
        total = joint_background(
            said.logits.flatten(0, 1),
            said.quality.flatten() if said.quality is not None else None,
            (plan.background + learnt.sum(-1)).clamp(max=1).flatten(),
            pairs.image * plan.objects.shape[1] + pairs.prior,
            pairs.of_object(truth.labels),
            negative_weight.flatten().index_select(0, position),
        )
        return Term(self.negative_weight * total, count, torch.ones_like(count))

    def _center(self, central: Tensor, pairs: Pairs, truth: GroundTruth) -> Term:
        none = central.new_zeros(len(truth.labels))
        mass = none.index_add(0, pairs.image, central)
        any_inside = none.index_add(0, pairs.image, pairs.real.float()) > 0
        rate = truth.learnable.sum(1) / mass.clamp(min=_NARROW)
        total = self.center_weight * torch.where(any_inside, rate, 0.0).sum()
        return Term(total, torch.full_like(total, len(none)), torch.zeros_like(total))


def joint_background(
    logits: Float[Tensor, "N C"],
    objectness: Float[Tensor, " N"] | None,
    counted: Float[Tensor, " N"],
    row: Int[Tensor, " K"],
    label: Int[Tensor, " K"],
    negative_weight: Float[Tensor, " K"],
) -> Float[Tensor, ""]:
    """The sum of ``-x^2 log(1 - x)`` where ``x = weight * sigmoid(logits) * sigmoid(objectness)``; logarithms to -100.

    The weight of a row is ``counted``, at the K listed places, in ascending rows, times ``negative_weight``; of a place
    that is listed more than once the least negative weight holds. No gradient flows to the weights.
    """
    if objectness is None:
        objectness = torch.full_like(counted, torch.inf)
    total: Tensor = _JointBackground.apply(logits, objectness, counted, row, label, negative_weight)
    return total


class _JointBackground(torch.autograd.Function):
    """Loss and gradient together, in blocks that stay in a processor's cache."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, objectness: Tensor, counted: Tensor, *listed: Tensor) -> Tensor:
        row, label, negative_weight = listed
        slopes, tilts = torch.empty_like(logits), torch.empty_like(objectness)
        total = logits.new_zeros(())
        for part, here in _blocks(logits, row):
            of_class, of_object = logits[part].sigmoid(), objectness[part].sigmoid()
            joint = of_class * (of_object * counted[part]).unsqueeze(-1)
            place = (row[here] - part.start) * logits.shape[1] + label[here]
            flat = joint.view(-1)
            flat.scatter_reduce_(0, place, flat.index_select(0, place) * negative_weight[here], "amin")
            cost, slope = _background_cost(joint)
            total += cost
            # d x / d logit = x (1 - sigmoid), for the class and for the objectness.
            torch.mul(slope, of_class.neg_().add_(1), out=slopes[part])
            torch.mul(slope.sum(-1), 1 - of_object, out=tilts[part])
        ctx.save_for_backward(slopes, tilts)
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        slopes, tilts = ctx.saved_tensors
        return grad * slopes, grad * tilts, None, None, None, None


def _background_cost(joint: Tensor) -> tuple[Tensor, Tensor]:
    """The sum of ``-x^2 log(1 - x)``, and x times its derivative by x, written over x."""
    rest = 1 - joint
    share = rest.clamp(min=_NARROW).reciprocal_()
    # What 1 - x rounded off is put back to first order.
    lost = (1 - rest).sub_(joint).mul_(share)
    log = rest.log_().clamp_(min=_LOG_FLOOR).add_(lost)
    square = joint.square()
    slope = joint.mul_(share).sub_(log, alpha=2).mul_(square)
    return -log.mul_(square).sum(), slope


def _blocks(logits: Float[Tensor, "N C"], row: Int[Tensor, " K"]) -> list[tuple[slice, slice]]:
    """Ranges of rows, each with the range of the list that lies in it; one where looking is not free."""
    count, classes = logits.shape
    if not may_look(logits):
        return [(slice(0, count), slice(0, len(row)))]
    starts = list(range(0, count, max(1, _BLOCK // max(1, classes))))
    bounds = torch.searchsorted(row, torch.tensor([*starts, count])).tolist()
    return [
        (slice(start, end), slice(first, last))
        for start, end, first, last in zip(starts, [*starts[1:], count], bounds, bounds[1:], strict=False)
    ]


def _entries(plan: Assignment, mask: Bool[Tensor, "B P M"], truth: GroundTruth) -> tuple[Pairs, Int[Tensor, " N"]]:
    """The marked entries of a plan as pairs, and where in it they stand; all entries where looking is not free."""
    _, count, width = mask.shape
    marked = mask.flatten()
    if may_look(mask):
        position = marked.nonzero().squeeze(1)
    else:
        position = torch.arange(len(marked) if truth.labels.shape[1] else 0, device=mask.device)
    row = position // width
    objects, real = plan.objects.flatten().index_select(0, position), marked.index_select(0, position)
    return Pairs(row // count, objects, row % count, real), position
