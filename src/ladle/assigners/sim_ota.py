"""SimOTA: as many priors as an object is overlapped well by, the cheapest of those about its center (YOLOX)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ladle.assigners.dynamic_k import (
    Price,
    cheapest,
    dynamic_counts,
    inside_any,
    sum_over_classes,
)
from ladle.assigners.protocol import full_precision
from ladle.boxes import contains, iou
from ladle.overlaps import outside_crowds
from ladle.pairs import Pairs, pairs_inside, squares
from ladle.types import Assignment, GroundTruth, Predictions, Priors

__all__ = ["SimOTA"]

_LEAST_LOG = -100.0
"""Logarithms of probabilities are cut off here, as PyTorch's cross entropy does it."""


@dataclass(frozen=True)
class SimOTA:
    """Optimal transport cut down to a choice of the cheapest (Ge et al., YOLOX, 2021, section 2.1).

    A pair costs ``class_weight * cross entropy - box_weight * log(IoU + floor)`` and ``penalty`` more if the prior is
    not near the object's center. An object takes as many of the candidates as their ``topk`` best IoUs with it add up
    to, rounded down, at least one: those it gets cheapest. A prior that several objects want goes to the one for which
    it is cheapest of *all* objects, whether that one wants it or not; the others go without. The score whose cross
    entropy is taken is ``sqrt(class probability * quality)``, the class probability alone where nothing predicts
    quality.

    The defaults are those of YOLOX today. Its release 0.3 and the technical report are ``SimOTA(radius=2.5,
    candidates="center or box", penalty=1e5)``; mmdetection's is that with ``floor=1e-7``.

    Args:
        radius: half the side of the square about an object's center, in strides of the prior's level.
        candidates: ``"center"``: priors in the square of any object, penalised for the objects in whose square they
            are not. ``"center or box"``: priors in the square or the box of any object, penalised for the objects of
            which they are not in both.
        topk: IoUs that are added up, hence the most priors an object takes.
        box_weight: weight of the box term.
        class_weight: weight of the class term.
        penalty: what it costs to be far from the center; infinite forbids it.
        floor: added to the IoU before its logarithm is taken.
        crowd: a prior with more than this share inside a crowd region is not background.

    Of equally cheap priors the earlier is taken; the references leave that open. Pairs whose cost is not a number are
    passed over.

    Examples:
        >>> from ladle.assigners import SimOTA
        >>> from ladle.testing import example_scene
        >>> predictions, priors, truth = example_scene()
        >>> plan = SimOTA()(predictions, priors, truth)
        >>> plan.positive.sum(1)  # priors that learn an object, in each of two images
        tensor([28, 33])
    """

    radius: float = 1.5
    candidates: Literal["center", "center or box"] = "center"
    topk: int = 10
    box_weight: float = 3.0
    class_weight: float = 1.0
    penalty: float = 1e6
    floor: float = 1e-8
    crowd: float = 0.5

    @full_precision
    def __call__(self, predictions: Predictions, priors: Priors, truth: GroundTruth) -> Assignment:
        """Assign by what is predicted, scores and boxes alike, about the centers of the objects."""
        free = outside_crowds(priors, truth, self.crowd)
        if not truth.labels.shape[1]:
            return Assignment.empty(free)
        square, box = squares(priors, truth, self.radius), truth.boxes.unsqueeze(2)
        candidate = inside_any(priors, square, truth.learnable)
        if self.candidates == "center or box":
            candidate = candidate | inside_any(priors, box.expand_as(square), truth.learnable)
            square = torch.cat([square[..., :2].maximum(box[..., :2]), square[..., 2:].minimum(box[..., 2:])], dim=-1)

        def price_at(mask: Bool[Tensor, "B P"]) -> Price:
            nothing = _as_background(predictions, mask)
            return lambda pairs: self._price(pairs, nothing, square, predictions, priors, truth)

        near = pairs_inside(priors, square, truth.learnable)
        many = dynamic_counts(predictions.boxes, candidate, truth, self.topk)
        positive, index = cheapest(near, price_at, self.penalty, candidate, many, self.topk)
        return Assignment.hard(index, positive, free)

    def _price(
        self,
        pairs: Pairs,
        nothing: Float[Tensor, "B P"],
        region: Float[Tensor, "B G L 4"],
        said: Predictions,
        priors: Priors,
        truth: GroundTruth,
    ) -> Float[Tensor, " N"]:
        """What each pair costs: the sum over classes is that of a prior that is background, but for one class."""
        overlap = iou(pairs.of_prior(said.boxes), pairs.of_object(truth.boxes))
        quality = None if said.quality is None else pairs.of_prior(said.quality)
        score = _score(pairs.of_label(said.logits, truth.labels), quality)
        classes = pairs.of_prior(nothing) - _log(score) + _log(1 - score)
        home = (pairs.image * region.shape[1] + pairs.object) * region.shape[2] + pairs.of_prior(priors.level[None])
        far = ~contains(region.flatten(0, 2).index_select(0, home), pairs.of_prior(priors.centers))
        cost = classes * self.class_weight - (overlap + self.floor).log() * self.box_weight
        cost = torch.where(far, cost + self.penalty, cost)
        return torch.where(cost < torch.inf, cost, torch.inf)


def _score(logit: Tensor, quality: Tensor | None) -> Tensor:
    return logit.sigmoid() if quality is None else (logit.sigmoid() * quality.sigmoid()).sqrt()


def _log(probability: Tensor) -> Tensor:
    return probability.log().clamp(min=_LEAST_LOG)


def _as_background(said: Predictions, mask: Bool[Tensor, "B P"]) -> Float[Tensor, "B P"]:
    """The cross entropy of the marked priors' scores, summed over classes, if every class is absent."""

    def price(logits: Tensor, places: Tensor) -> Tensor:
        quality = None if said.quality is None else said.quality.flatten().index_select(0, places).unsqueeze(1)
        return -_log(1 - _score(logits, quality))

    return sum_over_classes(said.logits, mask, price)
