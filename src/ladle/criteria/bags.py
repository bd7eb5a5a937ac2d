"""The losses of AutoAssign, in which all priors inside an object learn it together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ladle.all_pairs import AllPairs
from ladle.bags import bag_pairs, center_weight, confidence, learnable_only
from ladle.device import may_look
from ladle.pairs import Pairs
from ladle.types import Assignment, GroundTruth, Output, Predictions, Term

__all__ = ["BagCriterion", "joint_background"]

_BLOCK = 1 << 17
"""Elements per block on the CPU, so that a dozen float32 buffers stay in its cache."""
_LOG_FLOOR = -100.0
"""Lower bound of the logarithm of a probability, as in PyTorch."""
_NARROW = 1e-12
"""Lower bound of denominators, as in the published code."""


@dataclass(frozen=True)
class BagCriterion:
    """The positive, negative and center losses of AutoAssign (Zhu et al., arXiv 2007.03496; weights of mmdetection).

    An object is learnt by its bag, the priors inside it, with the plan's ``affinity`` as their weights; gradients flow
    through these too if they have any.

    Args:
        positive_weight: weight of ``-log`` of each object's confidence, averaged over objects.
        negative_weight: weight of the focal loss on ``negative weight * class * objectness``, divided by the sum of the
            center priors.
        center_weight: weight of the number of objects divided by the sum of their center priors, averaged over images.
        box_weight: factor of ``1 - GIoU`` in the exponent of the confidence; the same as in the assigner.

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
        """Compute the terms ``positive``, ``negative`` and ``center`` in float32; ignored priors have no loss.

        Under a hard plan the confidence of an object is the mean confidence of its priors, and these priors are not
        trained as background for its class.
        """
        with torch.autocast(output.predictions.logits.device.type, enabled=False):
            predictions, priors = output.predictions.map(Tensor.float), output.priors
            truth = learnable_only(truth)
            pairs = bag_pairs(priors, truth)
            central = center_weight(predictions, priors, truth, pairs)  # of each pair
            return {
                "positive": self._positive(predictions, truth, assignment),
                "negative": self._negative(predictions, truth, assignment, central.detach().sum()),
                "center": self._center(central, pairs, truth),
            }

    def _positive(self, predictions: Predictions, truth: GroundTruth, plan: Assignment) -> Term:
        pairs, position = _entries(plan, plan.affinity > 0, truth)
        weight = plan.affinity.flatten().index_select(0, position)  # (N,)
        weighted = weight * confidence(predictions, truth, pairs, self.box_weight)
        shape = truth.labels.shape
        prob = pairs.sum_per_object(torch.where(pairs.real, weighted, 0.0), *shape)  # (B, G)
        # The weights of a bag sum to 1 up to rounding; those of a hard plan sum to the number of its priors.
        prob = prob / pairs.sum_per_object(weight.detach(), *shape).clamp(min=1)
        zero = prob == 0  # replaced before the logarithm, whose gradient would be infinite
        cost = torch.where(zero, -_LOG_FLOOR, -torch.where(zero, 1.0, prob).log()).clamp(max=-_LOG_FLOOR)
        total = self.positive_weight * torch.where(truth.learnable, cost, 0.0).sum()
        count = truth.learnable.sum().float()
        return Term(total, count, torch.ones_like(count))

    def _negative(self, predictions: Predictions, truth: GroundTruth, plan: Assignment, count: Tensor) -> Term:
        learnt = plan.affinity.detach()
        negative_weight = plan.negative_weight if plan.negative_weight is not None else (learnt <= 0).float()
        pairs, position = _entries(plan, negative_weight < 1, truth)
        total = joint_background(
            predictions.logits.flatten(0, 1),
            predictions.quality.flatten() if predictions.quality is not None else None,
            (plan.background + learnt.sum(-1)).clamp(max=1).flatten(),
            pairs.image * plan.objects.shape[1] + pairs.prior,
            pairs.of_object(truth.labels),
            negative_weight.flatten().index_select(0, position),
        )
        return Term(self.negative_weight * total, count, torch.ones_like(count))

    def _center(self, central: Tensor, pairs: Pairs | AllPairs, truth: GroundTruth) -> Term:
        batch = len(truth.labels)
        mass = pairs.sum_per_image(central, batch)
        any_inside = mass > 0 if pairs.real is None else pairs.sum_per_image(pairs.real.float(), batch) > 0
        rate = truth.learnable.sum(1) / mass.clamp(min=_NARROW)
        total = self.center_weight * torch.where(any_inside, rate, 0.0).sum()
        return Term(total, torch.full_like(total, batch), torch.zeros_like(total))


def joint_background(
    logits: Float[Tensor, "N C"],
    objectness: Float[Tensor, " N"] | None,
    counted: Float[Tensor, " N"],
    row: Int[Tensor, " K"],
    label: Int[Tensor, " K"],
    negative_weight: Float[Tensor, " K"],
) -> Float[Tensor, ""]:
    """The sum of ``-x^2 log(1 - x)`` over priors and classes, ``x = weight * sigmoid(logits) * sigmoid(objectness)``.

    Logarithms are clamped to at least -100. No gradient flows to the weights.

    Args:
        logits: class logits of N priors.
        objectness: objectness logits, or None for an objectness of 1.
        counted: weight of each prior.
        row: the prior of each of K pairs, ascending.
        label: the class of each pair.
        negative_weight: additional factor of the weight at each pair; at equal pairs the lowest one counts.
    """
    if objectness is None:
        objectness = torch.full_like(counted, torch.inf)
    total: Tensor = _JointBackground.apply(logits, objectness, counted, row, label, negative_weight)
    return total


class _JointBackground(torch.autograd.Function):
    """Loss and gradient in one pass, on the CPU in blocks that fit its cache."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, objectness: Tensor, counted: Tensor, *listed: Tensor) -> Tensor:
        row, label, negative_weight = listed
        # The derivatives of the loss by logits (N, C) and by objectness (N,).
        logit_slopes, objectness_slopes = torch.empty_like(logits), torch.empty_like(objectness)
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
            torch.mul(slope, of_class.neg_().add_(1), out=logit_slopes[part])
            torch.mul(slope.sum(-1), 1 - of_object, out=objectness_slopes[part])
        ctx.save_for_backward(logit_slopes, objectness_slopes)
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        logit_slopes, objectness_slopes = ctx.saved_tensors
        return grad * logit_slopes, grad * objectness_slopes, None, None, None, None


def _background_cost(joint: Tensor) -> tuple[Tensor, Tensor]:
    """The sum of ``-x^2 log(1 - x)``, and x times its derivative by x; ``joint`` is x and is overwritten."""
    rest = 1 - joint
    share = rest.clamp(min=_NARROW).reciprocal_()
    # The first-order effect on the logarithm of the digits that 1 - x rounds off.
    lost = (1 - rest).sub_(joint).mul_(share)
    log = rest.log_().clamp_(min=_LOG_FLOOR).add_(lost)
    square = joint.square()
    slope = joint.mul_(share).sub_(log, alpha=2).mul_(square)
    return -log.mul_(square).sum(), slope


def _blocks(logits: Float[Tensor, "N C"], row: Int[Tensor, " K"]) -> list[tuple[slice, slice]]:
    """Slices of rows, each with the slice of the list that belongs to it; a single slice when not on the CPU."""
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
    """The marked entries of a plan as pairs, and their positions in the flattened plan.

    On a GPU and in a compiled graph all entries are returned, and those that are not marked are padding.
    """
    _, count, width = mask.shape
    marked = mask.flatten()
    if may_look(mask):
        position = marked.nonzero().squeeze(1)
    else:
        position = torch.arange(len(marked) if truth.labels.shape[1] else 0, device=mask.device)
    row = position // width
    objects, real = plan.objects.flatten().index_select(0, position), marked.index_select(0, position)
    return Pairs(row // count, objects, row % count, real), position
